"""The corpus as it is fed to training: one shard of examples for each step, generated and encoded by many processes.

An example depends on its number alone, so the shards and their hash are the same whatever the number of processes.
Nothing is stored: a shard is generated while the steps before it are trained.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import cache
from itertools import repeat
from multiprocessing import get_context

from tokenizers import Tokenizer

from appliance.demo.chat import TURN_END, TURN_START, mark_learnt, training_text
from appliance.demo.corpus.example import Example, corpus_hash
from appliance.demo.corpus.mixture import EXAMPLES_PER_SHARD, SEED, corpus_digest, shard_examples
from appliance.demo.vocabulary import token_id
from runtime.training.documents import Documents

_SHARDS_AHEAD = 4


def encode(tokenizer: Tokenizer, examples: list[Example]) -> Documents:
    """Turn examples into documents whose answers are learnt."""
    opening = tokenizer.encode(f"{TURN_START}assistant\n").ids
    turn_end = token_id(tokenizer, TURN_END)
    # One by one: a batch would start threads, in each of many processes.
    encodings = (tokenizer.encode(training_text(example)) for example in examples)
    return Documents.of((found.ids, mark_learnt(found.ids, opening, turn_end)) for found in encodings)


@cache
def _tokenizer(text: str) -> Tokenizer:
    return Tokenizer.from_str(text)


def _shard_texts(shard: int, size: int) -> list[str]:
    return [training_text(example) for example in shard_examples(SEED, shard, size)]


def _encoded_shard(tokenizer: str, shard: int, size: int) -> tuple[str, Documents]:
    examples = shard_examples(SEED, shard, size)
    return corpus_hash(examples), encode(_tokenizer(tokenizer), examples)


class CorpusFeed:
    """The shards of the corpus in order, from a pool of processes."""

    def __init__(self, num_processes: int, shard_size: int = EXAMPLES_PER_SHARD) -> None:
        # A fork would inherit whatever threads the libraries have started.
        self.pool = ProcessPoolExecutor(num_processes, mp_context=get_context("forkserver"))
        self.num_ahead = _SHARDS_AHEAD * num_processes
        self.shard_size, self.num_tokens = shard_size, 0
        self._hashes: list[str] = []

    def texts(self, num_shards: int) -> Iterator[str]:
        """The training texts of the first shards, for the tokenizer."""
        for texts in self.pool.map(_shard_texts, range(num_shards), repeat(self.shard_size)):
            yield from texts

    def documents(self, tokenizer: Tokenizer, num_shards: int) -> Iterator[Documents]:
        """Every shard once, encoded; what was fed is counted and hashed."""
        text = tokenizer.to_str()
        waiting: deque[Future[tuple[str, Documents]]] = deque()
        for shard in range(num_shards + self.num_ahead):
            if shard < num_shards:
                waiting.append(self.pool.submit(_encoded_shard, text, shard, self.shard_size))
            if shard >= self.num_ahead and waiting:
                digest, documents = waiting.popleft().result()
                self._hashes.append(digest)
                self.num_tokens += documents.num_tokens
                yield documents

    def sha256(self, num_shards: int | None = None) -> str:
        """The hash of the shards that were fed, or of the first ones."""
        return corpus_digest(self._hashes[:num_shards])

    @property
    def num_examples(self) -> int:
        """Examples that were fed."""
        return self.shard_size * len(self._hashes)

    def close(self) -> None:
        """End the processes."""
        self.pool.shutdown(cancel_futures=True)
