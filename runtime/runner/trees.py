"""Trees of drafts on the device: where their rows stand and what each sees, which path is accepted, how the next ones grow.

What `runtime.speculative` does on the host with `SpeculationBatch.tree`, without the host: see `chains`, of which this is the
counterpart. All of it is torch, capture-safe, and takes its numbers from the device.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from runtime.attention.verifying import TreeRows, VerifyAttention
from runtime.draft_shape import DraftShape
from runtime.identifiers import PAGE_SIZE
from runtime.models.operations import DraftTokens, TokenPlaces
from runtime.runner.chains import ChainState, ChainViews, DraftPlaces, slots_of
from runtime.runner.step_inputs import StepViews
from runtime.speculative.fused import FusedHead
from runtime.speculative.growing import GrowingTrees

_WORD_BITS = 32


@dataclass(frozen=True, slots=True)
class TreeState:
    """What a step leaves for the next one, beside `ChainState`; int64."""

    parents: Tensor
    """[max_chains, num_drafts], see `TreeResult`."""
    paths: Tensor
    """[max_chains, num_steps + 1], see `TreeResult`."""
    row_parents: Tensor
    """[max_chains * num_queries]; of the rows of the step that runs."""


def new_tree_state(shape: DraftShape, max_chains: int, device: torch.device) -> TreeState:
    """Of no trees yet."""

    def longs(*sizes: int) -> Tensor:
        return torch.zeros(*sizes, dtype=torch.int64, device=device)

    return TreeState(
        longs(max_chains, shape.num_drafts),
        longs(max_chains, shape.num_steps + 1),
        longs(max_chains * (shape.num_drafts + 1)),
    )


def place_trees(
    views: StepViews, chains: ChainViews, state: ChainState, trees: TreeState, *, num_steps: int, num_positions: int
) -> TreeRows:
    """Move the rows of sequences that decode to where they stand in their trees, in place; see `PlainChains.place_rows`.

    Args:
        num_steps: no tree is deeper.
    Returns: what each of them sees.
    """
    assert chains.parents is not None
    count, num_queries = len(chains.continued), chains.num_queries
    num_rows, numbers = count * num_queries, torch.arange(num_queries, device=chains.continued.device)
    is_continued = (chains.continued >= 0)[:, None]
    before = chains.continued.clamp(min=0)
    extra = torch.where(is_continued, state.num_tokens.index_select(0, before)[:, None] - 1, 0)
    tokens = torch.cat((state.last_ids[:, None], state.drafts), dim=1).index_select(0, before)[:, :num_queries]
    token_ids = views.token_ids[:num_rows].view(count, num_queries)
    token_ids.copy_(torch.where(is_continued, tokens, token_ids))
    drafted = pad(trees.parents.index_select(0, before), (1, 0))[:, :num_queries]
    parents = torch.where(is_continued, drafted, chains.parents.view(count, num_queries).long())
    trees.row_parents[:num_rows].copy_(parents.flatten())
    seen = _ancestors(parents, min(num_steps, num_queries - 1))
    depths = seen.sum(dim=2, dtype=torch.int32) - 1
    positions = views.places.positions[:num_rows].view(count, num_queries)
    bases = positions[:, :1] + extra
    starts, ends = views.tables.page_starts[:count, None], views.tables.page_starts[1 : count + 1, None]
    places = bases + numbers.to(torch.int32)
    views.places.slots[:num_rows].copy_(slots_of(places, starts, ends - starts, views.tables.page_ids).view(-1))
    positions.copy_((bases + depths).clamp(max=num_positions - 1))
    sampled = views.columns.positions[:num_rows].view(count, num_queries)
    sampled.copy_(sampled[:, :1] + extra + depths)
    bases, most = bases[:, 0].contiguous(), ((ends - starts) * PAGE_SIZE)[:, 0]
    return TreeRows(_packed(seen), depths.flatten(), bases, (bases + num_queries).minimum(most))


def accept_trees(
    views: StepViews, chains: ChainViews, samples: Tensor, state: ChainState, trees: TreeState, *, num_steps: int
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Follow each tree's path of chosen tokens, and note what it gave; arguments as for `ChainArithmetic.accept`.

    Args:
        num_steps: no tree is deeper.
    Returns: [num_chains] int64, the token row of each one's newest entry; and the slots of all that is accepted and where they go.
    """
    count, num_queries, num_chains = len(chains.continued), chains.num_queries, len(chains.chain_sequences)
    num_rows, numbers = count * num_queries, torch.arange(num_queries, device=samples.device)
    chosen, ids, parents, slots = (
        part[:num_rows].view(count, num_queries)
        for part in (samples, views.token_ids, trees.row_parents, views.places.slots)
    )
    is_draft = (numbers > 0) & (numbers <= chains.num_drafts[:, None])
    place = numbers.new_zeros(count, 1)
    accepted, going_on, path = place[:, 0], is_draft.any(dim=1), [place]
    for _ in range(min(num_steps, num_queries - 1)):
        is_next = is_draft & (parents == place) & (ids == chosen.gather(1, place))
        going_on = going_on & is_next.any(dim=1)
        first = (is_next * (num_queries - numbers)).argmax(dim=1, keepdim=True)
        place = torch.where(going_on[:, None], first, place)
        path.append(torch.where(going_on[:, None], first, 0))
        accepted = accepted + going_on
    paths = torch.cat(path, dim=1)
    trees.paths[:num_chains].zero_()
    trees.paths[:count, : paths.shape[1]].copy_(paths)
    state.num_tokens[:count].copy_(accepted + 1)
    state.last_ids[:count].copy_(chosen.gather(1, place)[:, 0])
    last_rows = torch.arange(count, device=samples.device) * num_queries + place[:, 0]
    if num_chains > count:
        state.num_tokens[count:num_chains].fill_(1)
        state.last_ids[count:num_chains].copy_(samples[num_rows : num_rows + num_chains - count])
        last_rows = torch.cat((last_rows, views.sample_rows[num_rows:].long()))
    # What is not accepted stays where it is.
    sources = torch.where(paths > 0, paths, numbers[: paths.shape[1]])[:, 1:]
    return last_rows, (slots.gather(1, sources).flatten().long(), slots[:, 1 : paths.shape[1]].flatten().long())


