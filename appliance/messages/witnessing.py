"""Auditor ↔ courier: requests to witnesses, and whatever they answered. The courier understands neither."""

from typing import Annotated

import msgspec

MAX_REQUEST_BYTES = 1 << 17
MAX_ANSWER_BYTES = 1 << 20

Witness = Annotated[int, msgspec.Meta(ge=0, lt=16)]
"""Its place in `audit.witnesses`."""


class AskWitness(msgspec.Struct, frozen=True, array_like=True, tag="ask_witness"):
    """Carry an `add-checkpoint`. Answered by `WitnessAnswered`."""

    witness: Witness
    correlation: Annotated[int, msgspec.Meta(ge=0)]
    body: Annotated[bytes, msgspec.Meta(max_length=MAX_REQUEST_BYTES)]


class WitnessAnswered(msgspec.Struct, frozen=True, array_like=True, tag="witness_answered"):
    """What came back, believed by nobody yet."""

    witness: Witness
    correlation: Annotated[int, msgspec.Meta(ge=0)]
    status: Annotated[int, msgspec.Meta(ge=0, le=999)]
    """HTTP's; 0 where there was no answer."""
    body: Annotated[bytes, msgspec.Meta(max_length=MAX_ANSWER_BYTES)]
    """With status 0 the reason, in words."""


AuditorToCourier = AskWitness
CourierToAuditor = WitnessAnswered
