"""The native route: SGLang's words, so that its tools run unchanged."""

import json
from typing import Any

import pytest

from tests.support.gateway import TOKEN, Gateway
from tests.support.gateway_peers import Reply
from tests.support.wire import exchange

HEADERS = (f"Authorization: Bearer {TOKEN}", "Content-Type: application/json")


async def generate(gateway: Gateway, **body: Any) -> Any:
    response = await exchange(gateway.port, "POST", "/generate", headers=HEADERS, body=json.dumps(body).encode())
    assert response.status == 200, response.body
    if body.get("stream"):
        lines = [line.removeprefix(b"data: ") for line in response.body.split(b"\n") if line.startswith(b"data: ")]
        assert lines.pop() == b"[DONE]"
        return [json.loads(line) for line in lines]
    return json.loads(response.body)


async def test_text_and_meta_info(gateway: Gateway) -> None:
    """One prompt is one object with everything that SGLang's tools look at."""
    gateway.says("hello")
    gateway.engine.cached_tokens = 1
    answer = await generate(gateway, text="hi", sampling_params={"temperature": 0, "max_new_tokens": 8})
    assert answer["text"] == "hello"
    assert answer["output_ids"] == gateway.ids("hello")
    meta = answer["meta_info"]
    assert meta["finish_reason"] == {"type": "stop", "matched": 261}
    assert (meta["prompt_tokens"], meta["completion_tokens"], meta["cached_tokens"]) == (2, 6, 1)
    assert meta["id"].startswith("gen-")
    assert meta["e2e_latency"] > 0
    assert gateway.engine.submits[0].sampling.temperature == 0.0


async def test_meta_info_says_what_drafts_did(gateway: Gateway) -> None:
    """By SGLang's names; of an engine that verified no drafts nothing is said."""
    gateway.says("hello")
    without = await generate(gateway, text="hi", sampling_params={"max_new_tokens": 8})
    assert not [key for key in without["meta_info"] if key.startswith("spec_")]
    gateway.engine.drafts = (4, 20, 6)
    meta = (await generate(gateway, text="hi", sampling_params={"max_new_tokens": 8}))["meta_info"]
    assert {key: value for key, value in meta.items() if key.startswith("spec_")} == {
        "spec_verify_ct": 4,
        "spec_draft_token_num": 20,
        "spec_accept_token_num": 6,
        "spec_accept_rate": 0.3,
        "spec_accept_length": 2.5,
    }


async def test_stream_repeats_the_text_from_its_beginning(gateway: Gateway) -> None:
    """As SGLang's does, with counts that grow."""
    gateway.says("abc")
    events = await generate(gateway, text="hi", sampling_params={"max_new_tokens": 3}, stream=True)
    assert [event["text"] for event in events] == ["a", "ab", "abc"]
    assert [event["meta_info"]["completion_tokens"] for event in events] == [1, 2, 3]
    assert events[-1]["meta_info"]["finish_reason"] == {"type": "length", "length": 3}
    assert events[0]["meta_info"]["finish_reason"] is None


async def test_lists_and_choices_give_lists(gateway: Gateway) -> None:
    """Several prompts or several choices are answered by a list in order."""
    gateway.engine.reply = lambda submit, choice: Reply([*submit.prompt[:1], 48 + choice, 261])
    answers = await generate(gateway, input_ids=[[97], [98]], sampling_params={"n": 2})
    assert [answer["text"] for answer in answers] == ["a0", "a1", "b0", "b1"]
    assert [answer["index"] for answer in answers] == [0, 1, 2, 3]


