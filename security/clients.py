"""A client: a program that may get tokens. What may be in its definition, and how its secret is made and checked.

A secret is 256 random bits, shown once. What is stored is HMAC-SHA256 under a key that lies in a file beside the registry: a
copy of the registry alone confirms no guess, and with that much entropy a slow hash would buy nothing but slow tokens.
"""

import hashlib
import hmac
import json
import re
import secrets
from typing import Literal, get_args
from urllib.parse import urlsplit

import msgspec
from cryptography import x509

from security.errors import ClientRejected
from security.scopes import GRANTABLE, GRANTED_SCOPES, Role, Scope

AuthMethod = Literal["client_secret", "private_key_jwt", "tls_client_auth", "self_signed_tls_client_auth", "none"]
"""How a client says who it is (RFC 6749 section 2.3, RFC 7523, RFC 8705); `client_secret` is basic and post, `none` is a
public client.
"""
ClientKind = Literal["service", "application"]
"""A service acts for itself, or for a user whose token it exchanges; an application only ever for the person who signs in."""
AUTH_METHODS: tuple[AuthMethod, ...] = get_args(AuthMethod)
CLIENT_KINDS: tuple[ClientKind, ...] = get_args(ClientKind)

SECRET_PREFIX = "cms-"  # noqa: S105 - a prefix by which scanners recognize a leaked secret, not one itself
MAX_SECRET_CHARS = 128
MAX_MODELS = 256
MAX_REDIRECT_URIS = 16
ALTERNATIVE_NAMES = ("dns", "uri", "ip", "email")
"""Kinds that a registered name may have in front: those of RFC 8705 section 2.1.2."""
_MORE_ATTRIBUTES = {
    "emailAddress": x509.NameOID.EMAIL_ADDRESS,
    "serialNumber": x509.NameOID.SERIAL_NUMBER,
}
"""Names that OpenSSL writes beside those of RFC 4514."""
MAX_TLS_SUBJECT_CHARS = 512

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,62}[A-Za-z0-9])?")
_TENANT = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,255}")
_REDIRECT_URI = re.compile(
    r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?"
    r"(?:\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?"
)
"""RFC 3986. Scheme, host and port go into a page's policy, where a semicolon would begin another rule."""
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
    kind: ClientKind = "service"
    auth_method: AuthMethod = "client_secret"
    jwks: str | None = None
    """The client's public keys or, for self-signed TLS, its certificates in `x5c`: a JWK Set."""
    tls_subject: str | None = None
    """For `tls_client_auth`: the subject's distinguished name (RFC 4514), or a name in it as `dns:…`, `uri:…`, `ip:…` or
    `email:…`.
    """
    redirect_uris: tuple[str, ...] = ()
    """Of an application that signs people in by its browser; compared as strings (RFC 9700 section 2.1)."""

    def verify(self) -> None:
        """Check the definition alone.

        Raises: ClientRejected, naming the field.
        """
        verify_name(self.name)
        verify_tenant(self.tenant)
        self._verify_authentication()
        if self.kind == "application" and self.role is not Role.USER:
            raise ClientRejected("role: an application has none of its own; the people who sign in have")
        if self.redirect_uris and self.kind != "application":
            raise ClientRejected("redirect_uris: only an application has them")
        if len(self.redirect_uris) > MAX_REDIRECT_URIS:
            raise ClientRejected(f"redirect_uris: at most {MAX_REDIRECT_URIS}")
        for uri in self.redirect_uris:
            verify_redirect_uri(uri)
        if self.scopes is not None:
            self._verify_scopes(self.scopes)
        if self.models is not None:
            verify_models(self.models)

    def _verify_authentication(self) -> None:
        needs_keys = self.auth_method in ("private_key_jwt", "self_signed_tls_client_auth")
        if needs_keys != (self.jwks is not None):
            raise ClientRejected(f"jwks: {'missing for' if needs_keys else 'not used by'} {self.auth_method}")
        if (self.auth_method == "tls_client_auth") != (self.tls_subject is not None):
            raise ClientRejected("tls_subject: goes with tls_client_auth, and only with it")
        if self.tls_subject is not None and not 0 < len(self.tls_subject) <= MAX_TLS_SUBJECT_CHARS:
            raise ClientRejected(f"tls_subject: expected 1 to {MAX_TLS_SUBJECT_CHARS} characters")
        if self.tls_subject is not None and not _names_something(self.tls_subject):
            raise ClientRejected(
                "tls_subject: expected a subject as RFC 4514 writes it, such as CN=billing,O=Acme, or something behind dns:, uri:, "
                "ip: or email:"
            )
        if self.auth_method == "none" and self.kind == "service":
            raise ClientRejected("auth_method: a service cannot be a public client")

    def _verify_scopes(self, scopes: frozenset[Scope]) -> None:
        if not scopes:
            raise ClientRejected("scopes: a client without any could do nothing")
        if self.kind == "application":
            return  # Bounded by the role of each person who signs in.
        if excess := scopes - GRANTABLE[self.role]:
            allowed = ", ".join(scope for scope in GRANTED_SCOPES if scope in GRANTABLE[self.role])
            raise ClientRejected(
                f"role {self.role} may not have scope {', '.join(sorted(excess))}; it may have {allowed}"
            )


