"""Admission as gateway, engine and compiler ask for it: by the configuration, and by the bytes that they have read."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest
import torch

from appliance.config import Configuration
from appliance.config.defaults import DEMO_MODEL_DIR, default_configuration
from appliance.errors import StartRefused
from appliance.gateway.loading import load_models
from appliance.models.admission import (
    admit_model,
    explain_weights,
    head_check,
    verify_folder,
    verify_read,
    weights_check,
)
from runtime.weights.config import load_model_config
from runtime.weights.loading import load_weights
from security.model_signing.algorithms import BLAKE3, SHA256, TITLES
from security.stewards.approving import approve_model, promote_model
from security.stewards.importing import Source, import_model
from security.stewards.store import ModelStore
from tests.support.stewardship import Stewardship


def promote(tmp_path: Path, algorithm: str = SHA256, *, load_digests: bool = True) -> Configuration:
    """A configuration of the demo model, promoted under the name `tiny`; with or without load digests in the approvals."""
    people, store = Stewardship(), ModelStore(tmp_path / "models")
    people.establish(tmp_path)
    item = import_model(
        Source(DEMO_MODEL_DIR, "tiny", "here", "MIT", algorithm=algorithm),
        store,
        people.roles,
        people.signer("ines"),
        (),
    ).item
    for name in ("ada", "bob"):
        approve_model(item, people.roles, people.signer(name), with_load_digests=load_digests)
    promote_model(store, item, people.roles)
    return default_configuration(store.path_of("tiny"), "tiny", tmp_path)[0]


@pytest.fixture
def promoted(tmp_path: Path) -> Configuration:
    """The demo model, digested with SHA-256."""
    return promote(tmp_path)


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
    check = weights_check(admitted)
    assert admitted is not None
    assert check is not None
    with pytest.raises(StartRefused, match="was not there when the model was loaded"):
        check.verify({name: digest for name, digest in admitted.signed.digests.items() if name == "config.json"})
    check.verify({**admitted.signed.digests, **admitted.load_digests})
    with pytest.raises(StartRefused, match=r"tokenizer\.json: changed"):
        verify_read(admitted, "tokenizer.json", b"{}")


WAYS = {
    "signature by BLAKE3": (BLAKE3, True, False, "BLAKE3", "BLAKE3, as the signature has it"),
    "load digests": (SHA256, True, False, "BLAKE3", "BLAKE3, as importer and stewards state"),
    "approvals of before": (SHA256, False, False, "SHA-256", "SHA-256: import or approvals state no load digests"),
    "fips": (SHA256, True, True, "SHA-256", "SHA-256: fips = true takes no other"),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_loaded_is_digested_as_it_was_approved(way: str, tmp_path: Path) -> None:
    """Weights by load digests where there are any, all else by the signature's; a changed bit is found in what was read."""
    algorithm, load_digests, fips, title, explanation = WAYS[way]
    configuration = msgspec.structs.replace(promote(tmp_path, algorithm, load_digests=load_digests), fips=fips)
    load(configuration)
    folder = path_of(configuration)
    admitted = admit_model(configuration, folder)
    check = weights_check(admitted)
    assert admitted is not None
    assert check is not None
    assert TITLES[check.algorithm] == title
    assert explain_weights(configuration, admitted).startswith(explanation)
    config = load_model_config(folder)
    load_weights(folder, config, device=torch.device("cpu"), dtype=torch.float32, verify=check)
    weights = folder / "model.safetensors"
    weights.chmod(0o644)
    with weights.open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)[0]
        file.seek(-1, 2)
        file.write(bytes([last ^ 1]))
    with pytest.raises(StartRefused, match=rf"model\.safetensors: changed: {title}"):
        load_weights(folder, config, device=torch.device("cpu"), dtype=torch.float32, verify=check)


def test_fips_takes_no_model_with_blake3_digests(tmp_path: Path) -> None:
    """BLAKE3 is no approved algorithm: whoever wants `fips = true` imports the model again."""
    configuration = promote(tmp_path, BLAKE3)
    assert admit_model(configuration, path_of(configuration)) is not None
    with pytest.raises(StartRefused, match="fips = true does not take"):
        admit_model(msgspec.structs.replace(configuration, fips=True), path_of(configuration))


def test_a_head_in_its_targets_folder_is_held_to_the_same_evidence(promoted: Configuration, tmp_path: Path) -> None:
    """What lies in a promoted model's folder must be listed there; a head in a plain folder is not known."""
    folder = path_of(promoted)
    check = head_check(promoted, folder, folder / "draft")
    assert check is not None
    with pytest.raises(StartRefused, match=r"draft/config\.json: not listed"):
        check.verify({"config.json": "0" * 64})
    assert head_check(promoted, DEMO_MODEL_DIR, tmp_path / "draft") is None


def test_model_under_another_name_is_refused(promoted: Configuration, tmp_path: Path) -> None:
    """Approved as `tiny`; whoever links it as `large` does not get `large`."""
    link = tmp_path / "models" / "promoted" / "large"
    link.symlink_to((tmp_path / "models/promoted/tiny").readlink())
    with pytest.raises(StartRefused, match="was approved under the name tiny"):
        admit_model(promoted, link)
    shutil.rmtree(tmp_path / "trust")
    with pytest.raises(Exception, match="there is no role file"):
        admit_model(promoted, path_of(promoted))
