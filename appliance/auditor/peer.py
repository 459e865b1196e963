"""Whom the auditor talks to, as far as its rules need to know."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from appliance.messages.control import Role


class Peer(Protocol):
    """The other end of one link, for the life of that link; compared by identity."""

    @property
    def peer_role(self) -> Role:
        """What the supervisor started it as."""

    @property
    def peer_instance(self) -> int:
        """Its number among those of its role."""


Send = Callable[[Peer, msgspec.Struct], None]
"""Queues a message for a peer; to a peer that is gone it does nothing."""


def name_of(peer: Peer) -> str:
    """How records name a peer: `gateway/0`."""
    return f"{peer.peer_role}/{peer.peer_instance}"
