"""A client: a program that may get tokens. What may be in its definition, and how its secret is made and checked.

A secret is 256 random bits, shown once. What is stored is HMAC-SHA256 under a key that lies in a file beside the registry: a
copy of the registry alone confirms no guess, and with that much entropy a slow hash would buy nothing but slow tokens.
"""

import hashlib
import hmac
import json
import re
import secrets

import msgspec

from security.errors import ClientRejected
from security.scopes import GRANTABLE, GRANTED_SCOPES, Role, Scope

SECRET_PREFIX = "cms-"  # noqa: S105 - a prefix by which scanners recognize a leaked secret, not one itself
MAX_SECRET_CHARS = 128
MAX_MODELS = 256

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,62}[A-Za-z0-9])?")
_TENANT = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,255}")
_HASH_CONTEXT = b"casemate/client-secret/v1"


class ClientDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """What an administrator decides about a client."""

    name: str
    role: Role = Role.USER
    tenant: str = "default"
    scopes: frozenset[Scope] | None = None
    """None: all that the role may be granted."""
    models: tuple[str, ...] | None = None
    """Names of the models that it may use; None: all."""

    def verify(self) -> None:
        """Check the definition alone.

        Raises: ClientRejected, naming the field.
        """
        if not _NAME.fullmatch(self.name):
            raise ClientRejected(f"name {self.name[:80]!r}: expected 1 to 64 letters, digits, spaces or ._-")
        if not _TENANT.fullmatch(self.tenant):
            raise ClientRejected(f"tenant {self.tenant[:80]!r}: expected 1 to 64 of a-z, 0-9 and ._-")
        if self.scopes is not None:
            self._verify_scopes(self.scopes)
        if self.models is not None:
            self._verify_models(self.models)

    def _verify_scopes(self, scopes: frozenset[Scope]) -> None:
        if not scopes:
            raise ClientRejected("scopes: a client without any could do nothing")
        if excess := scopes - GRANTABLE[self.role]:
            allowed = ", ".join(scope for scope in GRANTED_SCOPES if scope in GRANTABLE[self.role])
            raise ClientRejected(
                f"role {self.role} may not have scope {', '.join(sorted(excess))}; it may have {allowed}"
            )

    def _verify_models(self, models: tuple[str, ...]) -> None:
        if len(models) > MAX_MODELS:
            raise ClientRejected(f"models: {len(models)} names, at most {MAX_MODELS} are allowed")
        for model in models:
            if not _MODEL.fullmatch(model):
                raise ClientRejected(f"model {model[:80]!r} is not a model's name")


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """A registered client, without its secret."""

    client_id: str
    name: str
    role: Role
    tenant: str
    scopes: frozenset[Scope]
    models: tuple[str, ...] | None
    created_at: int
    """UTC, seconds since the epoch, as are the others."""
    secret_created_at: int
    disabled_at: int | None

    @property
    def is_disabled(self) -> bool:
        """A disabled client gets no token, and its tokens start no request."""
        return self.disabled_at is not None

    def may_use(self, model: str) -> bool:
        """True if the client's list allows the model."""
        return self.models is None or model in self.models


class IssuedSecret(msgspec.Struct, frozen=True, kw_only=True):
    """A client with the secret that is shown once and stored nowhere."""

    client: Client
    secret: str

    def __repr__(self) -> str:
        return f"IssuedSecret(client_id={self.client.client_id!r}, secret=<hidden>)"


def make_client_id(name: str) -> str:
    """An identifier that people recognize in logs, with 40 random bits so that names need not be unique."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "client"
    return f"{slug}-{secrets.token_hex(5)}"


def make_secret() -> str:
    """A new secret: the prefix, then 256 random bits in base64url."""
    return SECRET_PREFIX + secrets.token_urlsafe(32)


def hash_secret(key: bytes, client_id: str, secret: str) -> bytes:
    """What is stored of a secret. The id is part of it, so that a hash cannot be moved to another client."""
    message = json.dumps([client_id, secret]).encode()
    return hmac.new(key, _HASH_CONTEXT + b"\0" + message, hashlib.sha256).digest()


def is_secret_of(key: bytes, client_id: str, stored: bytes, presented: str) -> bool:
    """Compare in constant time."""
    if len(presented) > MAX_SECRET_CHARS:
        presented = ""
    return hmac.compare_digest(stored, hash_secret(key, client_id, presented))
