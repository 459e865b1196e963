"""Chains on the device: where a step's sequences stand, which drafts are accepted, where the next drafts go.

What `runtime.speculative.continuing` and `accepting` do on the host, without the host: lengths and places are numbers on the
device, and whatever needs them reads them there. All of it is capture-safe.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from runtime.attention.device import DeviceTables
from runtime.identifiers import PAGE_SIZE
from runtime.models.operations import TokenPlaces
from runtime.runner.step_inputs import StepViews

_ALIGNMENT = 4
"""In int32 words: kernels load 16 bytes at a time."""


@dataclass(frozen=True, slots=True)
class ChainState:
    """What a step leaves for the next one; int32."""

    num_tokens: Tensor
    """[max_chains]; how many tokens the step gave each chain."""
    last_ids: Tensor
    """[max_chains]; each one's newest token."""
    drafts: Tensor
    """[max_chains, num_steps]"""


@dataclass(frozen=True, slots=True)
class ChainViews:
    """What a step says of its chains, on the device; int32. The first `num_decodes` sequences have a chain each."""

    continued: Tensor
    """[num_decodes]"""
    num_drafts: Tensor
    """[num_decodes]"""
    chain_sequences: Tensor
    """[num_chains]"""
    next_ids: Tensor
    """[num_rows]"""
    first_pages: Tensor
    """[num_chains]; see `SpeculationBatch`."""
    num_queries: int
    """Rows of each sequence that decodes: as many drafts are verified, and one less."""
    parents: Tensor | None = None
    """[num_decodes * num_queries]; see `TreeBatch.parents`."""
    deferred: Tensor | None = None
    """[num_rows]; places in the backlog, of a step that makes no entries."""


@dataclass(frozen=True, slots=True)
class DraftPlaces:
    """Where the entry stands that a draft follows from, and what it attends to."""

    places: TokenPlaces
    tables: DeviceTables


@dataclass(frozen=True, slots=True)
class DraftStart:
    """Where the drafts of a step begin."""

    last_rows: Tensor
    """[num_chains] int32 or int64: the token row of each chain's newest entry."""
    places: list[DraftPlaces]
    """Of each draft; the first follows from the chain's newest entry, which is there already."""


class ChainArithmetic(Protocol):
    """All is enqueued on the current stream and capture-safe."""

    def place_rows(self, views: StepViews, chains: ChainViews, state: ChainState, num_positions: int) -> None:
        """Move the rows of sequences that continue a chain to where it ended, with its token and drafts; in place.

        Args:
            num_positions: positions beyond are of answers that have ended, and are cut off.
        """
        ...

    def accept(
        self,
        views: StepViews,
        chains: ChainViews,
        samples: Tensor,
        state: ChainState,
        *,
        num_steps: int,
        num_positions: int,
    ) -> DraftStart:
        """Count each chain's tokens and note its newest in `state`, and find the places of the next drafts.

        Args:
            samples: [num_samples] int32, the chosen tokens: those of decodes, `num_queries` each, then one a chain.
            num_steps: drafts that will be made.
        """
        ...


class PlainChains:
    """Torch, one small operation after the other: the judge, and what runs on a CPU."""

    def place_rows(self, views: StepViews, chains: ChainViews, state: ChainState, num_positions: int) -> None:
        """See `ChainArithmetic.place_rows`."""
        _place_rows(views, chains, state, num_positions)

    def accept(
        self,
        views: StepViews,
        chains: ChainViews,
        samples: Tensor,
        state: ChainState,
        *,
        num_steps: int,
        num_positions: int,
    ) -> DraftStart:
        """See `ChainArithmetic.accept`."""
        last_rows = _accept(views, chains, samples, state)
        return DraftStart(last_rows, draft_places(views, chains, last_rows, num_steps, num_positions))


def _place_rows(views: StepViews, chains: ChainViews, state: ChainState, num_positions: int) -> None:
    """Move the rows of sequences that continue a chain to where it ended, with its token and drafts; in place.

    Args:
        num_positions: positions beyond are of answers that have ended, and are cut off.
    """
    num_decodes, num_queries = len(chains.continued), chains.num_queries
    num_rows = num_decodes * num_queries
    is_continued = chains.continued >= 0
    before = chains.continued.clamp(min=0)
    extra = torch.where(is_continued, state.num_tokens.index_select(0, before) - 1, 0)
    drafts = state.drafts.index_select(0, before)[:, : num_queries - 1]
    tokens = torch.cat((state.last_ids.index_select(0, before)[:, None], drafts), dim=1)
    token_ids = views.token_ids[:num_rows].view(num_decodes, num_queries)
    token_ids.copy_(torch.where(is_continued[:, None], tokens, token_ids))
    positions = views.places.positions[:num_rows].view(num_decodes, num_queries)
    positions.add_(extra[:, None])
    starts, ends = views.tables.page_starts[:num_decodes], views.tables.page_starts[1 : num_decodes + 1]
    slots = slots_of(positions, starts[:, None], (ends - starts)[:, None], views.tables.page_ids)
    views.places.slots[:num_rows].copy_(slots.view(-1))
    positions.clamp_(max=num_positions - 1)
    views.tables.context_lengths[:num_decodes].add_(extra)
    if num_queries == 1:  # Kernels of plain decodes trust a length. What is cut off is of answers that have ended.
        longest = views.tables.context_lengths[:num_decodes].minimum((ends - starts) * PAGE_SIZE)
        views.tables.context_lengths[:num_decodes].copy_(longest)
    views.columns.positions[:num_rows].view(num_decodes, num_queries).add_(extra[:, None])


