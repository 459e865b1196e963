"""Whether a request may start: first what the client may do at all, then what it may do now."""

from collections.abc import Hashable
from typing import Literal, Protocol

import msgspec

from security.clients import Client
from security.policy.quotas import QuotaBook, QuotaDenial, QuotaGrant

RefusalCode = Literal["client_disabled", "model_not_allowed"]


class Refusal(msgspec.Struct, frozen=True):
    """The client may not do this, now or later."""

    code: RefusalCode
    message: str


class RequestFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway says of a request: from a validated token, and counted by itself."""

    client_id: str
    tenant: str
    role: str
    model: str
    prompt_tokens: int
    max_output_tokens: int


class Definitions(Protocol):
    """Who knows the clients."""

    def find(self, client_id: str) -> Client | None:
        """The client of this id."""


class PolicyDecider:
    """Definitions and quotas together."""

    def __init__(self, definitions: Definitions, quotas: QuotaBook) -> None:
        self._definitions = definitions
        self.quotas = quotas

    def decide(self, request: RequestFacts, owner: Hashable) -> QuotaGrant | QuotaDenial | Refusal:
        """Let a request start, or not.

        Raises: SecurityUnavailable when the definitions cannot be read.
        """
        refusal = self._find_refusal(request)
        if refusal is not None:
            return refusal
        return self.quotas.reserve(
            request.client_id, owner, prompt_tokens=request.prompt_tokens, max_output_tokens=request.max_output_tokens
        )

    def _find_refusal(self, request: RequestFacts) -> Refusal | None:
        client = self._definitions.find(request.client_id)
        if client is None or client.is_disabled:
            return Refusal("client_disabled", "the client is disabled or does not exist any more")
        if (client.role, client.tenant) != (request.role, request.tenant):
            return Refusal("client_disabled", "the client's role or tenant has changed since the token was issued")
        if not client.may_use(request.model):
            return Refusal("model_not_allowed", f"the client may not use model {request.model[:256]!r}")
        return None
