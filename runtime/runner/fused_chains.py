"""Chains on a GPU by two kernels of ours: `chains`, made fast."""

from torch import Tensor

from runtime.attention.device import DeviceTables
from runtime.identifiers import PAGE_SIZE
from runtime.kernels.chains import accept_drafts, place_rows
from runtime.kernels.launching import Launcher
from runtime.models.operations import TokenPlaces
from runtime.runner.chains import ChainState, ChainViews, DraftPlaces, DraftStart
from runtime.runner.step_inputs import StepViews


class FusedChains:
    """See `ChainArithmetic`."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher

    def place_rows(self, views: StepViews, chains: ChainViews, state: ChainState, num_positions: int) -> None:
        """See `ChainArithmetic.place_rows`."""
        place_rows(
            views.token_ids,
            views.places.positions,
            views.places.slots,
            views.tables.context_lengths,
            views.columns.positions,
            page_starts=views.tables.page_starts,
            page_ids=views.tables.page_ids,
            continued=chains.continued,
            num_tokens=state.num_tokens,
            last_ids=state.last_ids,
            drafts=state.drafts,
            num_queries=chains.num_queries,
            num_positions=num_positions,
            launcher=self._launcher,
        )

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
        tables = views.tables
        last_rows, starts, columns = accept_drafts(
            views.token_ids,
            views.places.positions,
            samples,
            views.sample_rows,
            num_drafts=chains.num_drafts,
            chain_sequences=chains.chain_sequences,
            page_starts=tables.page_starts,
            page_ids=tables.page_ids,
            num_tokens=state.num_tokens,
            last_ids=state.last_ids,
            num_queries=chains.num_queries,
            num_steps=num_steps,
            num_positions=num_positions,
            launcher=self._launcher,
        )
        if num_steps:
            starts.add_(chains.first_pages)
            columns[2].sub_(chains.first_pages, alpha=PAGE_SIZE)
        places = [
            DraftPlaces(
                TokenPlaces(columns[0, step], columns[1, step]),
                DeviceTables(tables.query_starts, columns[2, step], starts, tables.page_ids, tables.last_page_lengths),
            )
            for step in range(num_steps)
        ]
        return DraftStart(last_rows, places)
