"""From rows to values, and to what a record may say of them: everything but hashes and secrets.

A row that this program would not have written is an error, never guessed at.
"""

import hashlib
import json
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Row

from security.clients import Client
from security.errors import MalformedDocument, RegistryUnusable
from security.scopes import PRIVILEGED_ROLES, Role, format_scopes, parse_role, parse_scopes
from security.static_keys import StaticKey
from security.users import Passkey, User

_T = TypeVar("_T", Client, User)
_HIDDEN = frozenset(
    {"secret_hash", "password_hash", "old_password_hashes", "totp_secret", "key_hash", "jwks", "needs_approval"}
)


def parse_client(row: Row[Any], *, two_person: bool) -> Client:
    """One client. Raises: RegistryUnusable."""
    fields = dict(row._mapping)
    try:
        fields["scopes"] = parse_scopes(fields["scopes"])
        fields["redirect_uris"] = tuple(json.loads(fields["redirect_uris"]))
    except (MalformedDocument, ValueError) as error:
        raise RegistryUnusable(f"the definitions hold a client that makes no sense: {error}") from error
    return _build(Client, fields, two_person)


def parse_user(row: Row[Any], *, two_person: bool) -> User:
    """One person. Raises: RegistryUnusable."""
    fields = dict(row._mapping)
    fields["must_change_password"] = bool(fields["must_change_password"])
    fields["old_password_hashes"] = tuple(json.loads(fields["old_password_hashes"]))
    try:
        fields["passkeys"] = msgspec.json.decode(fields["passkeys"], type=tuple[Passkey, ...])
    except msgspec.MsgspecError as error:
        raise RegistryUnusable(f"the definitions hold a passkey that makes no sense: {error}") from error
    return _build(User, fields, two_person)


def parse_static_key(row: Row[Any]) -> StaticKey:
    """One key. Raises: RegistryUnusable."""
    fields = dict(row._mapping)
    try:
        fields["networks"] = tuple(json.loads(fields["networks"]))
        return StaticKey(**fields)
    except (ValueError, TypeError) as error:
        raise RegistryUnusable(f"the definitions hold a key that makes no sense: {error}") from error


def _build(kind: type[_T], fields: dict[str, Any], two_person: bool) -> _T:
    try:
        fields["role"] = parse_role(fields["role"])
        fields["pending_role"] = None if fields["pending_role"] is None else parse_role(fields["pending_role"])
        fields["models"] = None if fields["models"] is None else tuple(json.loads(fields["models"]))
        fields["needs_approval"] = needs_approval(fields["role"], fields["approved_by"], two_person)
        return kind(**fields)
    except (MalformedDocument, ValueError, TypeError) as error:
        raise RegistryUnusable(f"the definitions hold a row that makes no sense: {error}") from error


def needs_approval(role: Role, approved_by: str | None, two_person: bool) -> bool:
    """A privileged role that nobody has agreed to beside who granted it."""
    return two_person and role in PRIVILEGED_ROLES and approved_by is None


def encode_models(models: tuple[str, ...] | None) -> str | None:
    """As the column has it."""
    return None if models is None else json.dumps(list(models))


def describe(value: Client | User | StaticKey) -> dict[str, Any]:
    """What a record or an administrator may see of it."""
    described: dict[str, Any] = msgspec.to_builtins(value)
    if isinstance(value, Client):
        described["scopes"] = format_scopes(value.scopes)
        described["jwks_sha256"] = None if value.jwks is None else hashlib.sha256(value.jwks.encode()).hexdigest()
    if isinstance(value, User):
        described["passkeys"] = [passkey.name for passkey in value.passkeys]
    if not isinstance(value, StaticKey):
        described["is_pending"] = value.needs_approval or value.pending_role is not None
    return {name: field for name, field in described.items() if name not in _HIDDEN}
