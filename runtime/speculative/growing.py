"""Trees of drafts as they grow, one for each of some chains: which nodes are looked at, which go on, which are kept.

Everything is tensor work of fixed shapes, so it is the same for the reference and in a captured graph. Nodes are numbered in the
order in which they are looked at: 0 is the newest token, behind it come the nodes of the first step, and so on. A node's score
is the logarithm of the product of the probabilities on its way: never more than its parent's, which has a smaller number. So the
best nodes, ties going to smaller numbers, hold every parent of theirs.

Source: EAGLE-2, Li et al. 2024, section 4; the parameters are SGLang's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Beams:
    """The nodes that go on after a step, `topk` of each chain."""

    ids: Tensor
    """[num_chains, topk] int64, of the head's own vocabulary."""
    parent_rows: Tensor
    """[num_chains * topk] int64: which row of the logits each came from."""
    path: Tensor
    """[num_chains, topk, steps so far] int64: the node's ancestors and itself, each as beam + topk * step."""


class GrowingTrees:
    """The trees of some chains, from their first logits on."""

    def __init__(self, topk: int) -> None:
        self._topk = topk
        self._scores: list[Tensor] = []
        self._ids: list[Tensor] = []
        self._parents: list[Tensor] = []
        self._num_nodes = 1
        self._beam_scores = self._beam_numbers = self._paths = torch.empty(0)

    def grow(self, logits: Tensor) -> Beams:
        """One more step.

        Args:
            logits: [num_chains, vocab_size] at first, then [num_chains * topk, vocab_size] in the order of the last beams.
        Capture-safe.
        """
        topk, is_first = self._topk, not self._scores
        num_beams = 1 if is_first else topk
        chains = logits.shape[0] // num_beams
        # Logits that are not finite are likely for nobody; ids stay in range, as topk gives indices.
        scores = torch.log_softmax(logits.float(), dim=-1).nan_to_num(nan=-torch.inf)
        values, ids = (part.view(chains, num_beams, topk) for part in scores.topk(topk, dim=-1))
        if is_first:
            self._beam_scores = values.new_zeros(chains, 1)
            self._beam_numbers = ids.new_zeros(chains, 1)
            self._paths = ids.new_zeros(chains, 1, 0)
        scores = (self._beam_scores[:, :, None] + values).flatten(1)
        self._scores.append(scores)
        self._ids.append(ids.flatten(1))
        self._parents.append(self._beam_numbers[:, :, None].expand(-1, -1, topk).flatten(1))
        return self._choose_beams(scores, num_beams)

    def _choose_beams(self, scores: Tensor, num_beams: int) -> Beams:
        topk, chains, step = self._topk, len(scores), len(self._scores) - 1
        self._beam_scores, chosen = scores.topk(topk, dim=1)
        self._beam_numbers = self._num_nodes + chosen
        self._num_nodes += num_beams * topk
        came_from = chosen // topk
        above = self._paths.gather(1, came_from[:, :, None].expand(-1, -1, step))
        own = torch.arange(topk * step, topk * (step + 1), device=scores.device).expand(chains, topk)
        self._paths = torch.cat((above, own[:, :, None]), dim=2)
        rows = torch.arange(chains, device=scores.device)[:, None] * num_beams + came_from
        return Beams(self._ids[-1].gather(1, chosen), rows.flatten(), self._paths)

    def keep(self, num_drafts: int) -> tuple[Tensor, Tensor]:
        """The best nodes.

        Returns: [num_chains, num_drafts] int64 each: ids of the head's vocabulary, and parents as `TreeResult` has them.
        Capture-safe.
        """
        scores = torch.cat(self._scores, dim=1)
        order = torch.sort(scores, dim=1, descending=True, stable=True).indices
        kept = order[:, :num_drafts].sort(dim=1).values
        parents = torch.cat(self._parents, dim=1).gather(1, kept)
        # Numbers among all nodes become numbers among those kept, which are ascending.
        return torch.cat(self._ids, dim=1).gather(1, kept), torch.searchsorted(kept + 1, parents, right=True)
