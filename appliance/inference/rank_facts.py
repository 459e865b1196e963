"""What an operator is told of each rank of an engine: which GPU it has, and what its memory is used for.

The ranks tell each other when all are ready, by the sockets between them; the first tells the gateways.
"""

import msgspec

from appliance.messages.engine import RankFacts
from runtime.parallel.channel import Channel
from runtime.runner.memory import Card, MemoryTable

_GIB = 1 << 30


def rank_facts(rank: int, card: Card, memory: MemoryTable) -> RankFacts:
    """Of a rank on a GPU."""
    return RankFacts(rank, card.name, card.uuid, memory.parts)


def tell_rank_facts(own: RankFacts, channel: Channel | None) -> list[RankFacts]:
    """Those of all ranks, in their order. Every rank calls it, at the same point of its start. Raises: RankLost."""
    if channel is None:
        return [own]
    told = channel.exchange(msgspec.msgpack.encode([own]), _join)
    return _decode(told)


def describe_ranks(ranks: list[RankFacts]) -> str:
    """For a line at the start."""
    return "; ".join(map(_describe, ranks))


def _describe(facts: RankFacts) -> str:
    if not facts.gpu:
        return f"{facts.rank} on {facts.device}"
    return f"{facts.rank} on {facts.device}, {facts.gpu}, {facts.memory.get('left', 0) / _GIB:.2f} GiB left"


def _join(parts: list[bytes]) -> bytes:
    return msgspec.msgpack.encode([facts for part in parts for facts in _decode(part)])


def _decode(content: bytes) -> list[RankFacts]:
    return msgspec.msgpack.decode(content, type=list[RankFacts])
