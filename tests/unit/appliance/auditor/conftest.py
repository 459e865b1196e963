"""An auditor's service without sockets: peers are objects, messages are lists, time is set by hand."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.auditor.ledger import Clock, Ledger
from appliance.auditor.peer import Peer
from appliance.auditor.service import AuditorService
from appliance.messages.audit import AppendIntent, AppendOutcome, CountTokens
from appliance.messages.control import Role
from audit.append import LogWriter
from audit.entry import Json, encode_event, parse_canonical
from audit.events import Call, Caller, TokenCounts, intent_event, outcome_event
from audit.reserve import Reserve
from audit.storage import Disk

ORIGIN = "log.example/casemate"
COUNTS = TokenCounts(prompt_tokens=12, cached_tokens=4, output_tokens=7)
DIGEST = b"\x05" * 32


@dataclass(eq=False)
class FakePeer:
    """A peer and what it was sent."""

    peer_role: Role
    peer_instance: int = 0
    inbox: list[Any] = field(default_factory=list)

    def take(self, *kinds: type) -> list[Any]:
        """What came of these kinds since the last time; status messages are left out unless asked for."""
        found = [message for message in self.inbox if isinstance(message, kinds)] if kinds else self.inbox[:]
        self.inbox.clear()
        return found

    def last(self, kind: type[msgspec.Struct]) -> Any:
        """The last message of a kind."""
        return [message for message in self.inbox if isinstance(message, kind)][-1]


class Auditor:
    """The service over a real log in a temporary folder."""

    def __init__(
        self, home: Path, disk: Disk | None = None, origin: str = ORIGIN, utc_ms: int | None = None, **settings: Any
    ) -> None:
        self.home = home
        self.now_s = 100.0
        self.utc_ms = 1_795_411_388_000 if utc_ms is None else utc_ms
        """What the wall clock said when the monotonic one said 100; a change sets the clock."""
        self.cut: list[Peer] = []
        self.writer = LogWriter(
            home / "log", home / "log.key", origin=origin, checkpoint_interval_ms=1_000, testing_only_disk=disk
        )
        clock = Clock(lambda: self.now_s, lambda: self.clock_ms)
        reserve = Reserve(home / "log/.state/reserve", 64 * 1024, disk, num_files=8)
        self.service = AuditorService(
            Ledger(self.writer, reserve, clock),
            lambda peer, message: peer.inbox.append(message),  # type: ignore[attr-defined]
            clock,
            cut=self.cut.append,
            **{"count_wait_s": 0.5, "receipts_kept": 100, "receipt_wait_s": 3.0} | settings,
        )
        self.service.start()

    def connect(self, role: Role, instance: int = 0) -> FakePeer:
        """Open a link."""
        peer = FakePeer(role, instance)
        self.service.link_opened(peer)
        return peer

    def tell(self, peer: FakePeer, message: Any) -> None:
        """One message, and a turn."""
        self.service.received(peer, message)
        self.service.turn()

    @property
    def clock_ms(self) -> int:
        """What the wall clock says."""
        return self.utc_ms + round((self.now_s - 100.0) * 1000)

    def pass_time(self, seconds: float) -> None:
        """Let time pass and take a turn."""
        self.now_s += seconds
        self.service.turn()

    def records(self) -> list[Json]:
        """All durable records."""
        return [parse_canonical(self.writer.read(index)) for index in range(self.writer.size)]

    def kinds(self) -> list[str]:
        """Kinds of all durable records."""
        return [record["unmapped"]["casemate"]["kind"] for record in self.records()]

    def die(self) -> None:
        """End without any goodbye."""
        self.writer.close()


@pytest.fixture
def auditor(tmp_path: Path) -> Iterator[Auditor]:
    """A fresh auditor."""
    auditor = Auditor(tmp_path)
    yield auditor
    auditor.die()


CALLER = Caller(
    client_id="demo", subject="demo", tenant="t", role="user", token_issuer="i", token_key_id="k", token_id="j",
    address="10.0.0.1", port=5,
)  # fmt: skip


def call(uid: str) -> Call:
    """A call of a request id."""
    return Call(request_uid=uid, trace_id="", route="/v1/completions", model="m", engine_build="b")


def intent(uid: str = "req-1", correlation: int = 1, **changes: Any) -> AppendIntent:
    """A gateway's intent."""
    event = intent_event(
        CALLER, call(uid), parameters={}, prompt_hash="0", prompt_key_id="k", prompt_tokens=12, token_limit=64, reservation=1
    )  # fmt: skip
    message = AppendIntent(correlation, encode_event(event), uid, "demo", "m", DIGEST, 64, 5_000, 77)
    return msgspec.structs.replace(message, **changes)


def outcome(index: int, uid: str = "req-1", correlation: int = 2, counts: TokenCounts = COUNTS) -> AppendOutcome:
    """A gateway's outcome."""
    event = outcome_event(
        CALLER, call(uid), intent_index=index, reason="stop", is_success=True, counts=counts, answer_hash="0",
        answer_key_id="k", http_status=200, first_token_ms=3, total_ms=9,
    )  # fmt: skip
    return AppendOutcome(correlation, index, encode_event(event))


def count(index: int, output_tokens: int = 7) -> CountTokens:
    """An engine's counts."""
    return CountTokens(index, 12, 4, output_tokens, "stop")