async def test_logprobs_of_prompt_and_answer(gateway: Gateway) -> None:
    """In SGLang's triples, from the place that was asked for."""
    gateway.says("xy")
    answer = await generate(
        gateway,
        input_ids=[97, 98, 99],
        return_logprob=True,
        logprob_start_len=1,
        top_logprobs_num=2,
        return_text_in_logprobs=True,
    )
    meta = answer["meta_info"]
    assert meta["input_token_logprobs"] == [[-0.5, 98, "b"], [-0.5, 99, "c"]]
    assert meta["output_token_logprobs"] == [[-0.5, 120, "x"], [-0.5, 121, "y"], [-0.5, 261, "<|im_end|>"]]
    assert meta["output_top_logprobs"][0] == [[-0.5, 120, "x"], [-1.5, 97, "a"]]
    assert meta["input_top_logprobs"][0] == [[-0.5, 1, "\x01"], [-1.5, 97, "a"]]
    without = (await generate(gateway, input_ids=[97, 98, 99], return_logprob=True))["meta_info"]
    assert without["input_token_logprobs"] == []
    assert len(without["output_token_logprobs"]) == 3
    whole = await generate(gateway, input_ids=[97, 98], return_logprob=True, logprob_start_len=0, top_logprobs_num=1)
    assert whole["meta_info"]["input_token_logprobs"][0] == [None, 97, None]
    assert whole["meta_info"]["input_top_logprobs"][0] is None


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("stop", [[], ["lo"]])
async def test_every_output_id_has_its_logprobs(gateway: Gateway, stream: bool, stop: list[str]) -> None:
    """Those that end the answer among them, so that the columns can be read side by side; as many as are counted."""
    gateway.says("hello")
    asked = {"stop": stop, "max_new_tokens": 9}
    answer = await generate(gateway, text="x", sampling_params=asked, return_logprob=True, stream=stream)
    for told in answer if stream else [answer]:
        assert [token_id for _, token_id, _ in told["meta_info"]["output_token_logprobs"]] == told["output_ids"]
    last = answer[-1] if stream else answer
    assert last["meta_info"]["completion_tokens"] == len(last["output_ids"]) == (5 if stop else 6)


@pytest.mark.parametrize("stream", [False, True])
async def test_no_new_tokens_read_the_prompt_only(gateway: Gateway, stream: bool) -> None:
    """As SGLang's frontend warms prefixes and weighs choices: logprobs of the prompt, and no text."""
    gateway.says("xy")
    given = {"return_logprob": True, "logprob_start_len": 0, "stream": stream}
    answer = await generate(gateway, input_ids=[97, 98], sampling_params={"max_new_tokens": 0}, **given)
    answer = answer[-1] if stream else answer
    meta = answer["meta_info"]
    assert (answer["text"], answer["output_ids"], meta["output_token_logprobs"]) == ("", [], [])
    assert meta["finish_reason"] == {"type": "length", "length": 0}
    assert [token_id for _, token_id, _ in meta["input_token_logprobs"]] == [97, 98]
    assert meta["completion_tokens"] == 1, "what was computed is counted"
    assert gateway.engine.submits[-1].sampling.max_tokens == 1


async def test_a_matched_stop_string_is_named(gateway: Gateway) -> None:
    """`finish_reason.matched` is the string that ended it."""
    gateway.says("one END two")
    answer = await generate(gateway, text="hi", sampling_params={"stop": ["END"]})
    assert answer["text"] == "one "
    assert answer["meta_info"]["finish_reason"] == {"type": "stop", "matched": "END"}


async def test_members_of_sglangs_clients_that_ask_for_nothing_are_taken(gateway: Gateway) -> None:
    """Its frontend language sends every sampling parameter, and whoever sends a request's members in full sends defaults."""
    gateway.says("yes")
    frontend = {
        "stop": [],
        "stop_token_ids": [],
        "stop_regex": [],
        "regex": None,
        "json_schema": None,
        "top_k": 1 << 30,
    }
    others = {"log_metrics": True, "no_logs": False, "return_hidden_states": False, "background": False, "rid": None}
    answer = await generate(gateway, text="hi", sampling_params={"max_new_tokens": 4, **frontend}, **others)
    assert answer["text"] == "yes"


async def test_what_is_said_of_each_prompt_holds_for_all(gateway: Gateway) -> None:
    """SGLang's clients may send a list with one value for each prompt, token ids among them."""
    gateway.engine.reply = lambda submit, choice: Reply([*submit.prompt[:1], 261])
    sampling = [{"max_new_tokens": 3, "temperature": 0}] * 2
    for prompts in ({"text": ["a", "b"]}, {"input_ids": [[97], [98]]}):
        answers = await generate(
            gateway, **prompts, sampling_params=sampling, return_logprob=[True, True], logprob_start_len=[0, 0],
            top_logprobs_num=[1, 1],
        )  # fmt: skip
        assert [answer["text"] for answer in answers] == ["a", "b"]
        assert [len(answer["meta_info"]["input_token_logprobs"]) for answer in answers] == [1, 1]
    assert {submit.sampling.max_tokens for submit in gateway.engine.submits} == {3}
