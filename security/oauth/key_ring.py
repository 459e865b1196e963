"""An issuer's keys as a resource server holds them: imported once, refreshed when one is unknown or they grow old.

A token with an unknown key id may be the first after a rotation, or garbage: it causes a fetch, but never more than one per
MIN_REFRESH_INTERVAL_S however many come. Keys older than FRESH_AGE_S are fetched again beside the work, and older than MAX_AGE_S
before it, so that a key that was withdrawn ends; if that fails they serve on until USELESS_AGE_S, when every token they signed
has expired anyway. Where their publisher said when they end they serve no longer than that.
"""

import asyncio
import time
from collections.abc import Callable
from types import MappingProxyType
from typing import Protocol

from security.errors import KeysUnavailable, MalformedDocument
from security.oauth.algorithms import JoseKey
from security.oauth.key_set import KeysById, parse_key_set

MIN_REFRESH_INTERVAL_S = 5.0
FIRST_REFRESH_INTERVAL_S = 0.5
"""While there are no keys at all, as issuer and resource server start together."""
FRESH_AGE_S = 300.0
MAX_AGE_S = 600.0
USELESS_AGE_S = 3600.0


class JwksSource(Protocol):
    """Where key sets come from."""

    async def fetch(self) -> bytes:
        """The JWK Set as it was published.

        Raises: KeysUnavailable.
        """


class KeyRing:
    """Keys of one issuer. `generation` changes whenever they do, for caches that depend on them."""

    def __init__(
        self,
        source: JwksSource,
        *,
        is_over: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            is_over: whether what the source gave last has ended by its publisher's word.
        """
        self._source = source
        self._is_over = is_over
        self._clock = clock
        self._keys: KeysById = MappingProxyType({})
        self._fetched_at = -USELESS_AGE_S
        self._tried_at = -MIN_REFRESH_INTERVAL_S
        self._never = True
        self._fetching = asyncio.Lock()
        self._refreshing: asyncio.Task[bool] | None = None
        self.generation = 0

    def find(self, kid: str) -> JoseKey | None:
        """The key of this id, as far as it is known now.

        Raises: KeysUnavailable if there are no keys, or none fresh enough.
        """
        if self._never or self._clock() - self._fetched_at > USELESS_AGE_S:
            raise KeysUnavailable("the issuer's keys are not at hand")
        if self._is_over():
            raise KeysUnavailable("the issuer's keys have expired, and no newer ones came")
        return self._keys.get(kid)

    async def keep_fresh(self) -> None:
        """To be called before keys are used: waits only if they have grown too old, or if there are none."""
        age_s = self._clock() - self._fetched_at
        if self._never or age_s > MAX_AGE_S or self._is_over():
            await self.refresh()
        elif age_s > FRESH_AGE_S and (self._refreshing is None or self._refreshing.done()):
            self._refreshing = asyncio.get_running_loop().create_task(self.refresh())

    async def load(self) -> None:
        """Fetch the keys now; to be called before the first token.

        Raises: KeysUnavailable, also if what came is not a key set.
        """
        async with self._fetching:
            await self._fetch()

    async def refresh(self) -> bool:
        """Fetch the keys unless that was tried a moment ago; a failure keeps those at hand.

        Returns: whether there are fresh keys now, also by somebody else's fetch that was under way.
        """
        fetched_at, asked_at = self._fetched_at, self._clock()
        async with self._fetching:
            if self._fetched_at > fetched_at:
                return True
            interval_s = FIRST_REFRESH_INTERVAL_S if self._never else MIN_REFRESH_INTERVAL_S
            if asked_at - self._tried_at < interval_s:
                return False
            try:
                await self._fetch()
            except KeysUnavailable:
                return False
            return True

    async def _fetch(self) -> None:
        self._tried_at = self._clock()
        data = await self._source.fetch()
        try:
            keys = parse_key_set(data)
        except MalformedDocument as error:
            raise KeysUnavailable(f"the issuer's keys cannot be read: {error}") from error
        if _fingerprints(keys) != _fingerprints(self._keys):
            self._keys = keys
            self.generation += 1
        self._fetched_at = self._clock()
        self._never = False


def _fingerprints(keys: KeysById) -> dict[str, tuple[str, str | None]]:
    return {kid: (key.thumbprint(), key.alg) for kid, key in keys.items()}
