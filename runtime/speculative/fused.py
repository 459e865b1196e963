"""A head as a GPU runs it: the mathematics of `head`, cut into the operations of the decoders there.

Everything is enqueued in order on one stream and may be captured. Weights are those of `head`.
"""

import torch
from torch import Tensor

from runtime.attention.device import DevicePlan
from runtime.models.operations import DraftTokens, Operations, TokenPlaces
from runtime.speculative.head import DraftHead


class FusedHead:
    """A head over pages of its own, [1, num_pages, 2, PAGE_SIZE, num_kv_heads, head_dim]."""

    def __init__(self, head: DraftHead, operations: Operations, pages: Tensor) -> None:
        self._head = head
        self._operations = operations
        self._pages = pages

    @property
    def num_positions(self) -> int:
        """Bound of the positions that may occur."""
        return self._head.rotary.num_positions

    @property
    def draft_vocab_size(self) -> int:
        return self._head.config.draft_vocab_size

    def combine(self, captured: Tensor) -> Tensor:
        """See `DraftHead.combine`."""
        return self._operations.linear(captured, self._head.fc)

    def forward(self, tokens: DraftTokens, hidden: Tensor, places: TokenPlaces, plan: DevicePlan) -> Tensor:
        """Entries → [num_rows, hidden_size], before the last norm; their keys and values are written to the pages.

        Args:
            tokens: the token after each position.
            hidden: [num_rows, hidden_size]: the hidden state at each position; may be changed.
        """
        head, operations = self._head, self._operations
        joined = operations.join_normed(tokens, head.embedding, hidden, (head.embedding_norm, head.hidden_norm))
        if head.config.norm_before_residual:
            hidden = joined[:, hidden.shape[1] :].contiguous()
        heads = operations.linear(joined, head.qkv)
        query = heads.new_empty(heads.shape[0], head.config.num_heads, head.config.head_dim)
        operations.rotate_and_store(heads, places, head.rotary, None, self._pages[0], query)
        attended = torch.empty_like(query)
        plan.attend(0, query, attended)
        operations.add_linear(hidden, attended.flatten(1), head.output)
        operations.feed_forward(hidden, head.mlp_norm, head.gate_up, head.down)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """[num_rows, hidden_size] → [num_rows, draft_vocab_size]."""
        return self._operations.norm_linear(hidden, self._head.norm, self._head.lm_head)

    @property
    def target_ids(self) -> Tensor:
        """[draft_vocab_size] int64: the target's id of each draft."""
        return self._head.target_ids
