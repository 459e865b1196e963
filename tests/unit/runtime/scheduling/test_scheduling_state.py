"""Seeds, counts of tokens, the estimate of outputs, and the arrays of running sequences."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.request import GenerationRequest, SamplingParams
from runtime.scheduling.estimate import OutputEstimate
from runtime.scheduling.requests import Request, build_request, choice_seed
from runtime.scheduling.sampling_table import SamplingTable
from runtime.scheduling.seen import SeenTokens
from runtime.scheduling.table import SequenceTable

EOS = 2


def build(prompt: list[int], n: int = 1, **sampling: Any) -> Request:
    asked = GenerationRequest(request_id=1, prompt=prompt, n=n, sampling=SamplingParams(**sampling))
    return build_request(asked, arrival=1, eos_token_ids=(EOS,), is_internal=False)


def test_first_choice_has_the_seed_of_the_request() -> None:
    """So n = 1 gives what choice 0 of n = 4 gives."""
    assert choice_seed(7, 0) == 7


def test_choices_of_neighbouring_seeds_differ() -> None:
    """No two choices of the requests with seeds 0..99 share a seed, and all are in the bounds of a seed."""
    seeds = [choice_seed(seed, choice) for seed in range(100) for choice in range(64)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 1 << 63 for seed in seeds)


@given(prompt=st.lists(st.integers(0, 30), min_size=1), output=st.lists(st.integers(0, 60)))
def test_seen_tokens_equal_a_recount(prompt: list[int], output: list[int]) -> None:
    """Whatever the tokens, ids are distinct and both counts are right."""
    seen = SeenTokens(np.array(prompt, np.int32))
    for token in output:
        seen.add(token)
    counted = dict(
        zip(seen.ids.tolist(), zip(seen.prompt_counts.tolist(), seen.output_counts.tolist(), strict=True), strict=True)
    )
    assert counted == {token: (prompt.count(token), output.count(token)) for token in {*prompt, *output}}
    assert len(seen.ids) == len(counted)


def test_estimate_follows_what_answers_really_use() -> None:
    """Short answers lower it, long ones raise it."""
    estimate = OutputEstimate()
    for _ in range(300):
        estimate.observe(10, 100)
    assert estimate.remaining_of_one(0, 1000) == pytest.approx(100, abs=5)
    for _ in range(300):
        estimate.observe(100, 100)
    assert estimate.remaining_of_one(0, 1000) == pytest.approx(1000, abs=5)


def test_retraction_raises_the_estimate_up_to_all() -> None:
    """At most `max_tokens` is expected."""
    estimate = OutputEstimate()
    for _ in range(50):
        estimate.raise_after_retraction()
    assert estimate.remaining_of_one(0, 1000) == 1000
    assert estimate.remaining_of_one(999, 1000) == 1


def test_answer_beyond_the_estimate_is_expected_to_go_on_a_page() -> None:
    """It has not ended yet, so something is still to come."""
    assert OutputEstimate().remaining_of_one(800, 1000) == 16
    assert OutputEstimate().remaining_of_one(995, 1000) == 5


def test_ending_ids_join_model_and_request() -> None:
    """`ignore_eos` leaves the request's own stop ids in force."""
    assert build([1], stop_token_ids=(5,)).ending_ids == {EOS, 5}
    assert build([1], stop_token_ids=(5,), ignore_eos=True).ending_ids == {5}


def test_sampling_batch_has_each_rows_own_parameters() -> None:
    """Dense columns follow the rows, a row may occur for several samples, sparse entries name the sample and not the row."""
    table = SamplingTable(4)
    plain = build([1], temperature=0.5, seed=9)
    biased = build([3, 3, 4], temperature=0.25, logit_bias={7: 1.5, 8: -1.0}, frequency_penalty=0.5, min_tokens=2)
    table.set(2, plain, plain.choices[0])
    table.set(0, biased, biased.choices[0])
    seen = biased.choices[0].seen
    assert seen is not None
    seen.add(7)
    batch = table.gather(np.array([2, 0, 2]), np.array([1, 4, 1]))
    assert batch.temperature.tolist() == [0.5, 0.25, 0.5]
    assert batch.seed.tolist() == [9, 0, 9]
    assert batch.position.tolist() == [1, 4, 1]
    assert (batch.bias_rows.tolist(), batch.bias_ids.tolist(), batch.bias_values.tolist()) == (
        [1, 1],
        [7, 8],
        [1.5, -1.0],
    )
    assert batch.seen_rows.tolist() == [1, 1, 1]
    entries = zip(
        batch.seen_ids.tolist(), batch.seen_prompt_counts.tolist(), batch.seen_output_counts.tolist(), strict=True
    )
    assert sorted(entries) == [(3, 2, 0), (4, 1, 0), (7, 0, 1)]
    assert (batch.banned_rows.tolist(), batch.banned_ids.tolist()) == ([1], [EOS])


def test_ending_ids_are_allowed_from_the_least_length_on() -> None:
    """With a prompt of 3 and `min_tokens` 2 the token at position 4 may not end, the one at 5 may."""
    table = SamplingTable(1)
    request = build([3, 3, 4], min_tokens=2)
    table.set(0, request, request.choices[0])
    assert table.gather(np.array([0]), np.array([4])).banned_ids.tolist() == [EOS]
    assert table.gather(np.array([0]), np.array([5])).banned_ids.tolist() == []


def test_row_that_was_freed_is_blank() -> None:
    """The next sequence in a row finds nothing of the one before."""
    table = SequenceTable(2, 64)
    sequence = build([1] * 20).choices[0].sequence
    assert sequence is not None
    row = table.add(sequence, sequence.tokens())
    table.append_pages(row, np.array([5, 6], np.int32))
    table.cached[row] = 20
    table.check_integrity()
    table.remove(sequence)
    table.check_integrity()
    assert not table.pages.any()
    assert table.num_free_rows == 2


def test_integrity_check_sees_pages_that_do_not_fit() -> None:
    """20 tokens need two pages, not one."""
    table = SequenceTable(2, 64)
    sequence = build([1] * 20).choices[0].sequence
    assert sequence is not None
    row = table.add(sequence, sequence.tokens())
    table.append_pages(row, np.array([5], np.int32))
    table.cached[row] = 20
    with pytest.raises(AssertionError, match="do not fit"):
        table.check_integrity()
