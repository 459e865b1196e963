"""A head and its target as one thing to train: the loss of a block of texts, and which drafts would have been right.

For each step the head's distribution is compared with the target's at the same place, both over the draft vocabulary. What
is learnt is what serving drafts: the answer from its second token on, as the first comes from the prompt's own pass.
Places whose most likely token cannot be drafted are left out: there is nothing right to say there.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from runtime.training.documents import IGNORED
from runtime.training.draft.head import DraftHead
from runtime.training.draft.plan import Unrolling
from runtime.training.draft.target import Target
from runtime.training.draft.unrolling import Beginnings, shift, unroll
from runtime.training.draft.vocabulary import DraftVocabulary


class DraftTrainee:
    """What `runtime.training.loop` trains; a `Trainable`."""

    def __init__(self, head: DraftHead, target: Target, vocabulary: DraftVocabulary, unrolling: Unrolling) -> None:
        """All on one device already."""
        self.head, self._target, self._unrolling = head, target, unrolling
        self._target_ids, self._is_drafted = vocabulary.target_ids, vocabulary.is_drafted

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The head's; the target's are not learnt."""
        return self.head.named_parameters()

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Sum over places of the weighted cross-entropies of all steps. See `Trainable`; capture-safe on a GPU.

        What is learnt of a text must be one stretch.
        """
        # On a CPU the places of prompts are left out; a captured pass cannot know them.
        begin = answers_of(targets) if tokens.device.type == "cpu" else everywhere(targets)
        read = self._target.read(tokens, self.head.shape.captured_layers)
        wanted, is_draftable = self._wanted(self._target.logits(begin.of(read.last)))
        counts = begin.are_learnt & is_draftable
        total = torch.zeros((), device=tokens.device)
        for step, hidden in enumerate(self._unroll(tokens, read.captured, begin, self._unrolling.num_steps)):
            logprobs = self.head.logits(hidden).float().log_softmax(-1)
            missed = -(shift(wanted, step + 1) * logprobs).sum(-1)
            total = (
                total + self._unrolling.weights[step] * (missed * (begin.are_learnt & shift(counts, step + 1))).sum()
            )
        return total

    @torch.no_grad()
    def hits(self, tokens: Tensor, targets: Tensor, num_steps: int) -> Tensor:
        """Which greedy drafts are the text's tokens: [num_steps, batch, longest stretch that is learnt] bool.

        At (s, j), where the learnt tokens are t(0), t(1), …: whether step s of a round that begins with t(j) drafts
        t(j + s + 1), if the steps before it were right. Behind the end of a text it says nothing; the caller knows the lengths.
        """
        begin = answers_of(targets)
        read = self._target.read(tokens, self.head.shape.captured_layers)
        answers = begin.of(targets)
        hits = []
        for step, hidden in enumerate(self._unroll(tokens, read.captured, begin, num_steps)):
            drafted = self._target_ids[self.head.logits(hidden).argmax(-1)]
            hits.append(drafted == shift(answers, step + 1))
        return torch.stack(hits)

    def _unroll(self, tokens: Tensor, captured: Tensor, begin: Beginnings, num_steps: int) -> Iterator[Tensor]:
        return unroll(self.head, self._target.rotary, captured, self._target.embed(tokens), begin, num_steps)

    @torch.no_grad()
    def _wanted(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The target's distribution over the draft vocabulary, and where its first choice is in it."""
        wanted = logits.index_select(-1, self._target_ids).float().softmax(-1)
        return wanted, self._is_drafted[logits.argmax(-1)]


def everywhere(targets: Tensor) -> Beginnings:
    """All columns of [batch, length]. Capture-safe."""
    columns = torch.arange(targets.shape[1], device=targets.device)
    return Beginnings(columns.expand(targets.shape), targets != IGNORED, is_all=True)


def answers_of(targets: Tensor) -> Beginnings:
    """The learnt columns of each row, filled up with its last column to as many as the longest stretch has."""
    is_learnt = targets != IGNORED
    length = targets.shape[1]
    counts = is_learnt.sum(1, keepdim=True)
    first = is_learnt.int().argmax(1, keepdim=True)
    offsets = torch.arange(max(1, int(counts.max())), device=targets.device)
    are_learnt = offsets < counts
    return Beginnings(torch.where(are_learnt, first + offsets, length - 1), are_learnt, is_all=False)
