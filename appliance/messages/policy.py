"""Gateway ↔ policy: the one owner of quotas. Tokens are reserved in blocks before they are computed, and settled after."""

from typing import Annotated, Literal

import msgspec

Correlation = Annotated[int, msgspec.Meta(ge=0)]
Name = Annotated[str, msgspec.Meta(max_length=256)]
Tokens = Annotated[int, msgspec.Meta(ge=0, le=1 << 32)]
"""Bounded, so that no sum of them is more than a message can carry back."""


class Reserve(msgspec.Struct, frozen=True, array_like=True, tag="reserve"):
    """May this request start? Reserves prompt and the first block of output."""

    correlation: Correlation
    client_id: Name
    subject: Name
    tenant: Name
    role: Name
    model: Name
    prompt_tokens: Tokens
    max_output_tokens: Tokens
    """Over all choices."""


class Extend(msgspec.Struct, frozen=True, array_like=True, tag="extend", gc=False):
    """Ask for the next block of output tokens of a running request."""

    correlation: Correlation
    reservation: int


class Settle(msgspec.Struct, frozen=True, array_like=True, tag="settle", gc=False):
    """The request ended: give back what was reserved and not used. Unanswered."""

    reservation: int
    prompt_tokens: Tokens
    output_tokens: Tokens


class Granted(msgspec.Struct, frozen=True, array_like=True, tag="granted", gc=False):
    correlation: int
    reservation: int
    output_tokens: int
    """Output tokens covered so far, over all choices."""


DenialCode = Literal["model_not_allowed", "client_disabled", "rate_limit", "quota_exhausted", "too_many_requests"]
"""The first two are about what the client may do at all, the others about now; `retry_after_s` 0 says waiting is no help."""


class Denied(msgspec.Struct, frozen=True, array_like=True, tag="denied"):
    correlation: int
    code: DenialCode
    message: str
    retry_after_s: int


class PolicyStatus(msgspec.Struct, frozen=True, array_like=True, tag="policy_status", gc=False):
    """Sent to every gateway at least once a second."""

    num_reservations: int
    tokens_reserved: int


GatewayToPolicy = Reserve | Extend | Settle
PolicyToGateway = Granted | Denied | PolicyStatus
