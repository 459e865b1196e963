"""Steps by graphs and by kernels give what the reference runner gives: the same weights, the same batches, side by side."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runtime.batch import ModelRunner, StepBatch, StepResult
from runtime.identifiers import PAGE_SIZE
from runtime.runner.building import build_runner
from runtime.runner.torch_runner import TorchRunner
from tests.support.device_runners import PlainDevice, build_plain_device
from tests.support.step_batches import Chunk, sampling_batch, step_batch
from tests.unit.runtime.runner.conftest import LLAMA, SLIDING_QWEN

PROMPT = np.random.default_rng(0).integers(0, 331, 41).tolist()
NUM_PAGES = 32


@pytest.fixture(params=[LLAMA, SLIDING_QWEN], ids=["llama", "sliding-qwen"])
def pair(
    request: pytest.FixtureRequest, model_folder: Callable[[dict[str, Any]], Path]
) -> tuple[PlainDevice, TorchRunner]:
    folder = model_folder(request.param)
    return (
        build_plain_device(folder, num_pages=NUM_PAGES, cuda_graph_max_bs=20, dummy=True),
        build_runner(folder, num_pages=NUM_PAGES, load_format="dummy"),
    )


def run(runner: ModelRunner, batch: StepBatch) -> StepResult:
    return runner.launch(batch).result()


def assert_equal(given: StepResult, expected: StepResult) -> None:
    assert given.token_ids.tolist() == expected.token_ids.tolist()
    assert given.is_finite.tolist() == expected.is_finite.tolist()
    for mine, theirs in ((given.logprobs, expected.logprobs), (given.prompt_logprobs, expected.prompt_logprobs)):
        assert (mine is None) == (theirs is None)
        if mine is not None and theirs is not None:
            np.testing.assert_allclose(mine.chosen, theirs.chosen, atol=1e-4)
            np.testing.assert_allclose(mine.top_values, theirs.top_values, atol=1e-4)
            assert mine.top_ids.tolist() == theirs.top_ids.tolist()


def changed_pages(before: torch.Tensor, after: torch.Tensor) -> set[int]:
    changed = (~((after == before) | (after.isnan() & before.isnan()))).flatten(2)
    return set(changed.any(dim=2).any(dim=0).nonzero()[:, 0].tolist())


def prefill(num_sequences: int) -> StepBatch:
    return step_batch([Chunk(PROMPT[: 3 + index % 9], 0, [1 + index]) for index in range(num_sequences)])


def decode(num_sequences: int, **sampling: Any) -> StepBatch:
    """Each of the sequences of `prefill` goes on with its token of the step before."""
    chunks = [Chunk([0], 3 + index % 9, [1 + index], previous_row=index) for index in range(num_sequences)]
    return step_batch(chunks, sampling_batch(num_sequences, **sampling))


@pytest.mark.parametrize("num_sequences", [1, 3, 8])
def test_decodes_run_in_the_smallest_graph_that_holds_them(
    pair: tuple[PlainDevice, TorchRunner], num_sequences: int
) -> None:
    """Tokens are those of the reference, the step says its graph, and padding reads and writes page 0 only."""
    device, reference = pair
    for runner in (device.runner, reference):
        run(runner, prefill(num_sequences))
    before = device.runner.pages.clone()
    given = run(device.runner, decode(num_sequences))
    assert_equal(given, run(reference, decode(num_sequences)))
    assert given.captured_size == num_sequences
    assert changed_pages(before, device.runner.pages) <= {0, *range(1, num_sequences + 1)}


@pytest.mark.parametrize(("num_tokens", "size"), [(3, 16), (16, 16), (17, 32), (41, 64)])
def test_chunks_run_in_the_smallest_pieces_that_hold_them(
    pair: tuple[PlainDevice, TorchRunner], num_tokens: int, size: int
) -> None:
    """Beside a decode or alone: tokens are those of the reference, and padding reads and writes page 0 only."""
    device, reference = pair
    for runner in (device.runner, reference):
        run(runner, prefill(1))
    alone = step_batch([Chunk(PROMPT[:num_tokens], 0, [2, 3, 4])])
    mixed = step_batch(
        [Chunk([0], 3, [1], previous_row=0), Chunk(PROMPT[: num_tokens - 1], 0, [5, 6, 7])], sampling_batch(2)
    )
    for batch in (mixed, alone):
        before = device.runner.pages.clone()
        given = run(device.runner, batch)
        assert_equal(given, run(reference, batch))
        assert given.captured_size == size
        written = {int(slot) // PAGE_SIZE for slot in batch.slots}
        assert changed_pages(before, device.runner.pages) <= {0} | written


def test_pieces_of_one_size_serve_every_number_of_sequences(pair: tuple[PlainDevice, TorchRunner]) -> None:
    """Their inputs lie at the same addresses, whatever else a step has: steps of one size in turn, each its own result."""
    device, reference = pair
    for num_sequences in (1, 4, 2):
        chunks = [Chunk(PROMPT[index : index + 7], 0, [1 + index]) for index in range(num_sequences)]
        chunks.append(Chunk(PROMPT[: 30 - 7 * num_sequences], 0, [9, 10]))
        given = run(device.runner, step_batch(chunks))
        assert_equal(given, run(reference, step_batch(chunks)))
        assert given.captured_size == 32


def test_a_step_that_samples_nothing_leaves_what_the_next_one_reads(pair: tuple[PlainDevice, TorchRunner]) -> None:
    """The first chunk of a prompt, by pieces or kernel by kernel: the second goes on behind it."""
    device, reference = pair
    for first in (25, 41 + 30):
        tokens = [*PROMPT, *PROMPT]
        pages = list(range(1, 8))
        nothing = replace(
            step_batch([Chunk(tokens[:first], 0, pages)]),
            sample_rows=np.zeros(0, np.int32),
            sampling=sampling_batch(0),
        )
        assert_equal(run(device.runner, nothing), run(reference, nothing))
        rest = step_batch([Chunk(tokens[first : first + 9], first, pages)])
        assert_equal(run(device.runner, rest), run(reference, rest))


def test_a_step_larger_than_all_pieces_still_runs(pair: tuple[PlainDevice, TorchRunner]) -> None:
    """Outside of any graph, and the step says so."""
    device, reference = pair
    batch = step_batch([Chunk(PROMPT, 0, [1, 2, 3]), Chunk(PROMPT[:30], 0, [4, 5])])
    given = run(device.runner, batch)
    assert_equal(given, run(reference, batch))
    assert given.captured_size == 0


def test_embeddings_are_those_of_the_reference(pair: tuple[PlainDevice, TorchRunner]) -> None:
    """Rows of the ends of prompts, by pieces and by a graph of the whole pass."""
    device, reference = pair
    for num_sequences, tokens, size in ((3, 5, 16), (2, 1, 2)):
        chunks = [Chunk(PROMPT[index : index + tokens], 0, [1 + index]) for index in range(num_sequences)]
        ends = np.arange(1, num_sequences + 1, dtype=np.int32) * tokens - 1
        batch = replace(step_batch(chunks), embedding_rows=ends)
        given, expected = run(device.runner, batch), run(reference, batch)
        assert given.embeddings is not None
        assert expected.embeddings is not None
        assert given.embeddings.shape[0] == num_sequences
        assert given.captured_size == size
        np.testing.assert_allclose(given.embeddings, expected.embeddings, atol=1e-4)


def test_a_batch_between_two_sizes_is_padded(pair: tuple[PlainDevice, TorchRunner]) -> None:
    """Nine decodes take the next graph; nothing of the padding reaches the result."""
    device, reference = pair
    for runner in (device.runner, reference):
        run(runner, prefill(9))
    given = run(device.runner, decode(9))
    assert_equal(given, run(reference, decode(9)))
    assert given.captured_size == 16


def test_more_decodes_than_the_largest_graph_still_run(pair: tuple[PlainDevice, TorchRunner]) -> None:
    """They run outside of any, and the step says so."""
    device, reference = pair
    for runner in (device.runner, reference):
        run(runner, prefill(21))
    given = run(device.runner, decode(21))
    assert_equal(given, run(reference, decode(21)))
    assert given.captured_size == 0


def test_mixed_steps_scores_and_logprobs(pair: tuple[PlainDevice, TorchRunner]) -> None:
    """Decodes beside a prompt's chunk, one row sampled twice, prompt logprobs and the samples' own."""
    device, reference = pair
    for runner in (device.runner, reference):
        run(runner, prefill(2))
    chunks = [Chunk([0], 3, [1], previous_row=0), Chunk([0], 4, [2], previous_row=1), Chunk(PROMPT, 0, [5, 6, 7])]
    sampling = sampling_batch(4, num_logprobs=[2, -1, 0, 3], temperature=[0, 1, 1, 1], seed=[0, 5, 6, 7], position=40)
    batch = replace(
        step_batch(chunks, sampling),
        sample_rows=np.array([0, 1, 42, 42], np.int32),
        prompt_logprob_rows=np.arange(2, 42, dtype=np.int32),
        prompt_logprob_targets=np.array(PROMPT[1:], np.int64),
        prompt_logprob_counts=np.full(40, 2, np.int32),
    )
    given = run(device.runner, batch)
    assert_equal(given, run(reference, batch))
    assert given.captured_size == 64


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0.8, "seed": [3, 4, 5], "position": [3, 4, 5]},
        {"temperature": [0.0, 1.0, 0.7], "top_p": [1.0, 0.5, 0.9], "seed": 9, "position": 5},
        {"temperature": 1.0, "top_k": [0, 3, 1], "min_p": [0.1, 0.0, 0.0]},
        {"banned_rows": [1], "banned_ids": [7], "bias_rows": [0, 0], "bias_ids": [5, 6], "bias_values": [90.0, 91.0]},
        {"repetition_penalty": 1.5, "seen_rows": [0, 2], "seen_ids": [1, 2], "seen_prompt_counts": [1, 0],
         "seen_output_counts": [0, 3]},
    ],
    ids=["noise", "top-p", "top-k and min-p", "bias and bans", "penalties"],
)  # fmt: skip
def test_sampling_is_that_of_the_reference(pair: tuple[PlainDevice, TorchRunner], sampling: dict[str, Any]) -> None:
    """In a graph, whether the captured choice is enough or the full sampler has the last word; and so is the next step."""
    device, reference = pair
    for runner in (device.runner, reference):
        run(runner, prefill(3))
    given = run(device.runner, decode(3, **sampling))
    assert given.captured_size == 3
    assert_equal(given, run(reference, decode(3, **sampling)))
    follow = step_batch([Chunk([0], 4 + index, [1 + index], previous_row=index) for index in range(3)])
    assert_equal(run(device.runner, follow), run(reference, follow))


def test_three_steps_may_be_in_flight(pair: tuple[PlainDevice, TorchRunner]) -> None:
    """Results are read late, and each is its own step's."""
    device, reference = pair
    launched = [device.runner.launch(prefill(3)), device.runner.launch(decode(3))]
    expected = [run(reference, prefill(3)), run(reference, decode(3))]
    for step, want in zip(launched, expected, strict=True):
        assert_equal(step.result(), want)


def test_broken_logits_are_flagged(pair: tuple[PlainDevice, TorchRunner]) -> None:
    """A sequence that reads NaN from its cache gets a flag; its neighbour does not."""
    device, _ = pair
    run(device.runner, prefill(2))
    with torch.inference_mode():
        device.runner.pages[:, 1] = torch.nan
    assert run(device.runner, decode(2)).is_finite.tolist() == [False, True]
