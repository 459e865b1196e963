"""`runtime.kernels.chains`, interpreted: the same numbers as in plain torch, for sequences of every kind at once."""

import numpy as np
import pytest
import torch
from torch import Tensor

from runtime.batch import SpeculationBatch, StepBatch
from runtime.kernels.operations import FusedOperations
from runtime.layers.norm import RMSNorm
from runtime.models.operations import DraftTokens, PlainOperations
from runtime.runner.chain_inputs import layout_of, pack_chains
from runtime.runner.chains import ChainArithmetic, ChainState, PlainChains
from runtime.runner.fused_chains import FusedChains
from runtime.runner.step_inputs import StepLayout, StepShape, StepViews, build_tables, pack_step
from runtime.runner.uniform import UniformStep, make_uniform
from tests.support.kernel_checks import LAUNCHER
from tests.support.step_batches import sampling_batch

NUM_STEPS = 3


def mixed_step() -> UniformStep:
    """Four sequences that verify (some continue chains, one reaches beyond its pages) and two chunks, one of them sampled."""
    lengths = np.array([4, 1, 3, 2, 5, 6])
    contexts = np.array([20, 31, 47, 15, 5, 40], np.int32)
    starts = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    positions = np.concatenate([np.arange(end - n, end) for end, n in zip(contexts, lengths, strict=True)])
    tables = np.arange(1, 25, dtype=np.int32).reshape(6, 4)
    num_pages = np.array([2, 2, 3, 1, 1, 3], np.int32)
    tables[np.arange(4) >= num_pages[:, None]] = 0
    sequences = np.repeat(np.arange(6), lengths)
    samples = [*range(10), starts[5] - 1]
    batch = StepBatch(
        token_ids=np.arange(len(positions)) % 50,
        previous_rows=np.full(len(positions), -1, np.int32),
        positions=positions,
        slots=tables[sequences, positions // 16].astype(np.int64) * 16 + positions % 16,
        query_starts=starts,
        context_lengths=contexts,
        page_tables=tables,
        sample_rows=np.array(samples, np.int32),
        sampling=sampling_batch(len(samples), position=np.arange(len(samples))),
        page_copies=np.zeros((0, 2), np.int32),
        speculation=SpeculationBatch(
            num_decodes=4,
            num_pages=num_pages,
            chain_starts=np.array([0, 4, 5, 8, 10, 11], np.int32),
            continued=np.array([2, -1, 0, 4, -1, -1], np.int32),
            num_drafts=np.array([3, 0, 2, 1, 0, 0], np.int32),
            next_ids=np.full(len(positions), 7, np.int64),
            num_steps=NUM_STEPS,
            drafts=np.ones(5, np.bool_),
            first_pages=np.array([1, 0, 1, 0, 2], np.int32),
        ),
    )
    return make_uniform(batch, NUM_STEPS + 1, 4)


def run(arithmetic: ChainArithmetic, step: UniformStep) -> list[Tensor]:
    """Place, choose some of the drafts, accept; everything that was written."""
    batch = step.batch
    tables = build_tables(batch, 6)
    layout = StepLayout(StepShape(len(batch.token_ids), 6, len(batch.sample_rows)))
    words, chain_words = np.zeros(1000, np.int32), np.zeros(1000, np.int32)
    pack_step(words, layout, batch, tables)
    chain_layout = layout_of(step)
    pack_chains(chain_words, chain_layout, step)
    views = StepViews(torch.from_numpy(words), layout)
    chains = chain_layout.views(torch.from_numpy(chain_words))
    generator = torch.Generator().manual_seed(0)
    state = ChainState(
        torch.tensor([3, 1, 2, 4, 4, 1, 1, 1], dtype=torch.int32),
        torch.randint(50, (8,), generator=generator).int(),
        torch.randint(50, (8, NUM_STEPS), generator=generator).int(),
    )
    arithmetic.place_rows(views, chains, state, 49)
    placed = [words.copy()]
    samples = torch.randint(50, (len(batch.sample_rows),), generator=generator).int()
    tokens = views.token_ids[:16].view(4, 4)
    chosen = samples[:16].view(4, 4)
    chosen[0, :3] = tokens[0, 1:]  # all of them
    chosen[1, :3] = tokens[1, 1:]  # as many, but the sequence verifies none
    chosen[2, 0] = tokens[2, 1]
    chosen[3, 1] = tokens[3, 2]  # behind one that was not chosen
    start = arithmetic.accept(views, chains, samples, state, num_steps=NUM_STEPS, num_positions=49)
    assert state.num_tokens[:5].tolist() == [4, 1, 2, 1, 1]
    return [
        *(torch.from_numpy(array) for array in placed),
        state.num_tokens,
        state.last_ids,
        start.last_rows.int(),
        *(part for place in start.places for part in (place.places.positions, place.places.slots)),
        *(place.tables.context_lengths for place in start.places),
        *(place.tables.page_starts for place in start.places),
    ]


def test_chains_are_placed_and_accepted_as_in_torch() -> None:
    """Ids, positions, slots, lengths, sampling positions, counts, and where the next drafts go."""
    step = mixed_step()
    for fused, plain in zip(run(FusedChains(LAUNCHER), step), run(PlainChains(), step), strict=True):
        assert torch.equal(fused, plain)


@pytest.mark.parametrize("is_mapped", [True, False])
def test_tokens_and_hidden_states_are_joined_as_in_torch(is_mapped: bool) -> None:
    """Ids of the draft vocabulary are translated and noted on the way."""
    generator = torch.Generator().manual_seed(1)
    table, hidden = (torch.randn(count, 24, generator=generator).half() for count in (50, 5))
    norms = tuple(RMSNorm(torch.rand(24, generator=generator).half(), 1e-5) for _ in range(2))
    ids = torch.tensor([3, 0, 9, 9, 7], dtype=torch.int32)
    results = []
    for operations in (
        FusedOperations(LAUNCHER, max_samples=5, vocab_size=50, device=torch.device("cpu"), dependent_launch=False),
        PlainOperations(),
    ):
        drafts = torch.zeros(8, NUM_STEPS, dtype=torch.int32)
        tokens = DraftTokens(ids, torch.arange(10) * 5, drafts, 1) if is_mapped else DraftTokens(ids)
        results.append((operations.join_normed(tokens, table, hidden, (norms[0], norms[1])), drafts))
    torch.testing.assert_close(results[0][0], results[1][0], atol=2e-3, rtol=2e-3)
    assert torch.equal(results[0][1], results[1][1])
    assert (results[0][1][:5, 1].tolist() == (ids * 5).tolist()) == is_mapped
