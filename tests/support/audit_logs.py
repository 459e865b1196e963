"""Logs for tests of those who read them: records of several kinds, a second apart."""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from audit.append import LogWriter
from audit.entry import complete_entry, encode_event, parse_canonical
from audit.events import Call, Caller, TokenCounts, intent_event, outcome_event, process_event, token_rejected_event
from audit.index import LogIndex

ORIGIN = "log.example/casemate"
NAMES = ("ada", "bob", "eve", "zoe")
MODELS = ("small", "large")


def make_event(number: int, chance: random.Random) -> dict[str, Any]:
    """Some event."""
    caller = Caller(
        client_id=f"client-{chance.choice(NAMES)}", subject=chance.choice(NAMES), tenant=f"t{number % 3}", role="user",
        token_issuer="i", token_key_id="k", token_id="j", address="10.0.0.1", port=1,
    )  # fmt: skip
    trace = f"{number % 7:032x}" if number % 2 else ""
    call = Call(
        request_uid=f"req-{number}", trace_id=trace, route="/generate", model=chance.choice(MODELS), engine_build="b"
    )
    counts = TokenCounts(prompt_tokens=1, cached_tokens=0, output_tokens=1)
    match number % 4:
        case 0:
            return intent_event(
                caller, call, parameters={}, prompt_hash="0", prompt_key_id="k", prompt_tokens=1, token_limit=1, reservation=1
            )  # fmt: skip
        case 1:
            return outcome_event(
                caller, call, intent_index=0, reason=chance.choice(("stop", "length")), is_success=bool(number % 3), counts=counts,
                answer_hash="0", answer_key_id="k", http_status=200, first_token_ms=1, total_ms=1,
            )  # fmt: skip
        case 2:
            return token_rejected_event(
                address="10.0.0.1", port=1, route="/", code="expired", detail="", client_id="client-ada"
            )
        case _:
            return process_event("process_started", role="engine", instance=number % 2, pid=number)


class Log:
    """A log of such events, a second apart."""

    def __init__(self, home: Path, seed: int = 1) -> None:
        self.home = home
        self.chance = random.Random(seed)
        self.writer = LogWriter(home / "log", home / "log.key", origin=ORIGIN)
        self.events: list[dict[str, Any]] = []

    def grow(self, count: int) -> None:
        first = self.writer.next_index
        self.add(make_event(first + number, self.chance) for number in range(count))

    def add(self, events: Iterable[dict[str, Any]]) -> None:
        for event in events:
            index = self.writer.next_index
            entry = complete_entry(
                parse_canonical(encode_event(event)),
                index=index,
                time_ms=1_000 * index,
                reporter=f"gateway/{index % 2}",
                log_name=ORIGIN,
                random=bytes(16),
            )
            self.writer.append([entry])
            self.events.append(parse_canonical(entry))
        self.writer.commit()
        self.writer.publish()

    def index(self, name: str = "index.sqlite") -> LogIndex:
        return LogIndex(self.home / "reader" / name, self.home / "log", self.writer.key)
