"""Gateway ↔ auditor about sealed bodies, and about what auditor and administrator decide together.

The auditor holds the second shares and the rules; the gateway has checked who asks.
"""

from typing import Annotated, Literal

import msgspec

from appliance.messages.reading import ReadBy

MAX_ESCROW_BYTES = 16 << 10

Correlation = Annotated[int, msgspec.Meta(ge=0)]
Text = Annotated[str, msgspec.Meta(max_length=256)]
Day = Annotated[str, msgspec.Meta(max_length=10)]


class KeepBodyKey(msgspec.Struct, frozen=True, array_like=True, tag="keep_body_key"):
    """A new key for a tenant's bodies: here is the escrow of its first share. Answered by `BodyKeyKept`, once it is durable."""

    correlation: Correlation
    tenant: Text
    day: Day
    key_id: Annotated[str, msgspec.Meta(max_length=32)]
    escrow: Annotated[bytes, msgspec.Meta(max_length=MAX_ESCROW_BYTES)]


class KeepHashRoot(msgspec.Struct, frozen=True, array_like=True, tag="keep_hash_root"):
    """A root for the keyed hashes of a tenant and day, if there is none yet. Answered by `HashRootKept`: the one that counts."""

    correlation: Correlation
    tenant: Text
    day: Day
    root: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    escrow: Annotated[bytes, msgspec.Meta(max_length=MAX_ESCROW_BYTES)]

    def __repr__(self) -> str:
        return f"KeepHashRoot({self.day}, <hidden>)"


class OpenBody(msgspec.Struct, frozen=True, array_like=True, tag="open_body"):
    """An auditor wants to read the body of a record. Answered by `BodyShare`, once that is recorded durably."""

    correlation: Correlation
    by: ReadBy
    index: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]


class ProposeChange(msgspec.Struct, frozen=True, array_like=True, tag="propose_change"):
    """A person proposes. Answered by `RulesNow`."""

    correlation: Correlation
    by: ReadBy
    role: Literal["auditor", "admin"]
    kind: Literal["retention", "hold", "lift", "rotation", "time"]
    reason: Text
    retention_days: int | None
    tenant: Text
    from_day: Day
    to_day: Day
    hold_id: Text


class DecideChange(msgspec.Struct, frozen=True, array_like=True, tag="decide_change"):
    """Another person confirms, or somebody refuses. Answered by `RulesNow`."""

    correlation: Correlation
    by: ReadBy
    role: Literal["auditor", "admin"]
    proposal_id: Text
    confirms: bool


class FetchRules(msgspec.Struct, frozen=True, array_like=True, tag="fetch_rules"):
    """Answered by `RulesNow`."""

    correlation: Correlation


class BodyKeyKept(msgspec.Struct, frozen=True, array_like=True, tag="body_key_kept"):
    """Answer to `KeepBodyKey`: the escrow is durable, and here is the second share."""

    correlation: int
    share: bytes

    def __repr__(self) -> str:
        return "BodyKeyKept(<hidden>)"


class HashRootKept(msgspec.Struct, frozen=True, array_like=True, tag="hash_root_kept"):
    """Answer to `KeepHashRoot`: the root of this tenant and day, which an earlier message may have set."""

    correlation: int
    root: bytes

    def __repr__(self) -> str:
        return "HashRootKept(<hidden>)"


class BodyShare(msgspec.Struct, frozen=True, array_like=True, tag="body_share"):
    """All that an auditor needs but their own private key and the ciphertext."""

    correlation: int
    record: bytes
    purpose: str
    tenant: str
    share: bytes
    escrow: bytes

    def __repr__(self) -> str:
        return "BodyShare(<hidden>)"


class RulesNow(msgspec.Struct, frozen=True, array_like=True, tag="rules_now"):
    """Answer to `ProposeChange`, `DecideChange` and `FetchRules`."""

    correlation: int
    rules: bytes
    """`audit.governance.Rules` as JSON."""
    changed_id: str = ""
    """The proposal that was made or decided."""


class BodiesDestroyed(msgspec.Struct, frozen=True, array_like=True, tag="bodies_destroyed"):
    """To gateways: these keys are gone, so what they sealed can be removed."""

    day: str
    key_ids: list[str]


ToAuditor = KeepBodyKey | KeepHashRoot | OpenBody | ProposeChange | DecideChange | FetchRules
FromAuditor = BodyKeyKept | HashRootKept | BodyShare | RulesNow | BodiesDestroyed
