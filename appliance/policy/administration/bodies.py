"""Bodies that the admin API takes: closed structures; an unknown member is an error."""

from typing import TypeVar

import msgspec

from appliance.gateway.errors import BadRequest
from security.clients import AuthMethod, ClientDefinition, ClientKind
from security.errors import ClientRejected, MalformedDocument
from security.oauth.client_keys import find_certificates, parse_client_keys
from security.policy.limits import LimitRule, Limits, LimitSubject
from security.registry.static_keys import KeySelection
from security.scopes import Role, parse_scopes
from security.users import UserDefinition

_T = TypeVar("_T")


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all have in common."""


class NewClient(Body, frozen=True, kw_only=True):
    """A client to be registered."""

    name: str
    role: Role = Role.USER
    tenant: str = "default"
    scope: str | None = None
    models: tuple[str, ...] | None = None
    kind: ClientKind = "service"
    auth_method: AuthMethod = "client_secret"
    jwks: str | None = None
    tls_subject: str | None = None
    redirect_uris: tuple[str, ...] = ()

    def definition(self) -> ClientDefinition:
        """Raises: ClientRejected."""
        try:
            scopes = None if self.scope is None else parse_scopes(self.scope)
            if self.jwks is not None:
                find_certificates(parse_client_keys(self.jwks))
        except MalformedDocument as error:
            raise ClientRejected(str(error)) from None
        fields = {name: getattr(self, name) for name in self.__struct_fields__ if name != "scope"}
        return ClientDefinition(**fields, scopes=scopes)


class NewUser(Body, frozen=True, kw_only=True):
    """A person to be registered."""

    login: str
    name: str
    role: Role = Role.USER
    tenant: str = "default"
    models: tuple[str, ...] | None = None

    def definition(self) -> UserDefinition:
        """What the registry takes."""
        return UserDefinition(**{name: getattr(self, name) for name in self.__struct_fields__})


class RoleBody(Body, frozen=True, kw_only=True):
    """A role to be granted."""

    role: Role


class LimitBody(Body, frozen=True, kw_only=True):
    """Limits to be set, whatever they were before; without `limits` they are removed."""

    subject: LimitSubject
    name: str
    limits: Limits | None = None

    def rule(self) -> LimitRule:
        """What the registry takes."""
        return LimitRule(self.subject, self.name, self.limits or Limits())


class NewKey(Body, frozen=True, kw_only=True):
    """A static key to be made."""

    client_id: str
    name: str = "key"
    networks: tuple[str, ...]
    days: int = 90


class KeyRevocation(Body, frozen=True, kw_only=True):
    """Keys to be ended: by id, or all that fit everything that is said."""

    key_ids: tuple[str, ...] | None = None
    selection: KeySelection | None = None
    dry_run: bool = False


def parse_body(data: bytes, kind: type[_T]) -> _T:
    """Raises: BadRequest."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest("invalid_json", f"the body cannot be taken: {error}") from None
