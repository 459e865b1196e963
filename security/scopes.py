"""What a token may be good for, and who may have it: closed sets.

A scope names a kind of access; every route of the gateway names exactly one. A role is what a client or a person is; each
scope lists its roles, so that roles stay separate product accounts: an operator cannot infer or read receipts, an auditor
cannot change or infer, an administrator cannot touch the log. What both decide is decided by both.

`public` is a scope too, so that the route table has no second notion of an open route; it is never granted in a token.
"""

from enum import StrEnum
from types import MappingProxyType

from security.errors import MalformedDocument


class Scope(StrEnum):
    """Every scope of the product. A string that is not here is not a scope."""

    PUBLIC = "public"
    INFERENCE = "inference"
    MODELS_READ = "models.read"
    AUDIT_READ = "audit.read"
    AUDIT_LOG = "audit.log"
    AUDIT_OPEN = "audit.open"
    AUDIT_GOVERN = "audit.govern"
    METRICS_READ = "metrics.read"
    ENGINE_CONTROL = "engine.control"
    TOKENS_INTROSPECT = "tokens.introspect"
    IDENTITY_READ = "identity.read"
    IDENTITY_MANAGE = "identity.manage"


class Role(StrEnum):
    """Every role of the product."""

    USER = "user"
    OPERATOR = "operator"
    STEWARD = "steward"
    AUDITOR = "auditor"
    ADMIN = "admin"


SCOPE_DESCRIPTIONS = MappingProxyType(
    {
        Scope.PUBLIC: "needs no token",
        Scope.INFERENCE: "ask the models",
        Scope.MODELS_READ: "list the served models",
        Scope.AUDIT_READ: "read the audit records of one's own requests",
        Scope.AUDIT_LOG: "search and read the records of everybody in one's tenant, in the overseeing tenant of all",
        Scope.AUDIT_OPEN: "be given the second share of sealed prompts and answers",
        Scope.AUDIT_GOVERN: "propose and confirm retention, holds and rotation of the log, each with the other role",
        Scope.METRICS_READ: "read the metrics",
        Scope.ENGINE_CONTROL: "make engines forget cached prefixes",
        Scope.TOKENS_INTROSPECT: "ask the authority about tokens of others",
        Scope.IDENTITY_READ: "see clients, people, keys, limits and who granted what",
        Scope.IDENTITY_MANAGE: "change clients, people, keys and limits",
    }
)

GRANTABLE = MappingProxyType(
    {
        Role.USER: frozenset({Scope.INFERENCE, Scope.MODELS_READ, Scope.AUDIT_READ}),
        Role.OPERATOR: frozenset(
            {Scope.METRICS_READ, Scope.ENGINE_CONTROL, Scope.MODELS_READ, Scope.TOKENS_INTROSPECT}
        ),
        Role.STEWARD: frozenset({Scope.MODELS_READ}),
        Role.AUDITOR: frozenset(
            {Scope.AUDIT_READ, Scope.AUDIT_LOG, Scope.AUDIT_OPEN, Scope.AUDIT_GOVERN, Scope.IDENTITY_READ}
        ),
        Role.ADMIN: frozenset({Scope.MODELS_READ, Scope.IDENTITY_READ, Scope.IDENTITY_MANAGE, Scope.AUDIT_GOVERN}),
    }
)
"""The scopes that each role may be granted. The smallest set that does the role's work."""

PRIVILEGED_ROLES = frozenset(role for role in Role if role is not Role.USER)
"""Roles that two people must agree to, and that in production need a sender-constrained token."""

GRANTED_SCOPES: tuple[Scope, ...] = tuple(scope for scope in Scope if scope is not Scope.PUBLIC)
"""What a token can hold, in the order of definition."""


def format_scopes(scopes: frozenset[Scope]) -> str:
    """The `scope` parameter for a set, in the order of definition, so that equal sets give equal strings."""
    return " ".join(scope for scope in GRANTED_SCOPES if scope in scopes)


def parse_scopes(text: str) -> frozenset[Scope]:
    """Parse a `scope` parameter or claim (RFC 6749 section 3.3): scope tokens with one space between them.

    Strict: an empty string, a double space, an unknown scope and `public` are refused.

    Raises: MalformedDocument.
    """
    scopes: set[Scope] = set()
    for token in text.split(" "):
        try:
            scope = Scope(token)
        except ValueError:
            raise MalformedDocument(f"scope {token[:64]!r} does not exist") from None
        if scope is Scope.PUBLIC:
            raise MalformedDocument("scope 'public' is never granted")
        scopes.add(scope)
    return frozenset(scopes)


def parse_role(text: str) -> Role:
    """The role of this name.

    Raises: MalformedDocument.
    """
    try:
        return Role(text)
    except ValueError:
        raise MalformedDocument(f"role {text[:64]!r} does not exist; there are {', '.join(Role)}") from None
