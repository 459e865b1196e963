"""Keyed hashes, the gateway's half: today's root of each tenant, made when it is first needed, the same for all workers.

A worker draws a root and wraps it to the auditors, where there are any; the auditor process keeps the first that it is brought
for a tenant and day, and answers with that one. Roots live in memory only, and only today's. A request whose prompt cannot be
hashed is refused, as one that cannot be recorded.

Source: `audit.keyed_hash`.
"""

import asyncio
import os
import time
from collections.abc import Sequence

from appliance.gateway.peers.auditor import AuditorPeer
from appliance.messages.stewardship import KeepHashRoot
from audit.keyed_hash import ROOT_BYTES, ROOT_LABEL, KeyedHasher, day_of, root_context
from audit.sealing import RecipientKey, wrap_share


class Hashers:
    """The hashers of one worker."""

    def __init__(self, recipients: Sequence[RecipientKey], auditor: AuditorPeer) -> None:
        self._recipients = recipients
        self._auditor = auditor
        self._day = ""
        self._hashers: dict[str, KeyedHasher] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def hasher_for(self, tenant: str) -> KeyedHasher:
        """Today's of a tenant.

        Raises: PeerUnavailable, InternalFault: then the request MUST be refused.
        """
        day = day_of(time.time_ns() // 1_000_000)
        if day != self._day:
            self._day = day
            self._hashers.clear()
            self._locks.clear()
        if (known := self._hashers.get(tenant)) is not None:
            return known
        async with self._locks.setdefault(tenant, asyncio.Lock()):
            if (known := self._hashers.get(tenant)) is not None:
                return known
            made = await self._make(tenant, day)
            if day == self._day:
                self._hashers[tenant] = made
            return made

    async def _make(self, tenant: str, day: str) -> KeyedHasher:
        context = root_context(tenant, day)
        root = os.urandom(ROOT_BYTES)
        escrow = wrap_share(root, self._recipients, context, ROOT_LABEL)
        kept = await self._auditor.keep_hash_root(lambda number: KeepHashRoot(number, tenant, day, root, escrow))
        return KeyedHasher(kept, context)
