"""People sign in: password and one-time code or passkey, lockout, idle accounts, sessions of the authority's own pages.

What an assessor asks for by NIST SP 800-171: lockout (3.1.8), a notice before sign-in (3.1.9), sessions that end when idle
(3.1.10, 3.1.11), a second factor (3.5.3), idle accounts (3.5.6), password rules (3.5.7, 3.5.8). Whatever fails is answered
in the same words, and a name that does not exist costs the same work as one that does. Sessions are in memory: a restart
signs everybody out of these pages.
"""

import asyncio
import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

import msgspec

from appliance.authority.directory import Directory
from security.oauth.refresh_store import RefreshStore, SignIns
from security.passkeys import Ceremony, PasskeyRejected, PasskeyServer
from security.passwords import find_step, hash_password, is_password, unseal, verify_changed, verify_new_password
from security.settings import AuthoritySettings
from security.users import User

MAX_SESSIONS = 10_000
MAX_HASHING = 2
"""Passwords that are checked at a time: each takes 19 MiB and a tenth of a second."""
MAX_WAITING = 1_000
KEY_LIFETIME_S = 300
"""How long a passkey is waited for after the password."""
_DAY_S = 86_400

REFUSED = "Login, password or code is not right, or the account is locked."


class Session(msgspec.Struct):
    """Somebody who signed in at the authority's pages."""

    user_id: str
    login: str
    name: str
    auth_time: int
    form_token: str
    """In every form, so that no other site can send one."""
    last_seen: float
    must_change_password: bool
    registration: Ceremony | None = None
    """Of a passkey, while one is asked for."""


class KeyWanted(msgspec.Struct, frozen=True):
    """The password holds; a passkey is to say the rest."""

    ticket: str
    options: str


class _Waiting(msgspec.Struct, frozen=True):
    user: User
    ceremony: Ceremony
    expires_at: float


class SignInRefused(Exception):
    """`user_id` is empty if there is no such person; the reason is for the log, never for whoever tries."""

    def __init__(self, user_id: str, reason: str) -> None:
        super().__init__(reason)
        self.user_id = user_id


class TriedTooOften(Exception):
    """While they waited for their turn others from there failed too often: nothing was looked at."""


