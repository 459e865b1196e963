"""Who is signed in: sessions in memory, by the hash of a cookie. A restart signs everybody out.

A session is locked after `idle_s` without a click, or at once by a button, and goes on when the same person signs in again
(NIST SP 800-171 3.1.10); it ends `lifetime_s` after it began (3.1.11). Every sign-in asks the authority for a fresh one
(`max_age`, RFC 9470 section 5), so whoever finds the browser of somebody who left gains nothing from the authority's cookie.
"""

import asyncio
import base64
import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

import msgspec

from appliance.console.tokens import Person, Tokens
from security.oauth.proving import ProofKey
from security.oauth.waiting import WaitingRoom
from security.scopes import Role, Scope

SIGN_IN_S = 600
"""How long somebody may take at the authority."""
MAX_WAITING = 1_000
MAX_WAITING_PER_SOURCE = 100
MAX_SESSIONS = 1_000


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """A sign-in that waits for its browser to come back from the authority."""

    state: str
    verifier: str
    then: str
    began_at: float
    key: ProofKey

    @property
    def challenge(self) -> str:
        """RFC 7636 section 4.2."""
        return base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).rstrip(b"=").decode()

    def __repr__(self) -> str:
        return "Begun(<hidden>)"


class Session(msgspec.Struct, kw_only=True):
    """Somebody who signed in."""

    subject: str
    login: str
    tenant: str
    role: Role
    scopes: frozenset[Scope]
    tokens: Tokens
    key: ProofKey
    began_at: float
    last_seen: float
    form_token: str
    then: str = "/"
    """The page that was looked at last: where to go on after a lock."""
    is_locked: bool = False
    refreshing: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)

    def __repr__(self) -> str:
        return f"Session(subject={self.subject!r}, role={self.role!r})"


class SessionDesk:
    """Owner of the sessions, and of the sign-ins that are under way."""

    def __init__(self, *, idle_s: float, lifetime_s: float, clock: Callable[[], float] = time.time) -> None:
        self.idle_s = idle_s
        self._lifetime_s = lifetime_s
        self._clock = clock
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        self._waiting: WaitingRoom[Begun] = WaitingRoom(
            lifetime_s=SIGN_IN_S, max_waiting=MAX_WAITING, max_per_source=MAX_WAITING_PER_SOURCE, clock=clock
        )

    def begin(self, then: str, address: str) -> tuple[str, Begun]:
        """A sign-in for one browser, at this address. Returns: the value of its cookie, and what the authority is to be asked."""
        cookie = secrets.token_urlsafe(32)
        begun = Begun(
            state=secrets.token_urlsafe(24),
            verifier=secrets.token_urlsafe(48),
            then=then,
            began_at=self._clock(),
            key=ProofKey(clock=self._clock),
        )
        self._waiting.add(cookie, begun, address)
        return cookie, begun

    def take_begun(self, cookie: str | None) -> Begun | None:
        """The sign-in of this browser, which is good once."""
        return self._waiting.take(cookie)

    def admit(self, begun: Begun, tokens: Tokens, person: Person, scopes: frozenset[Scope]) -> str:
        """A new session. Returns: the value of its cookie."""
        cookie, now = secrets.token_urlsafe(32), self._clock()
        self._sessions[_hash(cookie)] = Session(
            subject=person.sub,
            login=person.username or person.sub,
            tenant=person.tenant,
            role=person.roles[0],
            scopes=scopes,
            tokens=tokens,
            key=begun.key,
            began_at=now,
            last_seen=now,
            form_token=secrets.token_urlsafe(24),
        )
        while len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return cookie

    def look(self, cookie: str | None) -> Session | None:
        """The session of a cookie, if it is not over. Locked if nobody clicked for too long; this is no click."""
        now, digest = self._clock(), _hash(cookie or "")
        session = self._sessions.get(digest)
        if session is None:
            return None
        if now - session.began_at > self._lifetime_s:
            del self._sessions[digest]
            return None
        if now - session.last_seen > self.idle_s:
            session.is_locked = True
        return session

    def touch(self, session: Session) -> None:
        """A click."""
        session.last_seen = self._clock()

    def end(self, cookie: str | None) -> Session | None:
        """Forget a session. Returns: what it was, for its tokens to be revoked."""
        return self._sessions.pop(_hash(cookie or ""), None)

    def drain(self) -> list[Session]:
        """Forget all."""
        ended = list(self._sessions.values())
        self._sessions.clear()
        return ended


def _hash(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode("utf-8", "replace")).digest()
