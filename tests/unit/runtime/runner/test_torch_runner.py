"""One step: what is sampled, scored, copied and refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from runtime.batch import ModelRunner, StepBatch, StepResult
from runtime.runner.rows import WholeRows
from runtime.runner.torch_runner import TorchRunner
from tests.support.step_batches import Chunk, sampling_batch, step_batch

PROMPT = np.random.default_rng(0).integers(0, 331, 41).tolist()
PAGES = [5, 2, 9, 11]


def run(runner: TorchRunner, batch: StepBatch) -> StepResult:
    return runner.launch(batch).result()


def logprobs_after(runner: TorchRunner, chunk: Chunk) -> list[float]:
    """The twenty best logprobs after the chunk's last token."""
    result = run(runner, step_batch([chunk], sampling_batch(1, num_logprobs=20)))
    assert result.logprobs is not None
    values: list[float] = result.logprobs.top_values[0].tolist()
    return values


def test_the_runner_keeps_the_contract(runner: TorchRunner) -> None:
    """It is a ModelRunner, and results have the shapes and dtypes that `batch` states."""
    contract: ModelRunner = runner
    assert (contract.vocab_size, contract.num_pages) == (331, 32)
    sampling = sampling_batch(3, num_logprobs=[-1, 2, 0])
    chunks = [Chunk(PROMPT, 0, PAGES), Chunk(PROMPT[:3], 0, [1]), Chunk(PROMPT[:1], 0, [3])]
    result = run(runner, step_batch(chunks, sampling))
    assert (result.token_ids.dtype, result.token_ids.shape) == (np.int64, (3,))
    assert (result.is_finite.dtype, result.is_finite.tolist()) == (np.bool_, [True] * 3)
    logprobs = result.logprobs
    assert logprobs is not None
    assert (logprobs.chosen.dtype, logprobs.top_ids.dtype, logprobs.top_values.dtype) == (
        np.float32,
        np.int32,
        np.float32,
    )
    assert logprobs.top_ids.shape == logprobs.top_values.shape == (3, 2)
    assert logprobs.chosen[0] == 0.0
    assert not logprobs.top_values[0].any()
    assert logprobs.chosen[1] == logprobs.top_values[1, 0]
    assert result.prompt_logprobs is None
    assert result.captured_size == 0


def test_a_step_without_samples_gives_none(runner: TorchRunner) -> None:
    """A chunk in the middle of a prompt is computed and nothing is sampled."""
    batch = replace(
        step_batch([Chunk(PROMPT[:20], 0, PAGES)]), sample_rows=np.zeros(0, np.int32), sampling=sampling_batch(0)
    )
    assert run(runner, batch).token_ids.shape == (0,)
    expected = logprobs_after(runner, Chunk(PROMPT, 0, [20, 21, 22]))
    assert logprobs_after(runner, Chunk(PROMPT[20:], 20, PAGES)) == expected


def test_tokens_of_the_step_before_are_taken_from_the_device(runner: TorchRunner) -> None:
    """previous_rows names samples of the step before, in whatever order, before its result is fetched."""
    first = runner.launch(step_batch([Chunk(PROMPT[:5], 0, [1]), Chunk(PROMPT[:9], 0, [2])]))
    swapped = [Chunk([0], 9, [2], previous_row=1), Chunk([0], 5, [1], previous_row=0)]
    second = run(runner, step_batch(swapped))
    a, b = first.result().token_ids.tolist()
    alone = [
        int(run(runner, step_batch([Chunk([*PROMPT[:9], b], 0, [7])])).token_ids[0]),
        int(run(runner, step_batch([Chunk([*PROMPT[:5], a], 0, [7])])).token_ids[0]),
    ]
    assert second.token_ids.tolist() == alone


def test_one_row_may_be_sampled_several_times(runner: TorchRunner) -> None:
    """Choices of one prompt share its last row and differ by their seeds."""
    batch = step_batch([Chunk(PROMPT, 0, PAGES)], sampling_batch(40, temperature=1.0, seed=range(40), position=41))
    result = run(runner, replace(batch, sample_rows=np.full(40, 40, np.int32)))
    assert len(set(result.token_ids.tolist())) > 20
    alone = run(runner, step_batch([Chunk(PROMPT, 0, PAGES)], sampling_batch(1, temperature=1.0, seed=7, position=41)))
    assert result.token_ids[7] == alone.token_ids[0]


