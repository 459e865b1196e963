"""A small random Llama, a random head for it, and what plain decoding answers: the judge of all that speculates."""

from pathlib import Path

import pytest

from runtime.runner.building import build_runner
from runtime.runner.torch_runner import TorchRunner
from runtime.speculative.source import HeadSource
from tests.support.draft_heads import EOS, write_head, write_target
from tests.support.engine_runs import build_engine, run_all
from tests.support.speculation_runs import NUM_PAGES, Answers, requests


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The target. Nobody writes to it."""
    return write_target(tmp_path_factory.mktemp("target"))


@pytest.fixture(scope="session")
def head(tmp_path_factory: pytest.TempPathFactory) -> HeadSource:
    """Random numbers, whose drafts are nearly always wrong."""
    return HeadSource(write_head(tmp_path_factory.mktemp("head")))


@pytest.fixture(scope="module")
def speculating(folder: Path, head: HeadSource) -> TorchRunner:
    """The reference runner with that head."""
    return build_runner(folder, num_pages=NUM_PAGES, head=head)


@pytest.fixture(scope="session")
def plain_answers(folder: Path) -> Answers:
    """Without a head. Nobody changes them."""
    return run_all(build_engine(build_runner(folder, num_pages=NUM_PAGES), eos_token_ids=[EOS]), requests())
