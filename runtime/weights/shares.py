"""How a model is shared out over ranks that compute one forward pass together (tensor parallelism).

Each rank has some of the heads and some of the feed-forward's inner features, so that the two products of an attention, and
those of a feed-forward, meet on one rank: what the first gives the second reads there. The second product of each pair is
then a part of a sum over ranks. The head is cut by its rows, the vocabulary, where that leaves each rank as much. Embedding
and norms are whole everywhere, as is a draft head.

Source: Megatron-LM, Shoeybi et al. 2019, section 3.
"""

from dataclasses import dataclass, replace

from runtime.errors import EngineMisconfigured
from runtime.weights.config import ModelConfig

_HEAD_ROWS_UNIT = 8
"""A rank's part of the logits begins at a multiple of 16 bytes."""


@dataclass(frozen=True, slots=True)
class Share:
    """Which of how many ranks."""

    rank: int = 0
    size: int = 1

    def span(self, count: int) -> tuple[int, int]:
        """Of so many things in a row: where this rank's begin, and how many they are."""
        own = count // self.size
        return self.rank * own, own


WHOLE = Share()
"""One rank has all."""


def share_config(config: ModelConfig, share: Share) -> ModelConfig:
    """The shape of what one rank computes of a model: its heads and its inner features; the vocabulary stays whole.

    Raises: EngineMisconfigured for a model that cannot be shared out so.
    """
    for name, count in (("key/value heads", config.num_kv_heads), ("inner features", config.intermediate_size)):
        if count % share.size:
            raise EngineMisconfigured(f"tp_size: expected a divisor of the model's {count} {name}, found {share.size}")
    return replace(
        config,
        num_heads=config.num_heads // share.size,
        num_kv_heads=config.num_kv_heads // share.size,
        intermediate_size=config.intermediate_size // share.size,
    )


def cuts_head(config: ModelConfig, share: Share) -> bool:
    """Whether each rank computes the logits of a part of the vocabulary; else each computes all."""
    return share.size > 1 and config.vocab_size % (_HEAD_ROWS_UNIT * share.size) == 0