def test_pages_are_copied_before_the_step(runner: TorchRunner) -> None:
    """A fork of a partly filled page continues as its origin does, and writes into its own copy."""
    run(runner, step_batch([Chunk(PROMPT[:20], 0, [1, 2])]))
    forked = Chunk(PROMPT[20:21], 20, [1, 3])
    batch = step_batch([forked], sampling_batch(1, num_logprobs=20), page_copies=np.array([[2, 3]], np.int32))
    result = run(runner, batch)
    assert result.logprobs is not None
    assert result.logprobs.top_values[0].tolist() == logprobs_after(runner, Chunk(PROMPT[:21], 0, [8, 9]))
    run(runner, step_batch([Chunk([330], 21, [1, 3])]))
    assert logprobs_after(runner, Chunk(PROMPT[20:22], 20, [1, 2])) == logprobs_after(
        runner, Chunk(PROMPT[:22], 0, [8, 9])
    )


def scored_batch(count: int = 3) -> StepBatch:
    """The whole prompt, each of its tokens but the first scored."""
    num_scored = len(PROMPT) - 1
    return step_batch(
        [Chunk(PROMPT, 0, PAGES)],
        prompt_logprob_rows=np.arange(num_scored, dtype=np.int32),
        prompt_logprob_targets=np.array(PROMPT[1:], np.int64),
        prompt_logprob_counts=np.full(num_scored, count, np.int32),
    )


def test_prompt_logprobs_are_those_of_the_next_tokens(runner: TorchRunner) -> None:
    """Each equals the logprob that sampling after that token reports, under the model's own distribution."""
    scored = run(runner, scored_batch()).prompt_logprobs
    assert scored is not None
    assert scored.top_ids.shape == (40, 3)
    every = step_batch([Chunk(PROMPT, 0, PAGES, sample_all=True)], sampling_batch(41, num_logprobs=3, temperature=0.3))
    sampled = run(runner, every).logprobs
    assert sampled is not None
    assert np.array_equal(scored.top_values, sampled.top_values[:-1])
    assert np.array_equal(scored.top_ids, sampled.top_ids[:-1])
    for row, target in enumerate(PROMPT[1:]):
        if target in scored.top_ids[row]:
            assert scored.chosen[row] == scored.top_values[row][list(scored.top_ids[row]).index(target)]
        else:
            assert scored.chosen[row] <= scored.top_values[row, -1]


def test_prompt_logprobs_never_need_the_whole_matrix(runner: TorchRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits of at most `num_scored_at_once` rows exist at a time, however long the prompt, with the same results."""
    expected = run(runner, scored_batch()).prompt_logprobs
    seen: list[int] = []
    logits = runner.testing_only_model.logits

    def spy(hidden: torch.Tensor) -> tuple[torch.Tensor]:
        seen.append(hidden.shape[0])
        return logits(hidden)

    monkeypatch.setattr(runner.testing_only_model, "logits", spy)
    monkeypatch.setattr(WholeRows, "num_scored_at_once", 8)
    monkeypatch.setattr(runner, "grouping", WholeRows())
    found = run(runner, scored_batch()).prompt_logprobs
    assert seen == [1, 8, 8, 8, 8, 8]
    assert expected is not None
    assert found is not None
    np.testing.assert_allclose(found.chosen, expected.chosen, rtol=0, atol=1e-5)


def test_nan_in_one_sequence_is_told_and_stays_there(runner: TorchRunner) -> None:
    """Its row is not finite, its neighbours' rows have the bits they have without it."""
    run(runner, step_batch([Chunk(PROMPT[:20], 0, [1, 2]), Chunk(PROMPT[:20], 0, [3, 4])]))
    decode = [Chunk([5], 20, [1, 2]), Chunk([5], 20, [3, 4])]
    healthy = run(runner, step_batch(decode, sampling_batch(2, num_logprobs=20)))
    with torch.inference_mode():
        runner.pages[1, 1, 1, 3] = torch.nan
    result = run(runner, step_batch(decode, sampling_batch(2, num_logprobs=20, temperature=[1.0, 0.0])))
    assert result.is_finite.tolist() == [False, True]
    assert healthy.logprobs is not None
    assert result.logprobs is not None
    assert np.array_equal(result.logprobs.top_values[1], healthy.logprobs.top_values[1])


@pytest.mark.parametrize(("token_id", "previous_row"), [(331, -1), (-2, -1), (0, 7)])
def test_ids_out_of_range_are_refused(runner: TorchRunner, token_id: int, previous_row: int) -> None:
    """An id beyond the vocabulary, or a sample that the step before did not have, is a bug that must not reach a device."""
    with pytest.raises(ValueError, match="must"):
        runner.launch(step_batch([Chunk([token_id], 0, [1], previous_row=previous_row)]))
