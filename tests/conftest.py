"""What every run of the tests offers: how the tests ended that show controls, examples without a clock, numbers as they were."""

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.controls import MarksPlugin, ResultsPlugin
from tests.support.scheduling import FileScheduling, rank

# How long an example takes says something about the machine's load, nothing about the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The examples follow from the test's source: the run before a change is taken tells of the change and nothing else. All other
# runs look for new ones.
settings.register_profile("repeatable", settings.get_profile("any machine"), derandomize=True)
settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--control-results FILE`."""
    parser.addoption(
        "--control-results", type=Path, metavar="FILE", help="write how the tests ended that carry @control, as JSON"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Write the file where it is asked for; of several processes the one that hears of all tests does."""
    config.pluginmanager.register(MarksPlugin(), "control-marks")
    path = config.getoption("--control-results")
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(ResultsPlugin(path), "control-results")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is collected lives as long as the run: it is not walked for garbage while it grows, nor afterwards."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling | None:
    """Ours for `--dist loadfile`, in the order of the collection."""
    if config.getvalue("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False
    return FileScheduling(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of one of several processes; all of them collect the same, in the same order."""
    if hasattr(config, "workerinput"):
        items[:] = rank(items)


@pytest.fixture(autouse=True)
def _tiny_numbers_are_numbers() -> Iterator[None]:
    """A training makes the processor take the tiniest floats for zero; whatever runs next in this process must not find it so."""
    yield
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_flush_denormal(False)
