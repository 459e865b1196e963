"""What a step says of its inputs, on the host."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from runtime.identifiers import PAGE_SIZE
from runtime.runner.step_inputs import writes_apart
from tests.support.step_batches import Chunk, step_batch

SEQUENCES = st.lists(
    st.tuples(st.lists(st.integers(1, 9), min_size=1, max_size=4, unique=True), st.sampled_from([1, 7, PAGE_SIZE])),
    min_size=1,
    max_size=5,
)
"""Pages, and tokens in the last of them."""


@given(SEQUENCES)
def test_writes_are_apart_unless_a_filled_page_is_in_another_table(sequences: list[tuple[list[int], int]]) -> None:
    """Said for every step by the slow definition: pages that are not full are nobody else's, whatever the tables say."""
    chunks = [Chunk([5], (len(pages) - 1) * PAGE_SIZE + tokens - 1, pages) for pages, tokens in sequences]
    filled = [(i, pages[-1]) for i, (pages, tokens) in enumerate(sequences) if tokens == PAGE_SIZE]
    if len({page for _, page in filled}) < len(filled):
        return
    read = any(page in pages for i, page in filled for j, (pages, _) in enumerate(sequences) if j != i)
    batch = step_batch(chunks)
    assert writes_apart(batch) != read
    assert batch.page_tables.dtype == np.int32