def _names_something(subject: str) -> bool:
    """An empty name would be that of a certificate with an empty name."""
    kind, colon, value = subject.partition(":")
    if colon and kind in ALTERNATIVE_NAMES:
        return bool(value) and value.isprintable()
    return subject.isprintable() and bool(parse_subject(subject))


def parse_subject(text: str) -> x509.Name | None:
    """The subject of a certificate as RFC 4514 writes it, as `openssl x509 -nameopt RFC2253` does; None for what is none."""
    try:
        return x509.Name.from_rfc4514_string(text, _MORE_ATTRIBUTES)
    except ValueError:
        return None


def verify_name(name: str) -> None:
    """Raises: ClientRejected."""
    if not _NAME.fullmatch(name):
        raise ClientRejected(f"name {name[:80]!r}: expected 1 to 64 letters, digits, spaces or ._-")


def verify_tenant(tenant: str) -> None:
    """Raises: ClientRejected."""
    if not _TENANT.fullmatch(tenant):
        raise ClientRejected(f"tenant {tenant[:80]!r}: expected 1 to 64 of a-z, 0-9 and ._-")


def verify_models(models: tuple[str, ...]) -> None:
    """Raises: ClientRejected."""
    if len(models) > MAX_MODELS:
        raise ClientRejected(f"models: {len(models)} names, at most {MAX_MODELS} are allowed")
    for model in models:
        if not _MODEL.fullmatch(model):
            raise ClientRejected(f"model {model[:80]!r} is not a model's name")


def verify_redirect_uri(uri: str) -> None:
    """An https address, or http on this machine's loopback (RFC 8252 section 7.3); without a fragment (RFC 6749 section 3.1.2).

    Raises: ClientRejected.
    """
    try:
        parts = urlsplit(uri)
        host = parts.hostname
    except ValueError:
        parts, host = urlsplit(""), None
    is_local = parts.scheme == "http" and host in ("127.0.0.1", "::1")
    if not (parts.scheme == "https" or is_local) or len(uri) > 512 or not _REDIRECT_URI.fullmatch(uri):
        raise ClientRejected(
            f"redirect URI {uri[:80]!r}: expected https://…, or http:// on 127.0.0.1, of a host and port, without a fragment"
        )


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
    kind: ClientKind = "service"
    auth_method: AuthMethod = "client_secret"
    jwks: str | None = None
    tls_subject: str | None = None
    redirect_uris: tuple[str, ...] = ()
    granted_by: str = ""
    approved_by: str | None = None
    pending_role: Role | None = None
    pending_by: str | None = None
    secret_hash: bytes | None = None
    needs_approval: bool = False
    """Its role is privileged, and a second person has not agreed to it yet."""

    @property
    def is_disabled(self) -> bool:
        """A disabled client, or one whose role waits for a second person, gets no token, and its tokens start no request."""
        return self.disabled_at is not None or self.needs_approval

    def __repr__(self) -> str:
        return f"Client(client_id={self.client_id!r}, role={self.role!r}, tenant={self.tenant!r})"

    def may_use(self, model: str) -> bool:
        """True if the client's list allows the model."""
        return self.models is None or model in self.models


class IssuedSecret(msgspec.Struct, frozen=True, kw_only=True):
    """A client with the secret that is shown once and stored nowhere."""

    client: Client
    secret: str | None
    """None for a client that authenticates by a key or certificate of its own."""

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
