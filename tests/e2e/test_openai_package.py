"""The whole appliance as OpenAI's own client sees it: real processes, TLS, OAuth, the demo model, the log."""

import openai
import pytest

from audit.errors import AuditRejected
from audit.receipt import verify_receipt
from audit.signing_key import load_verifier_key
from tests.support.appliance import Appliance

MODEL = "casemate-demo"
QUESTION = [{"role": "user", "content": "What is Casemate?"}]


def test_models_are_listed(sdk: openai.OpenAI) -> None:
    """The served model is there under its served name."""
    assert [model.id for model in sdk.models.list()] == [MODEL]


def test_chat_answers_and_counts_tokens(sdk: openai.OpenAI) -> None:
    """A whole answer with usage; greedy, so that the second answer is the same and comes from the prefix cache in part."""
    first = sdk.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=60)
    second = sdk.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=60)
    assert first.choices[0].message.content == second.choices[0].message.content
    assert first.choices[0].finish_reason in ("stop", "length")
    assert first.usage is not None
    assert first.usage.total_tokens == first.usage.prompt_tokens + first.usage.completion_tokens


def test_streamed_text_is_the_text_of_the_whole_answer(sdk: openai.OpenAI) -> None:
    """Streaming changes how tokens travel, not which."""
    whole = sdk.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=40)
    stream = sdk.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        temperature=0,
        max_tokens=40,
        stream=True,
        stream_options={"include_usage": True},
    )
    text, usage = "", None
    for chunk in stream:
        usage = chunk.usage or usage
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
    assert text == whole.choices[0].message.content
    assert usage is not None
    assert usage.completion_tokens == whole.usage.completion_tokens


def test_a_responses_logprobs_are_those_of_the_chat(sdk: openai.OpenAI) -> None:
    """Token by token, whole and streamed."""
    chat = sdk.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, max_tokens=20, logprobs=True, top_logprobs=2
    )
    expected = [(entry.bytes, [top.bytes for top in entry.top_logprobs]) for entry in chat.choices[0].logprobs.content]
    asked = {"model": MODEL, "input": QUESTION, "temperature": 0, "max_output_tokens": 20, "top_logprobs": 2}
    include = ["message.output_text.logprobs"]
    whole = sdk.responses.create(include=include, **asked)
    part = whole.output[0].content[0]
    assert part.text == chat.choices[0].message.content
    assert [(entry.bytes, [top.bytes for top in entry.top_logprobs]) for entry in part.logprobs] == expected
    for entry, other in zip(part.logprobs, chat.choices[0].logprobs.content, strict=True):
        assert entry.logprob == pytest.approx(other.logprob, abs=1e-3)
        assert entry.top_logprobs[0].logprob == pytest.approx(entry.logprob)
    events = sdk.responses.create(include=include, stream=True, **asked)
    streamed = [entry.token for event in events if event.type.endswith("output_text.delta") for entry in event.logprobs]
    assert streamed == [entry.token for entry in part.logprobs]


def test_a_seed_reproduces_a_sampled_text_in_a_crowd(sdk: openai.OpenAI) -> None:
    """The same seed gives the same text, alone and beside other requests."""
    from concurrent.futures import ThreadPoolExecutor

    def ask(seed: int) -> str:
        answer = sdk.completions.create(
            model=MODEL, prompt="Once upon a time", temperature=1.0, seed=seed, max_tokens=24
        )
        return answer.choices[0].text

    alone = [ask(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        crowd = list(pool.map(ask, range(4)))
    assert alone == crowd
    assert len(set(alone)) > 1


def test_completions_take_token_ids_and_lists(sdk: openai.OpenAI) -> None:
    """A list of two id lists gives two choices, in order."""
    answer = sdk.completions.create(model=MODEL, prompt=[[40, 41, 42], [43, 44]], max_tokens=3, temperature=0)
    assert [choice.index for choice in answer.choices] == [0, 1]


def test_an_answer_has_a_receipt_that_verifies(sdk: openai.OpenAI, appliance: Appliance, access_token: str) -> None:
    """The client gets its own records with proofs under a signed checkpoint, and verifies them with the log's key alone."""
    raw = sdk.chat.completions.with_raw_response.create(model=MODEL, messages=QUESTION, max_tokens=8)
    index = int(raw.headers["casemate-audit-index"])
    request_id = raw.headers["x-request-id"]
    receipt = appliance.client.fetch_receipt(access_token, request_id)
    key = load_verifier_key(str(appliance.state / "audit" / "log.vkey"))
    verified = verify_receipt(receipt, [key], key.name)
    assert verified.intent["metadata"]["sequence"] == index
    assert verified.outcome is not None
    assert verified.outcome["unmapped"]["casemate"]["intent_index"] == index
    altered = receipt.replace(b"casemate-demo", b"casemate-dema", 1)
    with pytest.raises(AuditRejected):
        verify_receipt(altered, [key], key.name)


def test_another_client_cannot_read_the_receipt(sdk: openai.OpenAI, appliance: Appliance) -> None:
    """Receipts are the asking client's own."""
    from appliance.errors import CommandFailed

    raw = sdk.chat.completions.with_raw_response.create(model=MODEL, messages=QUESTION, max_tokens=2)
    stranger = appliance.token(appliance.create_client("stranger"))
    with pytest.raises(CommandFailed, match="404"):
        appliance.client.fetch_receipt(stranger, raw.headers["x-request-id"])


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"model": "gpt-4"}, "gpt-4"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"temperature": 9e9}, "temperature"),
        ({"extra_body": {"temprature": 1}}, "temprature"),
        ({"stop": [str(number) for number in range(1000)]}, "stop"),
        ({"messages": [{"role": "user", "content": "a " * 30_000}]}, "token"),
    ],
)
def test_bad_input_is_one_clear_error_that_names_the_thing(
    sdk: openai.OpenAI, change: dict[str, object], word: str
) -> None:
    """4xx with OpenAI's body, and the next request is served."""
    request: dict[str, object] = {"model": MODEL, "messages": QUESTION, "max_tokens": 4, **change}
    with pytest.raises(openai.APIStatusError) as refused:
        sdk.chat.completions.create(**request)  # type: ignore[call-overload]
    assert 400 <= refused.value.status_code < 500
    assert word in refused.value.message
    assert sdk.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=1)


def test_without_a_token_nothing_is_told(appliance: Appliance) -> None:
    """401 on known and unknown paths alike; the pinned public ones answer."""
    assert {path: appliance.status(path) for path in ("/v1/models", "/metrics", "/nothing", "/docs")} == dict.fromkeys(
        ("/v1/models", "/metrics", "/nothing", "/docs"), 401
    )
    assert appliance.status("/health") == 200
    appliance.wait_ready()  # What an engine said more than a second ago is not believed, and a busy machine may be that late.