def slots_of(positions: Tensor, page_starts: Tensor, num_pages: Tensor, page_ids: Tensor) -> Tensor:
    """Where the keys and values of positions go: into the sequence's pages, or page 0 for what is beyond them.

    Args:
        positions: int32, of any shape; `page_starts` and `num_pages` fit it.
    """
    page, offset = positions // PAGE_SIZE, positions % PAGE_SIZE
    inside = torch.minimum(page, num_pages - 1)
    ids = page_ids[(page_starts + inside).long()]
    return torch.where(page < num_pages, ids * PAGE_SIZE + offset, offset)


def _accept(views: StepViews, chains: ChainViews, samples: Tensor, state: ChainState) -> Tensor:
    """Count each chain's tokens, and note its newest.

    Args:
        samples: [num_samples] int32, the chosen tokens: those of decodes, `num_queries` each, then one a chain.
    Returns: [num_chains] int64: the token row whose entry the next drafts begin behind.
    """
    num_decodes, num_steps = len(chains.continued), chains.num_queries - 1
    num_rows, num_chains = num_decodes * (num_steps + 1), len(chains.chain_sequences)
    chosen = samples[:num_rows].view(num_decodes, num_steps + 1)
    drafts = views.token_ids[:num_rows].view(num_decodes, num_steps + 1)[:, 1:]
    places = torch.arange(num_steps, device=samples.device, dtype=torch.int32)
    is_chosen = (chosen[:, :-1] == drafts) & (places < chains.num_drafts[:, None])
    accepted = is_chosen.to(torch.int32).cumprod(dim=1).sum(dim=1, dtype=torch.int32)
    state.num_tokens[:num_decodes].copy_(accepted + 1)
    last = accepted[:, None].long()
    state.last_ids[:num_decodes].copy_(chosen.gather(1, last)[:, 0])
    first_rows = torch.arange(num_decodes, device=samples.device) * (num_steps + 1)
    last_rows = first_rows + accepted
    if num_chains > num_decodes:
        state.num_tokens[num_decodes:num_chains].fill_(1)
        state.last_ids[num_decodes:num_chains].copy_(samples[num_rows : num_rows + num_chains - num_decodes])
        last_rows = torch.cat((last_rows, views.sample_rows[num_rows:].long()))
    return last_rows


def draft_places(
    views: StepViews, chains: ChainViews, last_rows: Tensor, num_steps: int, num_positions: int
) -> list[DraftPlaces]:
    """For each draft, where the entry before it stands and what that attends to: from the rows `last_rows` on.

    Tables begin, and lengths count, from the first page that a chain looks at; positions and slots are its sequence's.
    """
    tables = views.tables
    sequences = chains.chain_sequences.long()
    starts = tables.page_starts.index_select(0, sequences)
    num_pages = tables.page_starts.index_select(0, sequences + 1) - starts
    count = len(sequences)
    # Each draft's columns begin at multiples of 16 bytes.
    columns = torch.zeros(3, num_steps, -(-count // _ALIGNMENT) * _ALIGNMENT, device=starts.device, dtype=torch.int32)
    steps = torch.arange(num_steps, device=starts.device, dtype=torch.int32)[:, None]
    positions = views.places.positions.index_select(0, last_rows)[None, :] + steps
    columns[0, :, :count] = positions.clamp(max=num_positions - 1)
    columns[1, :, :count] = slots_of(positions, starts, num_pages, tables.page_ids)
    columns[2, :, :count] = torch.minimum(positions + 1, num_pages * PAGE_SIZE) - chains.first_pages * PAGE_SIZE
    starts = starts + chains.first_pages
    return [
        DraftPlaces(
            TokenPlaces(columns[0, step, :count], columns[1, step, :count]),
            DeviceTables(
                tables.query_starts, columns[2, step, :count], starts, tables.page_ids, tables.last_page_lengths
            ),
        )
        for step in range(num_steps)
    ]
