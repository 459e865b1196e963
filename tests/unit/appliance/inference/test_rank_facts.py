"""What is told of the ranks of an engine."""

import threading

from appliance.inference.rank_facts import describe_ranks, rank_facts, tell_rank_facts
from appliance.messages.engine import RankFacts
from runtime.parallel.channel import open_channels
from runtime.runner.memory import Card, MemoryNeed, MemoryTable

GIB = 1 << 30


def facts_of(rank: int, left_bytes: int) -> RankFacts:
    need = MemoryNeed(total_bytes=80 * GIB, foreign_bytes=GIB, weights_bytes=16 * GIB, step_bytes=2 * GIB)
    table = MemoryTable(need, kv_bytes=61 * GIB - left_bytes, num_pages=100, page_bytes=16)
    return rank_facts(rank, Card("NVIDIA H100", f"GPU-{rank}"), table)


def test_every_rank_knows_all_in_their_order() -> None:
    """Each with its own GPU and memory; the one that does not share its model knows itself."""
    channels = open_channels(3)
    told: dict[int, list[RankFacts]] = {}

    def run(rank: int) -> None:
        told[rank] = tell_rank_facts(facts_of(rank, rank * GIB), channels[rank])

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for channel in channels:
        channel.close()
    assert [told[rank] for rank in range(3)] == [[facts_of(rank, rank * GIB) for rank in range(3)]] * 3
    assert tell_rank_facts(facts_of(0, GIB), None) == [facts_of(0, GIB)]


def test_ranks_are_described_in_a_line() -> None:
    """With the GPU's name for nvidia-smi, and what is left of it."""
    assert describe_ranks([facts_of(0, GIB), facts_of(1, GIB // 2)]) == (
        "0 on NVIDIA H100, GPU-0, 1.00 GiB left; 1 on NVIDIA H100, GPU-1, 0.50 GiB left"
    )
    assert describe_ranks([RankFacts(0)]) == "0 on cpu"
