"""Admission as gateway, engine and compiler ask for it: by the configuration, and by the bytes that they have read."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from appliance.config import Configuration
from appliance.config.defaults import DEMO_MODEL_DIR, default_configuration
from appliance.errors import StartRefused
from appliance.gateway.loading import load_models
from appliance.models.admission import admit_model, head_verifier, verify_folder, verify_read, verify_weights
from security.stewards.approving import approve_model, promote_model
from security.stewards.importing import Source, import_model
from security.stewards.store import ModelStore
from tests.support.stewardship import Stewardship


@pytest.fixture
def promoted(tmp_path: Path) -> Configuration:
    """A configuration of the demo model, promoted under the name `tiny`."""
    people, store = Stewardship(), ModelStore(tmp_path / "models")
    people.establish(tmp_path)
    item = import_model(
        Source(DEMO_MODEL_DIR, "tiny", "here", "MIT"), store, people.roles, people.signer("ines"), ()
    ).item
    for name in ("ada", "bob"):
        approve_model(item, people.roles, people.signer(name))
    promote_model(store, item, people.roles)
    return default_configuration(store.path_of("tiny"), "tiny", tmp_path)[0]


def path_of(configuration: Configuration) -> Path:
    """The model's place in the store."""
    return Path(configuration.engines[0].model_path)


def load(configuration: Configuration) -> None:
    """The gateway's side of the model, as a worker loads it."""
    folders = [("tiny", path_of(configuration))]
    load_models(folders, configuration.gateway, partial(verify_folder, configuration))


def test_gateway_loads_what_was_approved(promoted: Configuration) -> None:
    """And a plain folder, of which nothing is known."""
    load(promoted)
    load_models([("plain", DEMO_MODEL_DIR)], promoted.gateway, partial(verify_folder, promoted))
    assert admit_model(promoted, DEMO_MODEL_DIR) is None
    verify_read(None, "anything", b"")


CHANGES: dict[str, Callable[[Path], object]] = {
    "tokenizer.json": lambda path: path.write_bytes(path.read_bytes().replace(b"1", b"2", 1)),
    "tokenizer_config.json": lambda path: path.write_bytes(path.read_bytes() + b" "),
    "config.json": lambda path: path.write_bytes(path.read_bytes() + b" "),
    "generation_config.json": lambda path: path.write_bytes(path.read_bytes() + b" "),
}


@pytest.mark.parametrize("name", CHANGES)
def test_gateway_refuses_other_bytes(name: str, promoted: Configuration) -> None:
    """Tokenizer, template and configuration are covered like weights; the message names the file."""
    path = path_of(promoted) / name
    path.chmod(0o644)
    CHANGES[name](path)
    with pytest.raises(StartRefused, match=f"model tiny: {name}: changed"):
        load(promoted)


def test_template_that_is_slipped_in_is_refused(promoted: Configuration) -> None:
    """A `chat_template.jinja` goes before the one in the configuration: it is read, and it is not listed."""
    folder = path_of(promoted).resolve()
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(StartRefused, match=r"chat_template\.jinja: not listed"):
        load(promoted)


def test_engine_must_have_read_all_weights(promoted: Configuration) -> None:
    """A file that was there at the check and not at the loading."""
    admitted = admit_model(promoted, path_of(promoted))
    assert admitted is not None
    with pytest.raises(StartRefused, match="was not there when the model was loaded"):
        verify_weights(
            admitted, {name: digest for name, digest in admitted.signed.digests.items() if name == "config.json"}
        )
    verify_weights(admitted, admitted.signed.digests)
    with pytest.raises(StartRefused, match=r"tokenizer\.json: changed"):
        verify_read(admitted, "tokenizer.json", b"{}")


def test_a_head_in_its_targets_folder_is_held_to_the_same_evidence(promoted: Configuration, tmp_path: Path) -> None:
    """What lies in a promoted model's folder must be listed there; a head in a plain folder is not known."""
    folder = path_of(promoted)
    verify = head_verifier(promoted, folder, folder / "draft")
    assert verify is not None
    with pytest.raises(StartRefused, match=r"draft/config\.json: not listed"):
        verify({"config.json": "0" * 64})
    assert head_verifier(promoted, DEMO_MODEL_DIR, tmp_path / "draft") is None


def test_model_under_another_name_is_refused(promoted: Configuration, tmp_path: Path) -> None:
    """Approved as `tiny`; whoever links it as `large` does not get `large`."""
    link = tmp_path / "models" / "promoted" / "large"
    link.symlink_to((tmp_path / "models/promoted/tiny").readlink())
    with pytest.raises(StartRefused, match="was approved under the name tiny"):
        admit_model(promoted, link)
    shutil.rmtree(tmp_path / "trust")
    with pytest.raises(Exception, match="there is no role file"):
        admit_model(promoted, path_of(promoted))
