"""A vocabulary as grammars see it: the bytes of each token, and the tokens that end an answer."""

import hashlib
from collections.abc import Collection, Sequence

from runtime.structured.library import TokenizerInfo


class GrammarVocabulary:
    """One model's. Compiler and engine MUST build it from the same table: a grammar is bound to its vocabulary."""

    def __init__(self, table: Sequence[bytes], stop_ids: Collection[int], *, vocab_size: int) -> None:
        """
        Args:
            table: bytes by token id; empty for tokens that no grammar may choose (control tokens).
            stop_ids: what ends an answer; only these may come once a grammar is complete.
            vocab_size: of the logits, padding included.
        """
        self.table = table
        self.vocab_size = vocab_size
        self.num_words = -(-vocab_size // 32)
        """Words of 32 bits that a mask takes."""
        lengths = b"".join(len(entry).to_bytes(4, "little") for entry in table)
        facts = f"{vocab_size} {sorted(stop_ids)}".encode()
        self.digest = hashlib.sha256(lengths + b"".join(table) + facts).digest()
        """Stands before each grammar: xgrammar itself compares sizes only."""
        self.info = TokenizerInfo(list(table), sorted(stop_ids), vocab_size)
