"""The engine over the runner that a GPU uses, with plain torch as its kernels: graphs, padding and overlap change no text.

What this proves of a GPU is the host's part: packing, padding into page 0, tokens that the next step takes from the
device, reading back late. The reference runner is the judge.
"""

from pathlib import Path

import pytest

from runtime.runner.building import build_runner
from tests.integration.test_engine_on_cpu import EOS, NUM_PAGES, Answers, requests, write_tiny_llama
from tests.support.device_runners import build_plain_device
from tests.support.engine_runs import build_engine, run_all


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny-llama")
    write_tiny_llama(path)
    return path


@pytest.fixture(scope="module")
def expected(folder: Path) -> Answers:
    """What the reference runner answers."""
    return run_all(build_engine(build_runner(folder, num_pages=NUM_PAGES), eos_token_ids=[EOS]), requests())


def tokens_of(answers: Answers) -> dict[tuple[int, int], tuple[list[int], str]]:
    return {key: (answer.tokens, answer.reason) for key, answer in answers.items()}


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("largest_graph", [0, 3, 16])
def test_texts_are_those_of_the_reference(folder: Path, expected: Answers, largest_graph: int, overlap: bool) -> None:
    """With graphs for all decodes, for some and for none; twice, so that the cache is warm the second time."""
    device = build_plain_device(folder, num_pages=NUM_PAGES, cuda_graph_max_bs=largest_graph)
    engine = build_engine(device.runner, eos_token_ids=[EOS], overlap_schedule=overlap, chunked_prefill_size=33)
    for _ in range(2):
        assert tokens_of(run_all(engine, requests())) == tokens_of(expected)
    refreshed = sum(plan.num_refreshed for plan in device.attention.plans)
    assert (refreshed > len(device.attention.plans)) == (largest_graph > 0)


def test_retraction_changes_nothing(folder: Path, expected: Answers) -> None:
    """With a fifth of the memory."""
    device = build_plain_device(folder, num_pages=16)
    engine = build_engine(device.runner, eos_token_ids=[EOS], chunked_prefill_size=32)
    assert tokens_of(run_all(engine, requests())) == tokens_of(expected)
    assert engine.stats().num_retractions > 0
