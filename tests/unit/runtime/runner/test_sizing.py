"""The step by which memory is measured: as large as there may be, and within what the runner was built for."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.draft_shape import NO_DRAFTS, DraftShape, draft_chain
from runtime.identifiers import PAGE_SIZE
from runtime.runner.sizing import largest_step
from runtime.speculative.source import HeadSource
from tests.support.device_runners import build_plain_device
from tests.support.draft_heads import write_head, write_target


@given(chunk=st.integers(1, 600), num_sequences=st.integers(1, 40), context_length=st.integers(1, 700))
def test_everything_is_within_the_limits(chunk: int, num_sequences: int, context_length: int) -> None:
    """Tokens of prompts have slots of their own, where the tables say; all of the chunk is there, if the sequences hold it."""
    step = largest_step(chunk, num_sequences, context_length)
    lengths = np.diff(step.query_starts)
    assert len(lengths) == len(step.page_tables) == len(step.sample_rows) == num_sequences
    assert (step.context_lengths == lengths).all()
    assert lengths.max() <= context_length
    prompts = step.page_tables[:, 0] > 0
    assert lengths[prompts].sum() == min(chunk, num_sequences * context_length)
    assert (lengths[~prompts] == 1).all()
    used = [table[: -(-length // PAGE_SIZE)] for table, length in zip(step.page_tables, lengths, strict=True)]
    assert sum(map(len, used)) <= num_sequences * -(-context_length // PAGE_SIZE)
    pages = np.repeat(np.arange(num_sequences), lengths)
    expected = step.page_tables[pages, step.positions // PAGE_SIZE] * PAGE_SIZE + step.positions % PAGE_SIZE
    assert (step.slots == expected).all()
    of_prompts = step.slots[np.repeat(prompts, lengths)]
    assert len(np.unique(of_prompts)) == len(of_prompts)


@pytest.mark.parametrize("shape", [NO_DRAFTS, draft_chain(3), DraftShape(3, 2, 5)], ids=["plain", "chain", "tree"])
@pytest.mark.parametrize("num_sequences", [1, 8])
def test_a_chunk_longer_than_a_context_is_of_several_prompts(
    tmp_path: Path, num_sequences: int, shape: DraftShape
) -> None:
    """The runner computes the whole step twice; the model has 256 positions, and a table of turns for no more."""
    head = HeadSource(write_head(tmp_path / "head")) if shape.num_steps else None
    folder = write_target(tmp_path / "target")
    step = largest_step(500, num_sequences, 256, shape)
    device = build_plain_device(
        folder, num_pages=int(step.page_tables.max()) + 1, max_sequences=num_sequences, head=head,
        num_steps=shape.num_steps, tree=(shape.topk, shape.num_drafts + 1) if shape.is_tree else None,
    )  # fmt: skip
    for _ in range(2):
        result = device.runner.launch(step).result()
        assert len(result.token_ids) == num_sequences
        assert result.is_finite.all()
