"""Sealed bodies and the rules about them, as the auditor's service sees both: one place to bring messages, one to let time pass."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from appliance.auditor.bodies import BodyDesk
from appliance.auditor.governing import GovernanceDesk
from appliance.auditor.ledger import Clock, Ledger
from appliance.auditor.peer import Peer, Send
from appliance.auditor.vouching import TimeVoucher
from appliance.messages.audit import AppendRefused
from appliance.messages.stewardship import (
    DecideChange,
    FetchRules,
    KeepBodyKey,
    KeepHashRoot,
    OpenBody,
    ProposeChange,
    ToAuditor,
)
from audit.governance import RULES
from audit.shares import SHARES, ShareStore

UNKNOWN_RULES = "unknown"
"""In place of a digest, where no log is left that says which rules are in force."""


@dataclass(frozen=True, slots=True)
class Custody:
    """From the section `[audit]`: how long bodies are kept until two people decide otherwise, whose auditors open everybody's."""

    retention_days: int = 30
    overseeing_tenant: str = "default"


class Stewardship:
    """Both desks over one ledger.

    Args:
        voucher: how far the clock may be ahead.
        told: digest of the rules in force, by the log; empty where it does not say, UNKNOWN_RULES where none is left.
    Raises: StateMismatch when the file of the rules is damaged.
    """

    def __init__(
        self,
        ledger: Ledger,
        send: Send,
        clock: Clock,
        custody: Custody,
        gateways: Callable[[], Iterable[Peer]],
        voucher: TimeVoucher,
        told: str = "",
    ) -> None:
        folder = ledger.writer.folder.parent
        self._send = send
        self._voucher = voucher
        self._governance = GovernanceDesk(
            ledger,
            folder / RULES,
            custody.retention_days,
            send,
            clock,
            lambda: self._bodies.sweep_soon(),
            voucher,
            told,
        )
        self._bodies = BodyDesk(
            ledger,
            ShareStore(folder / SHARES),
            send,
            clock,
            rules=lambda: self._governance.rules,
            gateways=gateways,
            overseeing_tenant=custody.overseeing_tenant,
        )

    @property
    def alarms(self) -> tuple[str, ...]:
        """What a person should look at, in words."""
        return tuple(alarm for alarm in (self._governance.alarm, self._bodies.alarm) if alarm)

    @property
    def facts(self) -> dict[str, str | int]:
        """The rules in force, and how far the clock may be ahead, as a start tells both."""
        return self._governance.facts | {"unvouched_ms": self._voucher.unvouched_ms}

    def gateway_came(self, gateway: Peer) -> None:
        """A gateway's link opened."""
        self._bodies.gateway_came(gateway)

    def take(self, peer: Peer, message: ToAuditor) -> None:
        """One message. Raises: StorageFailed, NotDurable, AuditRejected."""
        if peer.peer_role != "gateway":
            self._send(peer, AppendRefused(message.correlation, "not_permitted", "this is for gateways"))
            return
        match message:
            case KeepBodyKey():
                self._bodies.keep(peer, message)
            case KeepHashRoot():
                self._bodies.keep_hash_root(peer, message)
            case OpenBody():
                self._bodies.open(peer, message)
            case ProposeChange():
                self._governance.propose(peer, message)
            case DecideChange():
                self._governance.decide(peer, message)
            case FetchRules():
                self._governance.tell(peer, message)

    def look(self) -> None:
        """Destroy what is due, and keep rules that could not be kept, where it is time. Raises: StorageFailed.

        What is destroyed does not come back: neither time that nobody vouches for decides on it, nor rules that are not those of
        the log.
        """
        self._governance.look()
        if not self._governance.is_stale:
            self._bodies.sweep(self._voucher.vouched_ms)
