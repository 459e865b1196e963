"""Which tokens and sign-ins are void before they expire: told by policy, asked for every token, code and session.

A token is void by its `jti`, or because its client, its person or a service or application through whose hands it came (`act`) was
cut off at or after the second in which it was issued; so is all that rests on a sign-in of before. Whoever holds this list
without being told of changes MUST stop accepting tokens (the caller's to watch).
"""

import time
from collections.abc import Callable, Iterable

import msgspec

from security.oauth.access_token import AccessToken


class Revocation(msgspec.Struct, frozen=True, array_like=True):
    """One entry. `kind` is token, session, client or subject."""

    kind: str
    value: str
    revoked_at: int
    """UTC, seconds since the epoch."""
    expires_at: int
    """When no token can be about it any more."""


class RevocationList:
    """All entries that are known."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._entries: dict[tuple[str, str], Revocation] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def replace(self, entries: Iterable[Revocation]) -> None:
        """Know these and no others."""
        self._entries = {(entry.kind, entry.value): entry for entry in entries}

    def add(self, entry: Revocation) -> None:
        """Know one more."""
        self._entries[entry.kind, entry.value] = entry

    def is_revoked(self, token: AccessToken) -> bool:
        """True if a token is void."""
        if self.is_void(token.jti, token.client_id, token.subject, token.issued_at, token.session):
            return True
        return bool(token.actors) and any(self._is_cut_off("client", actor, token.issued_at) for actor in token.actors)

    def is_void(self, token_id: str, client_id: str, subject: str, issued_at: int, session: str = "") -> bool:
        """True if a token with these claims, which nobody exchanged, is void."""
        if ("token", token_id) in self._entries or (session and ("session", session) in self._entries):
            return True
        return self._is_cut_off("client", client_id, issued_at) or self._is_cut_off("subject", subject, issued_at)

    def _is_cut_off(self, kind: str, value: str, issued_at: int) -> bool:
        entry = self._entries.get((kind, value))
        return entry is not None and issued_at <= entry.revoked_at

    def is_over(self, client_id: str, subject: str, signed_in_at: int) -> bool:
        """True if what a person signed in to at this time has ended: they, or the client that acts for them, were cut off since."""
        return self.is_void("", client_id, subject, signed_in_at)

    def forget_expired(self) -> None:
        """Drop what is about no token any more."""
        now = self._clock()
        for key in [key for key, entry in self._entries.items() if entry.expires_at < now - 60]:
            del self._entries[key]
