"""`casemate audit replay`: would the model say this? A recorded request is asked again by its seed, and the answers are compared.

Two people's tokens: an auditor's, who reads the records, and a client's of the same tenant, who asks. What is compared are keyed
hashes, so that nobody but the client sees a text; the request is the client's, or comes out of a sealed body.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.cli.audit.arguments import WrongUsage, read_file, set_handler
from appliance.cli.audit.remote import RemoteLog, add_remote, open_remote, read_token
from appliance.cli.commands import Commands, add_command
from appliance.cli.main import EXIT_FAILED, EXIT_OK
from appliance.cli.terminal import escape_json
from appliance.errors import CommandFailed
from audit.entry import Json

MAX_REQUEST_BYTES = 64 << 20
ANSWER_TIMEOUT_S = 900.0
RECORD_TIMEOUT_S = 60.0
POLL_S = 0.5
SEEDED_ROUTES = ("/v1/chat/completions", "/v1/completions", "/generate")
"""The others take no seed."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the log has of one request."""

    intent: Json
    outcome: Json

    def member(self, name: str) -> Any:
        """Of our own members of either."""
        own = self.intent["unmapped"]["casemate"] | self.outcome["unmapped"]["casemate"]
        return own.get(name)


@dataclass(frozen=True, slots=True)
class Compared:
    """One thing that both requests have."""

    what: str
    recorded: str
    replayed: str

    @property
    def is_same(self) -> bool:
        """Whether it is the same of both."""
        return self.recorded == self.replayed


def add_replay_commands(commands: Commands) -> None:
    """Add it."""
    replay = add_command(commands, "replay", "ask a recorded request again by its seed, and compare the answers")
    replay.add_argument("index", type=int, metavar="INDEX", help="of the request's intent")
    replay.add_argument(
        "--request", metavar="FILE", type=Path, required=True, help="the request's body, as it was sent"
    )
    replay.add_argument(
        "--client-token-file", metavar="FILE", required=True, help="holds a token of a client of the same tenant"
    )
    add_remote(replay)
    set_handler(replay, _replay)


def _replay(arguments: argparse.Namespace) -> int:
    remote = open_remote(arguments)
    if remote is None:
        raise WrongUsage("replay needs --url: it asks an appliance")
    token = read_token(arguments.client_token_file)
    asking = RemoteLog(arguments.url, token, arguments.ca, timeout_s=ANSWER_TIMEOUT_S)
    intent: Json = json.loads(remote.get(f"/audit/record/{arguments.index}"))
    route, body = prepare_request(intent, read_file(arguments.request, MAX_REQUEST_BYTES))
    recorded = _recorded(remote, intent["unmapped"]["casemate"]["request_uid"])
    replayed = _recorded(remote, request_uid_of(asking.post(route, body)))
    return report(list(compare(recorded, replayed)))


def prepare_request(intent: Json, data: bytes) -> tuple[str, dict[str, Any]]:
    """The route of a recorded request, and its body with the recorded seed, not streamed.

    Raises: WrongUsage where the record is of no request that takes a seed, or the body is no JSON object.
    """
    own = intent.get("unmapped", {}).get("casemate", {})
    if own.get("kind") != "inference_intent":
        raise WrongUsage(f"INDEX: expected an inference_intent, found {_shown(own.get('kind'))}")
    route = intent["http_request"]["url"]["path"]
    if route not in SEEDED_ROUTES:
        raise WrongUsage(f"INDEX: {_shown(route)} takes no seed; these do: {', '.join(SEEDED_ROUTES)}")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise WrongUsage("--request: is no JSON") from error
    if not isinstance(body, dict):
        raise WrongUsage("--request: expected a JSON object")
    body.pop("stream_options", None)
    body["stream"] = False
    seed = int(own["parameters"]["seed"])
    if route == "/generate":
        sampling = body.get("sampling_params") or {}
        if not isinstance(sampling, dict):
            raise WrongUsage("--request: expected one prompt, with sampling_params that are an object")
        body["sampling_params"] = sampling | {"sampling_seed": seed}
    else:
        body["seed"] = seed
    return route, body


def request_uid_of(answer: dict[str, Any]) -> str:
    """The name by which an answer's request is in the log. Raises: CommandFailed."""
    meta = answer.get("meta_info")
    uid = meta.get("id") if isinstance(meta, dict) else answer.get("id")
    if not isinstance(uid, str):
        raise CommandFailed("the answer has no id")
    return uid


def compare(recorded: Recorded, replayed: Recorded) -> Iterator[Compared]:
    """What an answer depends on, and the answer, last. Hashes are told with their keys: those of two cannot be compared."""

    def shown(one: Recorded, name: str) -> str:
        return f"{one.member(f'{name}_hash')} by {one.member(f'{name}_key_id')}"

    def parameters(one: Recorded) -> str:
        return json.dumps({k: v for k, v in one.member("parameters").items() if k != "stream"}, sort_keys=True)

    yield Compared("engine", recorded.intent["ai_model"]["version"], replayed.intent["ai_model"]["version"])
    yield Compared("parameters", parameters(recorded), parameters(replayed))
    yield Compared("prompt", shown(recorded, "prompt"), shown(replayed, "prompt"))
    yield Compared("ended", str(recorded.outcome.get("status_code")), str(replayed.outcome.get("status_code")))
    yield Compared("answer", shown(recorded, "answer"), shown(replayed, "answer"))


def report(compared: list[Compared]) -> int:
    """A line each, and what differs in full; EXIT_OK if the answer is the recorded one."""
    for one in compared:
        print(f"{one.what}: {'the same' if one.is_same else 'differs'}")
        if not one.is_same:
            print(f"  recorded {_shown(one.recorded)}\n  now      {_shown(one.replayed)}")
    keys = {text.rpartition(" by ")[2] for text in (compared[-1].recorded, compared[-1].replayed)}
    if len(keys) > 1:
        print(
            "The hashes have the keys of two days or tenants. Look the text that came up on the record's: casemate audit lookup"
        )
    return EXIT_OK if compared[-1].is_same else EXIT_FAILED


def _recorded(remote: RemoteLog, request_uid: str) -> Recorded:
    """Intent and outcome of a request, once both are indexed. Raises: CommandFailed."""
    deadline_s = time.monotonic() + RECORD_TIMEOUT_S
    while True:
        found = remote.post("/audit/search", {"request": request_uid, "limit": 10})["records"]
        by_kind = {one["record"]["unmapped"]["casemate"]["kind"]: one["record"] for one in found}
        if by_kind.keys() >= {"inference_intent", "inference_outcome"}:
            return Recorded(by_kind["inference_intent"], by_kind["inference_outcome"])
        if time.monotonic() > deadline_s:
            raise CommandFailed(f"{_shown(request_uid)}: the log has no intent and outcome of this request")
        time.sleep(POLL_S)


def _shown(value: object) -> str:
    return escape_json(json.dumps(value))
