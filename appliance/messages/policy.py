"""Gateway ↔ policy and authority ↔ policy: the one owner of quotas, definitions, revocations and what may be used once.

Tokens are reserved in blocks before they are computed, and settled after. A gateway is told of every revocation at once,
and of all of them when its link begins, before anything else.
"""

from typing import Annotated, Literal

import msgspec

from security.oauth.revocations import Revocation

Correlation = Annotated[int, msgspec.Meta(ge=0)]
Name = Annotated[str, msgspec.Meta(max_length=256)]
Text = Annotated[str, msgspec.Meta(max_length=1024)]
Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Tokens = Annotated[int, msgspec.Meta(ge=0, le=1 << 32)]
"""Bounded, so that no sum of them is more than a message can carry back."""
Seconds = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]
Source = tuple[Annotated[str, msgspec.Meta(max_length=64)], Annotated[int, msgspec.Meta(ge=0, le=65_535)]]
"""Address and port from where somebody asked the authority for a change."""


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
    is_registered: bool = True
    """False if another issuer than our authority vouches for the client."""
    num_further: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Prompts of the same list that will be asked for next, each a request of its own."""
    is_further: bool = False
    """It is one of those: the list has started."""


class Resume(msgspec.Struct, frozen=True, array_like=True, tag="resume"):
    """A request that an earlier life of policy let start goes on. Answered by `Granted`."""

    reserve: Reserve
    output_tokens: Tokens
    """Covered so far."""
    reservation: Annotated[int, msgspec.Meta(ge=0)] = 0
    """What that life called it, and the log does."""


class Lookup(msgspec.Struct, frozen=True, array_like=True, tag="lookup"):
    """May this request ask for a model's tokenizer? Counts as one of its own kind. Answered by `LookupGranted` or `Denied`."""

    reserve: Reserve
    """Of no tokens."""


class FilterModels(msgspec.Struct, frozen=True, array_like=True, tag="filter_models"):
    """Which of these models may whoever asks use? Answered by `ModelsAllowed`."""

    reserve: Reserve
    """Of no tokens and no model."""
    models: Annotated[tuple[Name, ...], msgspec.Meta(max_length=1024)]


class Extend(msgspec.Struct, frozen=True, array_like=True, tag="extend", gc=False):
    """Ask for the next block of output tokens of a running request."""

    correlation: Correlation
    reservation: int


class Settle(msgspec.Struct, frozen=True, array_like=True, tag="settle", gc=False):
    """The request ended: give back what was reserved and not used. Unanswered."""

    reservation: int
    prompt_tokens: Tokens
    output_tokens: Tokens
    is_recorded: bool = True
    """False where the auditor was away, and has to close the request itself, at the engine's count; or where its intent may yet
    become durable, of which another of these tells."""
    is_begun: bool = True
    """False where no intent was sent: it does not count as a request."""


class CheckKey(msgspec.Struct, frozen=True, array_like=True, tag="check_key"):
    """Is this static key good, from this address? Answered by `KeyHolder` or `Denied`."""

    correlation: Correlation
    digest: Digest
    """SHA-256 of the key: the key itself is in no message."""
    address: Name


class UseOnce(msgspec.Struct, frozen=True, array_like=True, tag="use_once"):
    """Has this been used before? From now on it has. Answered by `UsedOnce`."""

    correlation: Correlation
    digest: Digest
    lifetime_s: Annotated[int, msgspec.Meta(ge=1, le=3600)]


