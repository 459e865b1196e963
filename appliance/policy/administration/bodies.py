"""Bodies that the admin API takes: closed structures; a member that is unknown, or given twice, is an error."""

from typing import TypeVar

import msgspec

from appliance.gateway.body import parse_object
from appliance.gateway.errors import BadRequest
from security.clients import AuthMethod, ClientDefinition, ClientKind, verify_models
from security.errors import ClientRejected, MalformedDocument
from security.oauth.client_keys import find_certificates, parse_client_keys
from security.policy.limits import LimitRule, Limits, LimitSubject
from security.registry.static_keys import KeySelection
from security.scopes import Role, parse_scopes
from security.users import UserDefinition

_T = TypeVar("_T")


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all have in common."""


class Nothing(Body, frozen=True, kw_only=True):
    """The whole change is in the address."""


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
        except MalformedDocument as error:
            raise ClientRejected(str(error)) from None
        if self.jwks is not None:
            _verify_keys(self.jwks)
        fields = {name: getattr(self, name) for name in self.__struct_fields__ if name != "scope"}
        return ClientDefinition(**fields, scopes=scopes)


class ClientKeys(Body, frozen=True, kw_only=True):
    """The public keys or certificates that a client authenticates by from now on."""

    jwks: str

    def verified(self) -> str:
        """Raises: ClientRejected."""
        _verify_keys(self.jwks)
        return self.jwks


class ModelsBody(Body, frozen=True, kw_only=True):
    """The models that may be used; null: every one."""

    models: tuple[str, ...] | None

    def verified(self) -> tuple[str, ...] | None:
        """Raises: ClientRejected."""
        if self.models is not None:
            verify_models(self.models)
        return self.models


class RoleModels(ModelsBody, frozen=True, kw_only=True):
    """The models that a role may use at all."""

    role: Role


class NewUser(Body, frozen=True, kw_only=True):
    """A person to be registered."""

    login: str
    name: str
    role: Role = Role.USER
    tenant: str = "default"
    models: tuple[str, ...] | None = None
    totp: bool = True
    """False: no one-time codes, for role user only."""

    def definition(self) -> UserDefinition:
        """What the registry takes. Raises: ClientRejected."""
        if not self.totp and self.role is not Role.USER:
            raise ClientRejected(f"role {self.role}: needs a second factor")
        return UserDefinition(**{name: getattr(self, name) for name in self.__struct_fields__ if name != "totp"})


class RoleBody(Body, frozen=True, kw_only=True):
    """A role to be granted."""

    role: Role


class ApprovalBody(Body, frozen=True, kw_only=True):
    """A role to be agreed to: as the second person saw it, or whichever waits."""

    role: Role | None = None


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


def _verify_keys(jwks: str) -> None:
    try:
        find_certificates(parse_client_keys(jwks))
    except MalformedDocument as error:
        raise ClientRejected(str(error)) from None


def parse_body(data: bytes, kind: type[_T]) -> _T:
    """Raises: BadRequest."""
    try:
        return msgspec.convert(parse_object(data), type=kind)
    except msgspec.MsgspecError as error:
        raise BadRequest("invalid_json", f"the body cannot be taken: {error}") from None
