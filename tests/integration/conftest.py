"""What most tests of the gateway stand on; a module that needs another folder or gateway has a fixture of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest

from tests.support.gateway import TOKEN, Gateway, running_gateway
from tests.support.model_folders import write_byte_level_model
from tests.support.waiting import GIVE_UP_S


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokens are bytes. Nobody writes to it."""
    return write_byte_level_model(tmp_path_factory.mktemp("byte-level-model"))


@pytest.fixture
async def gateway(folder: Path) -> AsyncIterator[Gateway]:
    """As it is configured by default, with peers of the tests' around it."""
    async with running_gateway(folder) as running:
        yield running


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[openai.AsyncOpenAI]:
    """The OpenAI SDK, which tries nothing twice, and waits longer for a connection than the five seconds that it would."""
    async with openai.AsyncOpenAI(
        api_key=TOKEN, base_url=gateway.url + "/v1", max_retries=0, timeout=GIVE_UP_S
    ) as opened:
        yield opened