class SignInDesk:
    """Owner of the sessions."""

    def __init__(
        self,
        directory: Directory,
        store: RefreshStore,
        credentials_key: bytes,
        settings: AuthoritySettings,
        *,
        passkeys: PasskeyServer | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            passkeys: None where there can be none.
        """
        self._passkeys = passkeys
        self._waiting: OrderedDict[bytes, _Waiting] = OrderedDict()
        self._directory = directory
        self._store = store
        self._credentials_key = credentials_key
        self._settings = settings
        self._clock = clock
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        self._hashing = asyncio.Semaphore(MAX_HASHING)

    async def sign_in(
        self, login: str, password: str, code: str, *, may_try: Callable[[], bool]
    ) -> tuple[str, Session] | KeyWanted:
        """Check who somebody is. Returns: the cookie's value, and the session; or what a passkey is asked.

        Args:
            may_try: asked when it is their turn, before the slow part.
        Raises: SignInRefused, TriedTooOften, SecurityUnavailable.
        """
        user = await self._directory.find_user(login)
        if user is not None and user.login != login:
            user = None  # An id is not a login.
        async with self._hashing:
            if not may_try():
                raise TriedTooOften
            holds = await asyncio.to_thread(is_password, None if user is None else user.password_hash, password)
        # As they are now, whether there is somebody or not: what is decided from here on is decided without a wait.
        found = await self._directory.find_user(login)
        if user is None:
            self._note_nobody()
            raise SignInRefused("", "there is no such person")
        try:
            user = _verify_same(user, found)
            known = self._verify_account(user)
        except SignInRefused:
            self._note_nobody()
            raise
        if not holds:
            raise self._fail(user, known, "the password is wrong")
        if self._passkeys is not None and user.passkeys and (not code or user.totp_secret is None):
            return self._ask_for_key(self._passkeys, user)
        step = self._find_step(user, code, known)
        if step is None:
            raise self._fail(user, known, "the code is wrong or was used")
        return self._succeed(user, known, step)

    def find_login(self, ticket: str) -> str:
        """Whose sign-in waits for a passkey; empty if none does."""
        waiting = self._waiting.get(_hash(ticket))
        return "" if waiting is None else waiting.user.login

    async def sign_in_by_key(self, ticket: str, response: str) -> tuple[str, Session]:
        """The second step: good once, whatever comes of it. Returns: the cookie's value, and the session.

        Raises: SignInRefused, SecurityUnavailable.
        """
        waiting = self._waiting.pop(_hash(ticket), None)
        if waiting is None or waiting.expires_at <= self._clock() or self._passkeys is None:
            raise SignInRefused("", "no sign-in waits for this passkey")
        user = _verify_same(waiting.user, await self._directory.find_user(waiting.user.user_id))
        known = self._verify_account(user)
        try:
            credential_id, counter = self._passkeys.finish_sign_in(waiting.ceremony, user, response)
        except PasskeyRejected:
            raise self._fail(user, known, "the passkey's answer does not hold") from None
        if not self._store.advance_counter(credential_id, counter):
            raise self._fail(user, known, "the passkey's counter went back: there is a copy of it")
        return self._succeed(user, known, known.totp_step)

    def _ask_for_key(self, passkeys: PasskeyServer, user: User) -> KeyWanted:
        ticket, ceremony = secrets.token_urlsafe(32), passkeys.begin_sign_in(user)
        self._waiting[_hash(ticket)] = _Waiting(user, ceremony, self._clock() + KEY_LIFETIME_S)
        while len(self._waiting) > MAX_WAITING:
            self._waiting.popitem(last=False)
        return KeyWanted(ticket, ceremony.options)

    def note_counter(self, credential_id: bytes, counter: int) -> None:
        """A passkey was registered with this counter (WebAuthn section 7.1, step 23): its first sign-in must be above it."""
        self._store.advance_counter(credential_id, counter)

    def admit(self, user: User) -> tuple[str, Session]:
        """A session of somebody whom a provider vouches for. Returns: the cookie's value, and the session."""
        return self._begin(user)

    def find(self, cookie: str | None, *, max_age_s: int | None = None) -> Session | None:
        """The session of a cookie, if it is not over; it was used just now.

        Args:
            max_age_s: a sign-in longer ago than this does not count (RFC 9470 section 5), with 0 none does; they do elsewhere.
        """
        now, digest = self._clock(), _hash(cookie or "")
        session = self._sessions.get(digest)
        if session is None:
            return None
        if (
            now - session.last_seen > self._settings.page_idle_s
            or now - session.auth_time > self._settings.session_lifetime_s
            or self._directory.revocations.is_over("", session.user_id, session.auth_time)
        ):
            del self._sessions[digest]
            return None
        if max_age_s is not None and (not max_age_s or int(now) - session.auth_time > max_age_s):
            return None
        session.last_seen = now
        return session

    def end(self, cookie: str | None) -> None:
        """Sign out."""
        self._sessions.pop(_hash(cookie or ""), None)

    async def change_password(self, session: Session, current: str, password: str, source: tuple[str, int]) -> None:
        """Store a new password that keeps the rules, and end the person's other sessions. A wrong current one counts as a failed
        sign-in.

        Args:
            source: the address and port that ask for it.
        Raises: SignInRefused; ClientRejected in words for the person; SecurityUnavailable.
        """
        user = await self._directory.find_user(session.user_id)
        if user is None:
            raise SignInRefused(session.user_id, "the account is not there any more")
        self._verify_account(user)
        async with self._hashing:
            holds = await asyncio.to_thread(is_password, user.password_hash, current)
        # Asked again after the wait, or attempts in parallel would count as one.
        known = self._verify_account(user)
        if not holds:
            raise self._fail(user, known, "the current password is wrong")
        earlier = (user.password_hash, *user.old_password_hashes)
        async with self._hashing:
            await asyncio.to_thread(verify_new_password, password, user.login, earlier)
            await asyncio.to_thread(verify_changed, password, current)
            hashed = await asyncio.to_thread(hash_password, password)
        await self._verify_unchanged(user)
        await self._directory.set_password(user.user_id, hashed, source)
        session.must_change_password = False
        # Whoever else sits in the account knew the old one.
        others = [key for key, one in self._sessions.items() if one.user_id == session.user_id and one is not session]
        for key in others:
            del self._sessions[key]

    async def _verify_unchanged(self, user: User) -> None:
        """Whoever was reset or disabled while we hashed MUST not undo it. Raises: SignInRefused, SecurityUnavailable."""
        self._verify_account(_verify_same(user, await self._directory.find_user(user.user_id)))

    def _verify_account(self, user: User) -> SignIns:
        """What is known of a person who may try. Raises: SignInRefused."""
        known = self._store.find_sign_ins(user.user_id)
        if user.unlocked_at >= known.failed_at:
            known = msgspec.structs.replace(known, failures=0, locked_until=0)
        if user.is_disabled:
            raise SignInRefused(user.user_id, "the account is disabled")
        if known.locked_until > int(self._clock()):
            raise SignInRefused(user.user_id, "the account is locked after failures")
        return known

    def _fail(self, user: User, known: SignIns, reason: str) -> SignInRefused:
        self._note_failure(user, known, int(self._clock()))
        return SignInRefused(user.user_id, reason)

    def _succeed(self, user: User, known: SignIns, step: int) -> tuple[str, Session]:
        now, days = int(self._clock()), self._settings.inactive_after_days
        seen_at = max(known.signed_in_at, user.unlocked_at, user.created_at)
        if days and now - seen_at > days * _DAY_S:
            raise SignInRefused(user.user_id, f"the account was idle for more than {days} days")
        self._store.note_sign_ins(user.user_id, SignIns(signed_in_at=now, totp_step=step, failed_at=known.failed_at))
        return self._begin(user)

    def _find_step(self, user: User, code: str, known: SignIns) -> int | None:
        """The time step of a good code; what it was for a person without a second factor."""
        if user.totp_secret is None:
            return None if user.passkeys else known.totp_step
        secret = unseal(self._credentials_key, user.user_id, user.totp_secret)
        return None if secret is None else find_step(secret, code, self._clock(), known.totp_step)

    def _note_failure(self, user: User, known: SignIns, now: int) -> None:
        failures = known.failures + 1
        locked = failures >= self._settings.max_sign_in_failures
        self._store.note_sign_ins(
            user.user_id,
            msgspec.structs.replace(
                known,
                failures=0 if locked else failures,
                failed_at=now,
                locked_until=now + self._settings.lockout_s if locked else 0,
            ),
        )

    def _note_nobody(self) -> None:
        """The write that a failure of somebody costs, as long as the disk takes: or the time would tell who exists."""
        self._store.note_sign_ins("", SignIns(failed_at=int(self._clock())))

    def _begin(self, user: User) -> tuple[str, Session]:
        cookie, now = secrets.token_urlsafe(32), self._clock()
        session = Session(
            user_id=user.user_id,
            login=user.login,
            name=user.name,
            auth_time=int(now),
            form_token=secrets.token_urlsafe(24),
            last_seen=now,
            must_change_password=user.must_change_password,
        )
        self._sessions[_hash(cookie)] = session
        while len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return cookie, session


def _verify_same(before: User, now: User | None) -> User:
    """A person after a wait. Whoever was reset meanwhile is not let in by what held before. Raises: SignInRefused."""
    if now is None or (now.user_id, now.password_hash) != (before.user_id, before.password_hash):
        raise SignInRefused(before.user_id, "the account was changed meanwhile")
    return now


def _hash(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode("utf-8", "replace")).digest()
