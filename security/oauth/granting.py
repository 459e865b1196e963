"""What a grant comes to: for whom, with which scope. The rules that all grants share."""

import msgspec

from security.clients import Client
from security.errors import MalformedDocument
from security.oauth.errors import InvalidRequestError, InvalidScopeError
from security.oauth.minting import Binding, Holder
from security.scopes import GRANTABLE, Role, Scope, format_scopes, parse_scopes


class Granted(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be signed and given out."""

    holder: Holder
    scope: str
    refresh_token: str | None = None
    issued_token_type: str | None = None

    def __repr__(self) -> str:
        return f"Granted(holder={self.holder!r}, scope={self.scope!r})"


def verify_bound(role: str, binding: Binding | None, *, binds_privileged: bool) -> None:
    """In production every role but `user` gets only tokens that are bound. Raises: InvalidRequestError."""
    if binds_privileged and role != Role.USER.value and binding is None:
        raise InvalidRequestError("This role needs a token bound to a key (DPoP) or to a client certificate")


def narrow_scope(scope: str, client: Client, role: Role) -> str:
    """Of what was agreed to, what the application and the person's role may have now. Raises: InvalidScopeError if nothing
    is left.
    """
    left = parse_scopes(scope) & client.scopes & GRANTABLE[role]
    if not left:
        raise InvalidScopeError
    return format_scopes(left)


def choose_scope(requested: str | None, allowed: frozenset[Scope]) -> str:
    """RFC 6749 section 3.3: without `scope`, all that is allowed; one that is not is refused, never left out.

    Raises: InvalidScopeError.
    """
    if not allowed:
        raise InvalidScopeError
    if requested is None:
        return format_scopes(allowed)
    try:
        scopes = parse_scopes(requested)
    except MalformedDocument:
        raise InvalidScopeError from None
    if not scopes <= allowed:
        raise InvalidScopeError
    return format_scopes(scopes)
