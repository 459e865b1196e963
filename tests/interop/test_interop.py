"""Other people's clients, unchanged, in environments of their own: what they get is what the API says itself.

`make test-interop` makes the environments below .cache/interop and runs this.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.interop.conftest import HERE, javascript, program_of, run
from tests.support.appliance import DEMO_MODEL, Appliance
from tests.support.commands import run_casemate

MODEL = "casemate-demo"

pytestmark = pytest.mark.long


def test_langchain(appliance: Appliance, tmp_path: Path) -> None:
    """ChatOpenAI: whole and streamed answers, a tool called and its result taken back, structured output."""
    python = program_of("langchain", "python")
    command = [str(python), str(HERE / "langchain_client.py"), f"{appliance.url}/v1", str(appliance.ca_file), MODEL]
    got = json.loads(run(command, appliance, appliance.token(), tmp_path))
    assert "Casemate" in got["plain"]
    assert got["streamed"] == got["plain"]
    assert got["usage"]["output_tokens"] > 10
    assert got["calls"] == [["get_weather", {"city": "Rome"}]]
    assert got["after"]
    assert set(got["trip"]) == {"city", "days"}


def test_openai_for_javascript(appliance: Appliance, tmp_path: Path) -> None:
    """Chat whole and streamed, a loop with a tool, a schema, responses as events, embeddings in base64, and an error."""
    command = [*javascript("openai_client.mjs"), f"{appliance.url}/v1", MODEL]
    got = json.loads(run(command, appliance, appliance.token(), tmp_path))
    assert "Casemate" in got["plain"]
    assert got["streamed"] == [got["plain"], got["usage"]]
    assert got["request"] == [got["request"][1]] * 2
    assert (got["called"], bool(got["after"])) == (["Rome"], True)
    assert got["structured"].keys() == {"big", "kind"}
    assert got["response"] == got["plain"]
    assert {"response.created", "response.output_text.delta", "response.incomplete"} <= set(got["events"])
    assert [length for _, length in got["embedded"]] == [1.0, 1.0]
    assert got["refused"] == ["NotFoundError", 404, "model_not_found"]


def test_anthropic(appliance: Appliance, tmp_path: Path) -> None:
    """Messages whole and streamed, tools run by the SDK, stop sequences, counts, a schema, and errors that it understands."""
    command = [str(program_of("anthropic", "python")), str(HERE / "anthropic_client.py"), appliance.url, MODEL]
    got = json.loads(run(command, appliance, static_key(appliance), tmp_path))
    assert "Casemate" in got["plain"]
    assert got["streamed"] == got["older"] == got["plain"]
    assert got["request"] == [got["request"][1]] * 2
    assert got["usage"] == [got["counted"], got["streamed_usage"]]
    assert (got["called"], bool(got["after"])) == ([["get_weather", {"city": "Rome"}]], True)
    assert got["stopped"] == ["stop_sequence", "runtime"]
    assert got["structured"].keys() == {"big", "kind"}
    assert got["refused"] == [
        ["NotFoundError", "not_found_error", True],
        ["BadRequestError", "invalid_request_error", True],
        ["AuthenticationError", "authentication_error", False],
    ]


def test_litellm(appliance: Appliance, tmp_path: Path) -> None:
    """By its providers for OpenAI, vLLM and Anthropic alike: the same answers, tools in a loop, a schema, and its own errors."""
    command = [str(program_of("litellm", "python")), str(HERE / "litellm_client.py"), appliance.url, MODEL]
    got = json.loads(run(command, appliance, static_key(appliance), tmp_path))
    assert got.pop("embedded") == 2
    assert {by["plain"] for by in got.values()} == {got["openai"]["plain"]}
    for by in got.values():
        assert by["streamed"] == by["plain"]
        assert by["called"] == ["get_weather", {"city": "Rome"}]
        assert by["after"]
        assert by["structured"].keys() == {"big", "kind"}
        assert by["refused"] == ["NotFoundError", "AuthenticationError", "ContextWindowExceededError"]


def static_key(appliance: Appliance) -> str:
    """For clients that only know an API key."""
    client_id = appliance.create_client("keyed").client_id
    words = ["key", "create", client_id, "--from", "127.0.0.0/8", "--json", "--config", str(appliance.config_file)]
    key: str = json.loads(run_casemate(*words))["key"]
    return key


def test_lm_eval(appliance: Appliance, tmp_path: Path) -> None:
    """local-completions over a small task of ours: every loglikelihood is the sum of the logprobs that the API gives."""
    program = program_of("lm_eval", "lm_eval")
    token = appliance.token()
    shutil.copytree(HERE / "lm_eval_task", tmp_path / "task")
    arguments = (
        f"base_url={appliance.url}/v1/completions,model={MODEL},tokenizer_backend=huggingface,tokenizer={DEMO_MODEL}"
    )
    command = [
        str(program),
        "--model",
        "local-completions",
        "--model_args",
        f"{arguments},num_concurrent=1,max_retries=1",
    ]
    command += ["--include_path", ".", "--tasks", "casemate_capitals", "--output_path", "out", "--log_samples"]
    run(command, appliance, token, tmp_path / "task")
    (file,) = (tmp_path / "task" / "out").rglob("samples_*.jsonl")
    samples = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(samples) == 4
    with openai.OpenAI(
        base_url=f"{appliance.url}/v1",
        api_key=token,
        http_client=openai.DefaultHttpxClient(verify=appliance.client.tls),
    ) as sdk:
        for sample in samples:
            text = f"The capital of {sample['doc']['country']} is"
            for choice, response in zip(sample["doc"]["choices"], sample["resps"], strict=True):
                assert float(response[0][0]) == pytest.approx(loglikelihood(sdk, text, f" {choice}"), abs=1e-3)


def loglikelihood(sdk: openai.OpenAI, context: str, continuation: str) -> float:
    """Of a continuation, out of the echoed logprobs of the API."""
    answer: Any = sdk.completions.create(
        model=MODEL, prompt=context + continuation, max_tokens=1, echo=True, logprobs=1
    )
    scores = answer.choices[0].logprobs
    return sum(
        score
        for score, offset in zip(scores.token_logprobs, scores.text_offset, strict=True)
        if len(context) <= offset < len(context + continuation)
    )
