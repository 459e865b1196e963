"""Model folders that the gateway's unit tests read."""

from pathlib import Path

import pytest

from appliance.gateway.text.tokenizer import Tokenizer, load_tokenizer
from tests.support.model_folders import write_byte_level_model


@pytest.fixture(scope="session")
def byte_level_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_byte_level_model(tmp_path_factory.mktemp("byte-level"))


@pytest.fixture(scope="session")
def byte_level(byte_level_folder: Path) -> Tokenizer:
    return load_tokenizer(byte_level_folder)
