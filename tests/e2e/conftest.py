"""One shared appliance for the tests that do not break it."""

from collections.abc import Iterator

import openai
import pytest

from appliance.demo.client import Credentials
from tests.support.appliance import Appliance, running_appliance
from tests.support.collector import Collector
from tests.support.sdk import open_sdk


@pytest.fixture(scope="session")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """Gets the spans and metrics of `appliance`."""
    collector = Collector(tmp_path_factory.mktemp("collector"))
    yield collector
    collector.close()


@pytest.fixture(scope="session")
def appliance(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Appliance]:
    """A running appliance with two gateway workers, used by many tests."""
    folder = tmp_path_factory.mktemp("appliance") / "with space"
    with running_appliance(folder, workers=2, extra=collector.section) as running:
        yield running


@pytest.fixture(scope="session")
def credentials(appliance: Appliance) -> Credentials:
    """Of a fresh client of role user."""
    return appliance.create_client()


@pytest.fixture
def access_token(appliance: Appliance, credentials: Credentials) -> str:
    """A token for one test: it lives for ten minutes, and on a slow machine the tests take longer."""
    return appliance.token(credentials)


@pytest.fixture
def sdk(appliance: Appliance, access_token: str) -> Iterator[openai.OpenAI]:
    """The openai package, pointed at the appliance."""
    with open_sdk(appliance, access_token) as client:
        yield client
