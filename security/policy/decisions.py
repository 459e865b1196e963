"""Whether a request may start: first what who asks may do at all, then what it may do now.

A token names a program and whom it acts for. Both must exist, both must be allowed the model, and the role must allow it as
well; what they may take together is limited for each. Programs and people of a trusted issuer elsewhere are not in our
definitions: what their issuer says of them was checked with the token, and roles and limits are what binds them here.
"""

from collections.abc import Hashable
from typing import Literal

import msgspec

from security.policy.allowances import Allowance, Allowances
from security.policy.definitions import Definitions
from security.policy.denials import QuotaDenial
from security.policy.limits import Subject
from security.policy.quotas import QuotaBook, QuotaGrant
from security.scopes import Role

_ROLES = frozenset(role.value for role in Role)

RefusalCode = Literal["client_disabled", "model_not_allowed"]


class Refusal(msgspec.Struct, frozen=True):
    """Who asks may not do this, now or later."""

    code: RefusalCode
    message: str


class RequestFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway says of a request: from a validated token, and counted by itself."""

    client_id: str
    subject: str
    """The client itself, or the person it acts for."""
    tenant: str
    role: str
    model: str
    prompt_tokens: int
    max_output_tokens: int
    is_registered: bool = True
    """False for the token of an issuer elsewhere."""
    num_further: int = 0
    """Prompts of the same list that will be asked for next."""
    is_further: bool = False
    """It is one of those."""

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Whose limits it counts against."""
        client: Subject = ("client", self.client_id)
        user: tuple[Subject, ...] = () if self.subject == self.client_id else (("user", self.subject),)
        return (client, *user, ("tenant", self.tenant), ("model", self.model))


class PolicyDecider:
    """Definitions and quotas together."""

    def __init__(self, quotas: QuotaBook) -> None:
        self.quotas = quotas

    def decide(
        self, definitions: Definitions, request: RequestFacts, owner: Hashable
    ) -> QuotaGrant | QuotaDenial | Refusal:
        """Let a request start, or not."""
        refusal = find_refusal(definitions, request)
        if refusal is not None:
            return refusal
        return self.quotas.reserve(
            request.subjects,
            owner,
            prompt_tokens=request.prompt_tokens,
            max_output_tokens=request.max_output_tokens,
            num_further=request.num_further,
            is_further=request.is_further,
        )

    def decide_lookup(self, definitions: Definitions, request: RequestFacts) -> QuotaDenial | Refusal | None:
        """Let a request look something up with the model's tokenizer, which is None, or say why not."""
        return find_refusal(definitions, request) or self.quotas.look_up(request.subjects)

    def lookups_left(self, request: RequestFacts) -> Allowance | None:
        """How many lookups are left to who asks; None where nothing limits them."""
        return self.quotas.lookups_left(request.subjects)

    def allowances(self, request: RequestFacts) -> Allowances:
        """What is left to who asks."""
        return self.quotas.allowances(request.subjects)


def is_upstream(subject: str) -> bool:
    """True for a person of the provider by which people sign in: in no definition of ours. What binds them is their client, the
    models of their role, and limits under their name.
    """
    return ":" in subject


def find_refusal(definitions: Definitions, request: RequestFacts) -> Refusal | None:
    """Why a request may not be made at all; None if it may."""
    role_models = definitions.role_models.get(Role(request.role)) if request.role in _ROLES else ()
    if role_models is not None and request.model not in role_models:
        return Refusal("model_not_allowed", f"the role may not use model {request.model[:256]!r}")
    if not request.is_registered:
        return None
    client = definitions.clients.get(request.client_id)
    if client is None or client.is_disabled:
        return Refusal("client_disabled", "the client is disabled or does not exist any more")
    if is_upstream(request.subject):
        if not client.may_use(request.model):
            return Refusal("model_not_allowed", f"the client may not use model {request.model[:256]!r}")
        return None
    holder = client if request.subject == request.client_id else definitions.users.get(request.subject)
    if holder is None or holder.is_disabled:
        return Refusal("client_disabled", "the user is disabled or does not exist any more")
    if (holder.role, holder.tenant) != (request.role, request.tenant):
        return Refusal("client_disabled", "the role or tenant has changed since the token was issued")
    if not (client.may_use(request.model) and holder.may_use(request.model)):
        return Refusal("model_not_allowed", f"the client may not use model {request.model[:256]!r}")
    return None
