"""What every run of the tests offers: the file of how the tests ended that show controls."""

from pathlib import Path

import pytest

from tests.support.controls import ResultsPlugin


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--control-results FILE`."""
    parser.addoption(
        "--control-results", type=Path, metavar="FILE", help="write how the tests ended that carry @control, as JSON"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Write the file where it is asked for."""
    path = config.getoption("--control-results")
    if path is not None:
        config.pluginmanager.register(ResultsPlugin(path), "control-results")