class TreeDrafting:
    """How the next trees grow, by the head."""

    def __init__(self, head: FusedHead, attention: VerifyAttention, shape: DraftShape) -> None:
        """`attention`: over the head's pages, of `topk` rows a chain."""
        self._head, self._attention, self._shape = head, attention, shape

    def grow(
        self, hidden: Tensor, start: DraftPlaces, views: StepViews, chains: ChainViews, num_steps: int
    ) -> tuple[Tensor, Tensor]:
        """Drafts, by the target's ids, and their parents; [num_chains, drafts of the level] each, int64.

        Args:
            hidden: [num_chains, hidden_size], of the newest entries, which stand at `start`.
        Beams' entries lie one after the other behind the newest one, `topk` for each step; each sees those on its path.
        """
        head, topk, tables = self._head, self._shape.topk, start.tables
        sequences = chains.chain_sequences.long()
        starts = tables.page_starts[:, None]
        num_pages = views.tables.page_starts.index_select(0, sequences + 1)[:, None] - starts
        behind = start.places.positions[:, None] + 1
        bases = behind - PAGE_SIZE * chains.first_pages[:, None]  # counted from the first page that is looked at
        numbers = torch.arange(topk, device=hidden.device, dtype=torch.int32)
        trees = GrowingTrees(topk)
        beams = trees.grow(head.logits(hidden))
        for step in range(1, num_steps):
            places = bases + topk * (step - 1) + numbers
            slots = slots_of(places, starts, num_pages, tables.page_ids).flatten()
            positions = (behind + step - 1).clamp(max=head.num_positions - 1).repeat(1, topk).flatten()
            tokens = DraftTokens(head.target_ids[beams.ids.flatten()].to(torch.int32))
            parents = hidden.index_select(0, beams.parent_rows)
            entries = head.enter(tokens, parents, TokenPlaces(positions, slots))
            seen = beams.ids.new_zeros(len(bases), topk, topk * step).scatter_(2, beams.path, 1)
            ends = (bases + topk * step).minimum(num_pages * PAGE_SIZE)
            rows = TreeRows(_packed(seen), None, bases[:, 0].contiguous(), ends[:, 0].contiguous())
            hidden = head.ask(entries, self._attention.plan(tables, len(bases), topk, rows))
            beams = trees.grow(head.logits(hidden))
        ids, parents_of = trees.keep(self._shape.drafts_at(num_steps))
        return head.target_ids[ids], parents_of


def _ancestors(parents: Tensor, num_steps: int) -> Tensor:
    """[count, n] → [count, n, n] int32: 1 where a row sees another one of its tree: its ancestors and itself."""
    count, num_rows = parents.shape
    above = torch.arange(num_rows, device=parents.device).expand(count, num_rows)
    seen = torch.zeros(count, num_rows, num_rows, dtype=torch.int32, device=parents.device)
    for _ in range(num_steps + 1):
        seen.scatter_(2, above[:, :, None], 1)
        above = parents.gather(1, above)
    return seen


def _packed(seen: Tensor) -> Tensor:
    """[count, rows, n] of 0 and 1 → [count * rows, ceil(n / 32)] int32, lowest bit first."""
    num_words = -(-seen.shape[2] // _WORD_BITS)
    bits = pad(seen.to(torch.int32), (0, num_words * _WORD_BITS - seen.shape[2])).view(-1, num_words, _WORD_BITS)
    return (bits << torch.arange(_WORD_BITS, dtype=torch.int32, device=seen.device)).sum(dim=2, dtype=torch.int32)
