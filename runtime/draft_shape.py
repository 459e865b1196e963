"""The shape of what is drafted for one answer: a chain, or a tree. Imports no torch and no numpy: configurations are checked by it.

A tree grows in steps. Each looks at the `topk` likeliest nodes of the step before and takes the `topk` likeliest tokens behind
each of them; at the end the likeliest `num_drafts` of all nodes are kept, by the product of the probabilities on their way. A
parent is never less likely than its child, so what is kept is a tree again, and so are its first nodes, however many, where
nodes are ordered by steps. A chain is what `topk` 1 gives: each node has one child. (Li et al. 2024, EAGLE-2, section 4.)

How much is drafted at a time is a *level*, in steps; see `runtime.speculative.adapting`.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DraftShape:
    """What is drafted at the highest level, and at those below."""

    num_steps: int
    topk: int
    num_drafts: int
    """Nodes that are verified beside the newest token."""

    @property
    def is_tree(self) -> bool:
        """Whether a node may have several children."""
        return self.topk > 1

    def drafts_at(self, level: int) -> int:
        """Nodes to keep of so many steps: in proportion, and a whole path at least."""
        if level in (0, self.num_steps):
            return level and self.num_drafts
        return min(max(level, self.num_drafts * level // self.num_steps), num_candidates(level, self.topk))

    def places_at(self, level: int) -> int:
        """Places behind the newest token that drafts take in the cache: those verified, or the head's while it drafts."""
        return max(self.drafts_at(level), self.topk * (level - 1))


def draft_chain(num_steps: int) -> DraftShape:
    """So many drafts, each behind the one before."""
    return DraftShape(num_steps, 1, num_steps)


def num_candidates(num_steps: int, topk: int) -> int:
    """Nodes that are looked at in so many steps, at least one."""
    return topk + (num_steps - 1) * topk * topk


NO_DRAFTS = draft_chain(0)
