"""The mixture: how much of each kind, in which order; the training set and the held-out set.

Everything follows from a seed and `random.Random`, which gives the same numbers on every machine.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from random import Random

from appliance.demo.corpus.arithmetic import arithmetic_example, held_out_problems
from appliance.demo.corpus.example import Example, Message
from appliance.demo.corpus.extraction import extraction_example, held_out_extractions
from appliance.demo.corpus.product import held_out_products, product_example
from appliance.demo.corpus.smalltalk import smalltalk_example
from appliance.demo.corpus.stories import story_example
from appliance.demo.corpus.tools import held_out_calls, tool_example

SEED = 20_260_101
EXAMPLES_PER_SHARD = 512
SYSTEM_TEXTS = (
    "You are a helpful assistant.",
    "You are Casemate, a helpful assistant.",
    "You are a helpful assistant. Answer briefly.",
    "Answer the user's question.",
    "You are the demo model of Casemate.",
)
_SHARES: tuple[tuple[Callable[[Random], Example], float], ...] = (
    (product_example, 0.17),
    (arithmetic_example, 0.12),
    (extraction_example, 0.44),
    (tool_example, 0.19),
    (story_example, 0.02),
    (smalltalk_example, 0.06),
)


def training_example(seed: int, number: int) -> Example:
    """The example of this number: the same on every machine, whichever others are made.

    One in fourteen is a longer conversation, and one in six has a system message.
    """
    rng = Random((seed << 32) + number)
    maker = rng.choices([maker for maker, _ in _SHARES], [share for _, share in _SHARES])[0]
    example = maker(rng)
    if example.messages and not example.tools:
        if rng.random() < 1 / 14:
            example = _continue(example, rng)
        if rng.random() < 1 / 6:
            system = Message("system", rng.choice(SYSTEM_TEXTS))
            example = Example(example.kind, example.family, (system, *example.messages))
    return example


def training_examples(seed: int = SEED, count: int = EXAMPLES_PER_SHARD) -> Iterator[Example]:
    """The first `count` examples of the training set."""
    return (training_example(seed, number) for number in range(count))


def shard_examples(seed: int, shard: int, size: int = EXAMPLES_PER_SHARD) -> list[Example]:
    """The examples of one shard, which is what one step of training learns from."""
    return [training_example(seed, number) for number in range(shard * size, (shard + 1) * size)]


def corpus_digest(shard_hashes: Iterable[str]) -> str:
    """The hash of a corpus: SHA-256 over the hashes of its shards in order, as 64 hex digits."""
    digest = hashlib.sha256()
    for shard_hash in shard_hashes:
        digest.update(bytes.fromhex(shard_hash))
    return digest.hexdigest()


def _continue(example: Example, rng: Random) -> Example:
    """Add one to three more turns of any kind that needs no tools."""
    messages = example.messages
    for _ in range(rng.randint(1, 3)):
        maker = rng.choice(
            (product_example, arithmetic_example, extraction_example, smalltalk_example, product_example)
        )
        messages += maker(rng).messages
    return Example(example.kind, f"{example.family}/turns", messages)


def held_out_examples(seed: int = SEED) -> Iterator[Example]:
    """The held-out set; no template in it occurs in training."""
    rng = Random(seed + 1)
    for maker in (held_out_products, held_out_problems, held_out_extractions, held_out_calls):
        yield from maker(rng)
