"""Fixtures: a customer's people, a store, and a small folder that looks like a model."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from security.stewards.approving import approve_model
from security.stewards.importing import Source, import_model
from security.stewards.store import Item, ModelStore
from tests.support.stewardship import Stewardship
from tests.unit.security.model_signing.conftest import write_files

HEADER = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
FILES = {
    "config.json": b"{}",
    "model.safetensors": len(HEADER).to_bytes(8, "little") + HEADER + bytes(8),
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "draft/config.json": b'{"draft": true}',
    "draft/model.safetensors": b"draft head",
    "LICENSE": b"Do what you like.",
}


@pytest.fixture(scope="session")
def people() -> Stewardship:
    """ines imports and is a steward too; ada and bob are stewards; olga and omar are operators."""
    return Stewardship()


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """An empty store."""
    return ModelStore(tmp_path / "models")


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """A folder to import."""
    return Source(write_files(tmp_path / "download" / "tiny", FILES), "tiny", "a disk from the vendor")


@pytest.fixture
def take(people: Stewardship, store: ModelStore, source: Source) -> Callable[[], Item]:
    """Import the folder as ines."""
    return lambda: import_model(source, store, people.roles, people.signer("ines"), ()).item


@pytest.fixture
def approved(take: Callable[[], Item], people: Stewardship) -> Item:
    """Imported by ines, approved by ada and bob."""
    item = take()
    for name in ("ada", "bob"):
        approve_model(item, people.roles, people.signer(name))
    return item