class Left(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is left of the tightest limit of one kind."""

    limit: int
    remaining: int
    reset_ms: int


class Granted(msgspec.Struct, frozen=True, array_like=True, tag="granted"):
    """Answer to `Reserve`, `Resume` and `Extend`: go on, up to so many output tokens."""

    correlation: int
    reservation: int
    output_tokens: int
    """Output tokens covered so far, over all choices."""
    requests_left: Left | None = None
    tokens_left: Left | None = None
    day_tokens_left: Left | None = None


class LookupGranted(msgspec.Struct, frozen=True, array_like=True, tag="lookup_granted"):
    """Answer to `Lookup`: go on."""

    correlation: int
    lookups_left: Left | None = None


class ModelsAllowed(msgspec.Struct, frozen=True, array_like=True, tag="models_allowed"):
    """Answer to `FilterModels`, in the same order."""

    correlation: int
    models: tuple[str, ...]


DenialCode = Literal[
    "model_not_allowed", "client_disabled", "rate_limit", "quota_exhausted", "too_many_requests", "invalid_key"
]
"""The first two are about what the client may do at all, the others about now; `retry_after_s` 0 says waiting is no help."""


class Denied(msgspec.Struct, frozen=True, array_like=True, tag="denied"):
    """Answer to `Reserve`, `Resume`, `Lookup`, `Extend` and `CheckKey`: no, and what is left of the limits."""

    correlation: int
    code: DenialCode
    message: str
    retry_after_s: int
    requests_left: Left | None = None
    tokens_left: Left | None = None
    day_tokens_left: Left | None = None


class KeyHolder(msgspec.Struct, frozen=True, array_like=True, tag="key_holder"):
    """Whose a static key is."""

    correlation: int
    key_id: str
    client_id: str
    tenant: str
    role: str
    scope: str
    expires_at: int


class UsedOnce(msgspec.Struct, frozen=True, array_like=True, tag="used_once", gc=False):
    """Answer to `UseOnce`."""

    correlation: int
    is_first: bool


class PolicyStatus(msgspec.Struct, frozen=True, array_like=True, tag="policy_status", gc=False):
    """Sent to every gateway at least once a second."""

    num_reservations: int
    tokens_reserved: int


class Revocations(msgspec.Struct, frozen=True, array_like=True, tag="revocations"):
    """Every token that is void before it expires; what was told before is void."""

    entries: tuple[Revocation, ...]


class NonceKey(msgspec.Struct, frozen=True, array_like=True, tag="nonce_key"):
    """The key of DPoP nonces, which all gateways share as long as policy lives; at the beginning of a link."""

    key: Digest
    began_at: float
    """When policy did, UTC: what was used before it has forgotten."""

    def __repr__(self) -> str:
        return "NonceKey(<hidden>)"


GatewayToPolicy = Reserve | Resume | Lookup | FilterModels | Extend | Settle | CheckKey | UseOnce
PolicyToGateway = (
    Granted | LookupGranted | ModelsAllowed | Denied | KeyHolder | UsedOnce | PolicyStatus | Revocations | NonceKey
)


class FindPrincipal(msgspec.Struct, frozen=True, array_like=True, tag="find_principal"):
    """Who is this client, or this person by login or id? Answered by `Found`."""

    correlation: Correlation
    kind: Literal["client", "user"]
    name: Name


class RevokeToken(msgspec.Struct, frozen=True, array_like=True, tag="revoke_token"):
    """Void an access token, or all of a session. Answered by `Done` when it is durable and every gateway was told."""

    correlation: Correlation
    kind: Literal["token", "session"]
    value: Name
    expires_at: Seconds
    actor: Name
    source: Source = ("", 0)


class SetPassword(msgspec.Struct, frozen=True, array_like=True, tag="set_password"):
    """A person chose a new password, which the authority has checked. Answered by `Done`."""

    correlation: Correlation
    user_id: Name
    password_hash: Text
    source: Source = ("", 0)

    def __repr__(self) -> str:
        return f"SetPassword({self.user_id}, <hidden>)"


class AddPasskey(msgspec.Struct, frozen=True, array_like=True, tag="add_passkey"):
    """A person registered a passkey, which the authority has checked. Answered by `Done`."""

    correlation: Correlation
    user_id: Name
    credential: Annotated[bytes, msgspec.Meta(max_length=4096)]
    name: Name
    source: Source = ("", 0)


class PublishKeys(msgspec.Struct, frozen=True, array_like=True, tag="publish_keys"):
    """The key set by which policy's own listener checks tokens; at the beginning of a link and after a rotation. Unanswered."""

    key_set: Annotated[bytes, msgspec.Meta(max_length=64 << 10)]


class Found(msgspec.Struct, frozen=True, array_like=True, tag="found"):
    """The definition in msgpack, or nothing. A person's or a client's has hashes of secrets in it."""

    correlation: int
    definition: bytes | None

    def __repr__(self) -> str:
        return f"Found({self.correlation}, <hidden>)"


class Done(msgspec.Struct, frozen=True, array_like=True, tag="done"):
    """`fault` is empty, or says why it was not done."""

    correlation: int
    fault: str = ""


AuthorityToPolicy = FindPrincipal | RevokeToken | SetPassword | AddPasskey | PublishKeys
PolicyToAuthority = Found | Done | Revocations
