"""`casemate audit replay`: what is asked again, and what is compared. The whole of it runs in `tests/e2e/test_log_reading.py`."""

import json
from typing import Any

import pytest

from appliance.cli.audit.arguments import WrongUsage
from appliance.cli.audit.replaying import Compared, Recorded, compare, prepare_request, report, request_uid_of
from appliance.cli.main import EXIT_FAILED, EXIT_OK
from appliance.errors import CommandFailed


def intent(route: str = "/v1/completions", kind: str = "inference_intent", **own: Any) -> dict[str, Any]:
    return {
        "ai_model": {"version": "1"},
        "http_request": {"url": {"path": route}},
        "unmapped": {"casemate": {"kind": kind, "parameters": {"seed": "9007199254740993", "stream": 1}} | own},
    }


def recorded(answer: str, answer_key: str = "key", **parameters: Any) -> Recorded:
    given = {"seed": 7, "stream": 0} | parameters
    own = {"answer_hash": answer, "answer_key_id": answer_key}
    return Recorded(
        intent(parameters=given, prompt_hash="p", prompt_key_id="k"),
        {"status_code": "stop", "unmapped": {"casemate": own}},
    )


def test_the_recorded_seed_takes_the_place_of_any() -> None:
    """Also one that is text, as it is too large for JSON's numbers; and nothing is streamed."""
    sent = json.dumps({"prompt": "a", "seed": 3, "stream": True, "stream_options": {"include_usage": True}}).encode()
    assert prepare_request(intent(), sent) == (
        "/v1/completions", {"prompt": "a", "seed": 9007199254740993, "stream": False}
    )  # fmt: skip
    _, body = prepare_request(intent("/generate"), b'{"text": "a", "sampling_params": {"temperature": 1}}')
    assert body["sampling_params"] == {"temperature": 1, "sampling_seed": 9007199254740993}


@pytest.mark.parametrize(
    ("record", "sent", "words"),
    [
        (intent(kind="inference_outcome"), b"{}", "expected an inference_intent"),
        (intent("/v1/messages"), b"{}", "takes no seed"),
        (intent(), b"{", "no JSON"),
        (intent(), b"[]", "expected a JSON object"),
        (intent("/generate"), b'{"sampling_params": [{}, {}]}', "expected one prompt"),
    ],
)
def test_what_cannot_be_asked_again_is_refused(record: dict[str, Any], sent: bytes, words: str) -> None:
    """Before anybody is asked."""
    with pytest.raises(WrongUsage, match=words):
        prepare_request(record, sent)


def test_answers_are_compared_by_hash_and_key(capsys: pytest.CaptureFixture[str]) -> None:
    """How it was delivered does not count; hashes of two days say nothing, and what to do then is told."""
    same = list(compare(recorded("a"), recorded("a", stream=1)))
    assert all(one.is_same for one in same)
    assert report(same) == EXIT_OK
    assert report(list(compare(recorded("a"), recorded("b")))) == EXIT_FAILED
    assert "answer: differs" in capsys.readouterr().out
    assert report(list(compare(recorded("a"), recorded("a", "of another day")))) == EXIT_FAILED
    assert "casemate audit lookup" in capsys.readouterr().out
    other = [one.what for one in compare(recorded("a"), recorded("a", temperature="0.5")) if not one.is_same]
    assert other == ["parameters"]


def test_what_a_record_holds_moves_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Escaped, as everything that somebody got into the log."""
    report([Compared("engine", "\x1b[2J", "1"), Compared("answer", "a by k", "a by k")])
    assert "\x1b" not in capsys.readouterr().out


def test_an_answer_names_its_request() -> None:
    """By the id of its dialect."""
    assert request_uid_of({"id": "cmpl-1"}) == "cmpl-1"
    assert request_uid_of({"meta_info": {"id": "gen-1"}, "text": ""}) == "gen-1"
    with pytest.raises(CommandFailed, match="no id"):
        request_uid_of({})
