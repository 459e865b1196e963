"""Who may talk to whom, and in which closed union of messages. An edge that is not in this table does not exist.

gateway   → engine     Submit, Cancel                        gateway → policy    Reserve, Extend, Settle, keys, use once
authority → policy     FindPrincipal, RevokeToken and others  policy → both       answers, revocations
gateway   → compiler   Compile                               compiler → gateway   Compiled, CompileRefused
gateway   → auditor    intents, outcomes, events, receipts   engine  → auditor   CountTokens, events
auditor   → engine     TicketKey, Ticket                     auditor → gateway   answers, status
authority → auditor    events                                policy  → auditor   events
gateway   → reader     searches, records, tiles              reader   → auditor   events (what was read)
auditor   → courier    AskWitness                            courier  → auditor   WitnessAnswered
supervisor → auditor   events                                supervisor ↔ all    control (its own socket)
"""

from collections.abc import Callable
from typing import Any

import msgspec

from appliance.errors import MalformedMessage
from appliance.messages import audit, engine, grammar, policy, reading, witnessing
from appliance.messages.control import Role

_UNIONS: dict[tuple[Role, Role], Any] = {
    ("gateway", "engine"): engine.GatewayToEngine,
    ("engine", "gateway"): engine.EngineToGateway,
    ("gateway", "policy"): policy.GatewayToPolicy,
    ("policy", "gateway"): policy.PolicyToGateway,
    ("authority", "policy"): policy.AuthorityToPolicy,
    ("policy", "authority"): policy.PolicyToAuthority,
    ("gateway", "compiler"): grammar.Compile,
    ("compiler", "gateway"): grammar.CompilerToGateway,
    ("gateway", "auditor"): audit.PeerToAuditor,
    ("auditor", "gateway"): audit.AuditorToPeer,
    ("engine", "auditor"): audit.PeerToAuditor,
    ("auditor", "engine"): audit.AuditorToPeer,
    ("authority", "auditor"): audit.PeerToAuditor,
    ("auditor", "authority"): audit.AuditorToPeer,
    ("policy", "auditor"): audit.PeerToAuditor,
    ("auditor", "policy"): audit.AuditorToPeer,
    ("gateway", "reader"): reading.GatewayToReader,
    ("reader", "gateway"): reading.ReaderToGateway,
    ("reader", "auditor"): audit.PeerToAuditor,
    ("auditor", "reader"): audit.AuditorToPeer,
    ("auditor", "courier"): witnessing.AuditorToCourier,
    ("courier", "auditor"): witnessing.CourierToAuditor,
    ("supervisor", "auditor"): audit.PeerToAuditor,
    ("auditor", "supervisor"): audit.AuditorToPeer,
}

_encoder = msgspec.msgpack.Encoder()


def peers_of(role: Role) -> tuple[Role, ...]:
    """Roles that `role` has an edge to, the supervisor's control socket aside."""
    return tuple(receiver for sender, receiver in _UNIONS if sender == role)


class EdgeCodec:
    """Encodes what `own` may send, decodes what `peer` may send to `own`."""

    def __init__(self, own: Role, peer: Role) -> None:
        self._own = own
        self._peer = peer
        self._decoder = msgspec.msgpack.Decoder(_UNIONS[peer, own])
        self.encode: Callable[[msgspec.Struct], bytes] = _encoder.encode
        """Encodes one message: the encoder's own, as there is one call for each message."""

    def decode(self, payload: bytes) -> Any:
        """Decode one untrusted message into the edge's union.

        Raises: MalformedMessage for whatever is not in it.
        """
        try:
            return self._decoder.decode(payload)
        except (msgspec.DecodeError, RecursionError) as error:
            raise MalformedMessage(
                f"{self._peer} sent {self._own} a message that their edge does not allow: {error}"
            ) from error


class ControlCodec:
    """The control socket between the supervisor and one process."""

    def __init__(self, incoming: Any) -> None:
        self._decoder = msgspec.msgpack.Decoder(incoming)

    def encode(self, message: msgspec.Struct) -> bytes:
        """Encode one message."""
        return _encoder.encode(message)

    def decode(self, payload: bytes) -> Any:
        """Decode one control message.

        Raises: MalformedMessage for whatever is not in the union given at construction.
        """
        try:
            return self._decoder.decode(payload)
        except (msgspec.DecodeError, RecursionError) as error:
            raise MalformedMessage(f"a control message that the protocol does not have: {error}") from error
