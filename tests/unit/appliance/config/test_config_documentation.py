"""What is written about the configuration is what the configuration is."""

import re
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

from appliance.config import parse_configuration
from appliance.config.explain import explain_keys, explain_values, find_values, render_markdown
from appliance.config.keys import Key, array_type, is_path, table_type, walk_keys
from appliance.config.schema import Configuration
from tests.support.controls import control

ROOT = Path(__file__).parents[4]
KEYS = list(walk_keys(Configuration))
ENGINE = '[[engines]]\nmodel_path = "model"\n'


def structs(root: type[Struct] = Configuration) -> list[type[Struct]]:
    """The configuration's Struct and those of all its sections."""
    inner = [table_type(field.type) or array_type(field.type) for field in msgspec.structs.fields(root)]
    return [root, *(found for struct in inner if struct for found in structs(struct))]


@control("3.4.2", "CM-6", "CM-6(1)")
def test_documentation_is_what_the_settings_say() -> None:
    """`docs/configuration.md` is generated; `make docs` writes it again."""
    assert (ROOT / "docs" / "configuration.md").read_text() == render_markdown()


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.path)
def test_every_key_is_described_in_a_sentence(key: Key) -> None:
    """A description starts with a word and ends with a full stop, and says more than the name."""
    assert re.fullmatch(r"[\w`/].{15,}\.", key.description, re.DOTALL), key


@pytest.mark.parametrize("struct", structs(), ids=lambda struct: struct.__name__)
def test_every_section_is_frozen_strict_and_documented(struct: type[Struct]) -> None:
    """Sections are safe to hand around and refuse what they do not know, even when decoded elsewhere."""
    assert struct.__struct_config__.frozen
    assert struct.__struct_config__.forbid_unknown_fields
    assert struct.__doc__


def test_every_key_that_names_a_file_or_folder_is_resolved_from_the_files_folder() -> None:
    """A path that was forgotten here would start from whatever folder a process happens to be in."""
    for struct in structs():
        for field, key in zip(msgspec.structs.fields(struct), _own_keys(struct), strict=True):
            if key is not None and re.match(r"(PEM file|File|Folder)\b", key.description):
                assert is_path(field), f"{struct.__name__}.{field.name} reads like a path"


def _own_keys(struct: type[Struct]) -> list[Key | None]:
    by_name = {key.path: key for key in walk_keys(struct)}
    return [by_name.get(field.encode_name) for field in msgspec.structs.fields(struct)]


def test_one_key_is_explained_by_its_path_its_name_or_its_section() -> None:
    """People ask for what they remember."""
    assert explain_keys("gateway.port").startswith("gateway.port\n")
    assert "authority.port" in explain_keys("port")
    assert explain_keys("audit").count("\n\n") == sum(key.path.startswith("audit.") for key in KEYS) - 1
    assert explain_keys("engines.model_path") == explain_keys("engines[].model_path")
    assert explain_keys("nothing") == ""


def test_every_effective_key_tells_its_value_and_where_it_was_set() -> None:
    """Nothing that is in force is left out, whether the file says it or not."""
    data = f"[gateway]\nport = 9000\n{ENGINE}".encode()
    configuration = parse_configuration(data, Path("/srv"))
    values = {path: (value, place) for path, value, place in find_values(configuration, data, "site.toml")}
    assert values["gateway.port"] == (9000, "site.toml:2")
    assert values["authority.port"] == (8444, "default")
    assert values["engines[0].model_path"] == ("/srv/model", "site.toml:4")
    there = {key.path for key in KEYS if not key.path.startswith(("issuers[]", "upstream."))}  # This file names none.
    assert {re.sub(r"\[\d+\]", "[]", path) for path in values} == there


def test_explained_values_carry_their_meaning() -> None:
    """Value, place, description, range and default stand together."""
    data = f"[gateway]\nport = 9000\n{ENGINE}".encode()
    text = explain_values(parse_configuration(data, Path("/srv")), data, "site.toml", "gateway.port")
    assert text.startswith("gateway.port = 9000    (site.toml:2)\n    TCP port")
    assert "from 0 to 65535; default 8443" in text
