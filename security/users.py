"""A person who may sign in. What may be in the definition, and what the authority needs in order to check a sign-in.

One account has one role: who is administrator and also asks models has two accounts, so that what is done as the one cannot be
done as the other by accident.
"""

import re
import secrets

import msgspec

from security.clients import verify_models, verify_tenant
from security.errors import ClientRejected
from security.scopes import Role

MAX_NAME_CHARS = 64
_LOGIN = re.compile(r"[a-z0-9](?:[a-z0-9._@-]{0,62}[a-z0-9])?")


class UserDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """What an administrator decides about a person."""

    login: str
    name: str
    role: Role = Role.USER
    tenant: str = "default"
    models: tuple[str, ...] | None = None

    def verify(self) -> None:
        """Check the definition alone.

        Raises: ClientRejected, naming the field.
        """
        if not _LOGIN.fullmatch(self.login):
            raise ClientRejected(f"login {self.login[:80]!r}: expected 1 to 64 of a-z, 0-9 and ._@-")
        if not 0 < len(self.name) <= MAX_NAME_CHARS or not self.name.isprintable() or self.name != self.name.strip():
            raise ClientRejected(f"name {self.name[:80]!r}: expected 1 to {MAX_NAME_CHARS} printable characters")
        verify_tenant(self.tenant)
        if self.models is not None:
            verify_models(self.models)


class Passkey(msgspec.Struct, frozen=True, kw_only=True):
    """A security key, or whatever else speaks WebAuthn, that a person has registered."""

    credential: bytes
    """Attested credential data (WebAuthn section 6.5.2): its id and public key, as `security.passkeys` reads them."""
    name: str
    created_at: int


class User(msgspec.Struct, frozen=True, kw_only=True):
    """A registered person, with what only hashes and keys of ours make anything of."""

    user_id: str
    """The `sub` of tokens: never given to anybody else, also not after the login was."""
    login: str
    name: str
    role: Role
    tenant: str
    models: tuple[str, ...] | None
    password_hash: str
    password_set_at: int
    """UTC, seconds since the epoch, as are the others."""
    must_change_password: bool
    old_password_hashes: tuple[str, ...]
    totp_secret: bytes | None
    """Sealed under the credentials' key; None: no second factor."""
    created_at: int
    unlocked_at: int
    """Failures and idle days before this do not count any more."""
    disabled_at: int | None
    granted_by: str
    approved_by: str | None
    pending_role: Role | None = None
    pending_by: str | None = None
    needs_approval: bool = False
    passkeys: tuple[Passkey, ...] = ()

    @property
    def has_second_factor(self) -> bool:
        """Something beside the password is asked for at the sign-in."""
        return self.totp_secret is not None or bool(self.passkeys)

    @property
    def is_disabled(self) -> bool:
        """A disabled person, or one whose role waits for a second person, cannot sign in; what they were given ends."""
        return self.disabled_at is not None or self.needs_approval

    def may_use(self, model: str) -> bool:
        """True if the person's list allows the model."""
        return self.models is None or model in self.models

    def __repr__(self) -> str:
        return f"User(user_id={self.user_id!r}, login={self.login!r}, role={self.role!r}, tenant={self.tenant!r})"


class NewUser(msgspec.Struct, frozen=True, kw_only=True):
    """A person with what is shown once: a password to begin with, and the address that sets up an authenticator."""

    user: User
    password: str
    totp_uri: str | None

    def __repr__(self) -> str:
        return f"NewUser(user_id={self.user.user_id!r}, password=<hidden>)"


def make_user_id() -> str:
    """An identifier that says nothing of the person."""
    return f"user-{secrets.token_hex(8)}"
