"""Definitions in a file of each test's own."""

import pytest

from tests.support.definitions import Registry


@pytest.fixture
def registry(tmp_path, clock):
    opened = Registry(tmp_path / "definitions.sqlite", clock=clock)
    yield opened
    opened.close()
