"""Bit-exactness on a CPU: a sequence's logprobs and tokens have the same bits whatever else is computed, and however.

Compared are the twenty best logprobs and the token sampled at temperature 1 after every position, between a sequence run
alone (its whole text in one step) and random schedules: other sequences, other chunks, other rows, prefixes read from
pages that were filled long ago, and computed anew after a retraction.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runtime.runner.building import build_runner
from runtime.runner.rows import AlignedBlocks, PackedBlocks, RowGrouping, choose_grouping
from runtime.runner.torch_runner import TorchRunner
from tests.support.step_batches import Chunk, sampling_batch, step_batch
from tests.unit.runtime.runner.conftest import LLAMA, SLIDING_QWEN

Outcome = tuple[bytes, int]
"""Logprobs' bytes and the sampled token, at one position."""

LENGTHS = (50, 3, 33, 16, 47)
TEXTS = [np.random.default_rng(length).integers(0, 331, length).tolist() for length in LENGTHS]
PAGES = [list(range(1 + 4 * index, 5 + 4 * index)) for index in range(len(LENGTHS))]


def run(runner: TorchRunner, chunks: list[Chunk], sequences: list[int]) -> list[list[Outcome]]:
    """One step; outcomes after each token of each chunk. A sequence's seed is its number."""
    seeds = [index for index, chunk in zip(sequences, chunks, strict=True) for _ in chunk.token_ids]
    positions = [chunk.start + i + 1 for chunk in chunks for i in range(len(chunk.token_ids))]
    sampling = sampling_batch(len(seeds), temperature=1.0, top_p=0.99, seed=seeds, position=positions, num_logprobs=20)
    result = runner.launch(step_batch(chunks, sampling)).result()
    assert result.logprobs is not None
    flat = [
        (values.tobytes(), int(token))
        for values, token in zip(result.logprobs.top_values, result.token_ids, strict=True)
    ]
    ends = np.cumsum([len(chunk.token_ids) for chunk in chunks]).tolist()
    return [flat[end - len(chunk.token_ids) : end] for end, chunk in zip(ends, chunks, strict=True)]


def chunk_of(index: int, start: int, end: int) -> Chunk:
    return Chunk(TEXTS[index][start:end], start, PAGES[index], sample_all=True)


def run_alone(runner: TorchRunner) -> list[list[Outcome]]:
    return [run(runner, [chunk_of(index, 0, length)], [index])[0] for index, length in enumerate(LENGTHS)]


def check_random_schedule(runner: TorchRunner, expected: list[list[Outcome]], seed: int) -> None:
    """Run all texts to their ends in random company; now and then one is retracted and starts again somewhere."""
    generator = np.random.default_rng(seed)
    done = [0] * len(LENGTHS)
    while any(count < length for count, length in zip(done, LENGTHS, strict=True)):
        waiting = [index for index, length in enumerate(LENGTHS) if done[index] < length]
        chosen = [index for index in waiting if generator.random() < 0.7] or waiting[:1]
        generator.shuffle(chosen)
        sizes = generator.choice([1, 1, 1, 2, 7, 13, 40], len(chosen)).tolist()
        ends = [min(LENGTHS[index], done[index] + size) for index, size in zip(chosen, sizes, strict=True)]
        chunks = [chunk_of(index, done[index], end) for index, end in zip(chosen, ends, strict=True)]
        for index, end, outcomes in zip(chosen, ends, run(runner, chunks, chosen), strict=True):
            assert outcomes == expected[index][done[index] : end]
            done[index] = end
        if generator.random() < 0.1:
            retracted = int(generator.integers(len(LENGTHS)))
            done[retracted] = int(generator.integers(done[retracted] + 1)) // 16 * 16


def build(folder: Path, num_threads: int = 1) -> TorchRunner:
    runner = build_runner(folder, num_pages=32, load_format="dummy", num_threads=num_threads)
    with torch.inference_mode():
        runner.pages.fill_(torch.nan)
    return runner


@pytest.mark.parametrize("config", [LLAMA, SLIDING_QWEN], ids=["llama", "sliding_qwen3"])
def test_company_and_chunks_change_no_bit(
    model_folder: Callable[[dict[str, Any]], Path], config: dict[str, Any]
) -> None:
    """With the grouping that the runner chose for this machine."""
    runner = build(model_folder(config))
    expected = run_alone(runner)
    for seed in range(4):
        check_random_schedule(runner, expected, seed)


@pytest.mark.parametrize("config", [LLAMA, SLIDING_QWEN], ids=["llama", "sliding_qwen3"])
def test_aligned_rows_change_no_bit(model_folder: Callable[[dict[str, Any]], Path], config: dict[str, Any]) -> None:
    """With the grouping that is exact on every machine."""
    runner = build(model_folder(config))
    runner.grouping = AlignedBlocks()
    expected = run_alone(runner)
    for seed in range(2):
        check_random_schedule(runner, expected, seed)


def test_two_threads_change_no_bit(model_folder: Callable[[dict[str, Any]], Path]) -> None:
    """With two threads, results are exact among themselves."""
    try:
        runner = build(model_folder(LLAMA), num_threads=2)
        expected = run_alone(runner)
        check_random_schedule(runner, expected, 0)
    finally:
        torch.set_num_threads(1)


def test_a_large_batch_changes_no_bit(runner: TorchRunner) -> None:
    """Thirty-one decodes in one step, over two blocks of rows, have the bits of thirty-one steps."""
    texts = np.random.default_rng(8).integers(0, 331, (31, 2)).tolist()
    alone = [run(runner, [Chunk(text, 0, [1], sample_all=True)], [i])[0][1] for i, text in enumerate(texts)]
    everyone = list(range(31))
    run(runner, [Chunk(texts[i][:1], 0, [1 + i]) for i in everyone], everyone)
    together = run(runner, [Chunk(texts[i][1:], 1, [1 + i]) for i in everyone], everyone)
    assert [outcomes[0] for outcomes in together] == alone


def test_a_product_that_depends_on_the_row_is_noticed(runner: TorchRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """If places in a block differ in a single bit, aligned rows are chosen."""
    model = runner.testing_only_model
    arguments: dict[str, Any] = {"hidden_size": 48, "device": torch.device("cpu"), "dtype": torch.float32}
    finish = model.layers[0].finish

    class Uneven:
        project = model.layers[0].project

        @staticmethod
        def finish(hidden: torch.Tensor, attended: torch.Tensor) -> tuple[torch.Tensor]:
            (result,) = finish(hidden, attended)
            result[3, 5] = torch.nextafter(result[3, 5], torch.tensor(torch.inf))
            return (result,)

    with torch.inference_mode():
        chosen: RowGrouping = choose_grouping(model, **arguments)
        assert isinstance(chosen, PackedBlocks | AlignedBlocks)
        monkeypatch.setattr(model, "layers", [Uneven])
        assert isinstance(choose_grouping(model, **arguments), AlignedBlocks)
