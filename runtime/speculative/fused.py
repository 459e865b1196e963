"""A head as a GPU runs it: the mathematics of `head`, cut into the operations of the decoders there.

An entry's key and value follow from its token and hidden state alone, as the head has one layer. So every row that the target
computes is only entered; attention, feed-forward and logits are computed for the few rows that somebody drafts behind. Where
nobody drafts, entering is all that the head costs, and its cache is whole when drafts are wanted again.

Everything is enqueued in order on one stream and may be captured. Weights are those of `head`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.attention.device import DevicePlan
from runtime.models.operations import DraftTokens, Operations, TokenPlaces
from runtime.speculative.config import NUM_CAPTURED
from runtime.speculative.head import DraftHead


@dataclass(frozen=True, slots=True)
class Entries:
    """Rows that were entered, ready to be asked."""

    query: Tensor
    """[num_rows, num_heads, head_dim], turned."""
    residual: Tensor
    """[num_rows, hidden_size]: what attention is added to."""

    def select(self, rows: Tensor) -> "Entries":
        """Some of the rows, as new tensors."""
        return Entries(self.query.index_select(0, rows), self.residual.index_select(0, rows))


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
    def target_ids(self) -> Tensor:
        """[draft_vocab_size] int64: the target's id of each draft."""
        return self._head.target_ids

    @property
    def captured_size(self) -> int:
        """Numbers of a row of the target's hidden states, of all layers that it reads."""
        return NUM_CAPTURED * self._head.config.target_hidden_size

    def combine(self, captured: Tensor) -> Tensor:
        """See `DraftHead.combine`."""
        return self._operations.linear(captured, self._head.fc)

    def enter(self, tokens: DraftTokens, hidden: Tensor, places: TokenPlaces) -> Entries:
        """Write the keys and values of some rows to the pages.

        Args:
            tokens: the token after each position.
            hidden: [num_rows, hidden_size]: the hidden state at each position.
        """
        head, operations = self._head, self._operations
        joined = operations.join_normed(tokens, head.embedding, hidden, (head.embedding_norm, head.hidden_norm))
        residual = joined[:, hidden.shape[1] :] if head.config.norm_before_residual else hidden
        heads = operations.linear(joined, head.qkv)
        query = heads.new_empty(heads.shape[0], head.config.num_heads, head.config.head_dim)
        operations.rotate_and_store(heads, places, head.rotary, None, self._pages[0], query)
        return Entries(query, residual)

    def ask(self, entries: Entries, plan: DevicePlan) -> Tensor:
        """The rest of the layer for entered rows → [num_rows, hidden_size], before the last norm."""
        head, operations = self._head, self._operations
        attended = torch.empty_like(entries.query)
        plan.attend(0, entries.query, attended)
        hidden = entries.residual.contiguous()
        operations.add_linear(hidden, attended.flatten(1), head.output)
        operations.feed_forward(hidden, head.mlp_norm, head.gate_up, head.down)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """[num_rows, hidden_size] → [num_rows, draft_vocab_size]."""
        return self._operations.norm_linear(hidden, self._head.norm, self._head.lm_head)
