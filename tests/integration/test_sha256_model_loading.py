"""A model signed with SHA-256, imported and approved by two: an engine verifies its shards by BLAKE3; a flipped byte is refused.

The signatures are ours, or those of PyPI's `model-signing` (see `test_model_signing_interop`): the vendor's over what is imported,
and the importer's in the store. Both come to the same digests, or the rest does not hold.
"""

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from blake3 import blake3

import runtime.weights.device_loading as device_loading
from appliance.config import Configuration
from appliance.config.defaults import default_configuration
from appliance.errors import StartRefused
from appliance.models.admission import admit_model, weights_check
from runtime.kernels.digest import DigestKernels
from runtime.weights.checkpoint import open_checkpoint
from runtime.weights.config import load_model_config
from runtime.weights.file_check import FileCheck
from runtime.weights.layout import parameter_shapes
from runtime.weights.loading import load_weights
from runtime.weights.placing import Placing
from security.errors import ModelSignatureRejected
from security.model_signing.algorithms import SHA256
from security.model_signing.signing import sign_model
from security.model_signing.trust import load_key_trust, verify_signature
from security.stewards.approving import approve_model, promote_model
from security.stewards.importing import Source, import_model
from security.stewards.store import ModelStore
from tests.support.plain_blake3 import PlainLauncher
from tests.support.stewardship import Holder, Stewardship
from tests.unit.runtime.weights.conftest import CONFIG, Tensors, file_bytes, header_and_data, tiny_tensors

REFERENCE = os.environ.get("CASEMATE_MODEL_SIGNING")
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")

Load = Callable[[Path, FileCheck], None]
Sign = Callable[[Path, Path, Holder, Path], None]


def sign_by_ours(folder: Path, signature: Path, holder: Holder, _keys: Path) -> None:
    """By `casemate model sign`'s own function."""
    assert sign_model(folder, holder.signer, signature).manifest.algorithm == SHA256


def sign_by_theirs(folder: Path, signature: Path, holder: Holder, keys: Path) -> None:
    """By the command of `model-signing`, as it comes: SHA-256."""
    words = (folder, "--signature", signature, "--private_key", holder.write(keys))
    done = subprocess.run(
        [str(REFERENCE), "sign", "key", *map(str, words)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(
    params=[
        sign_by_ours,
        pytest.param(
            sign_by_theirs,
            marks=pytest.mark.skipif(
                REFERENCE is None, reason="CASEMATE_MODEL_SIGNING does not name the command of PyPI's model-signing"
            ),
        ),
    ],
    ids=["ours", "model-signing"],
)
def sign(request: pytest.FixtureRequest) -> Sign:
    """Who signs with SHA-256."""
    found: Sign = request.param
    return found


def write_model(folder: Path) -> Path:
    """A tiny model in two shards."""
    folder.mkdir()
    tensors, names = tiny_tensors(), list(tiny_tensors())
    shards: Mapping[str, Tensors] = {
        SHARDS[0]: {name: tensors[name] for name in names[:9]},
        SHARDS[1]: {name: tensors[name] for name in names[9:]},
    }
    for name, own in shards.items():
        (folder / name).write_bytes(file_bytes(*header_and_data(own)))
    weight_map = {tensor: name for name, own in shards.items() for tensor in own}
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "LICENSE").write_text("Do what you like.")
    return folder


@pytest.fixture
def promoted(tmp_path: Path, sign: Sign) -> Configuration:
    """The model on a host, with a vendor's signature verified at the import, and signed by its importer with SHA-256."""
    people, vendor, store = Stewardship(), Holder("vendor"), ModelStore(tmp_path / "models")
    people.establish(tmp_path)
    folder, keys = write_model(tmp_path / "download"), tmp_path / "keys"
    sign(folder, tmp_path / "vendor.sig", vendor, keys)
    trust = load_key_trust(vendor.write(keys).with_suffix(".pub"))
    source = Source(folder, "tiny", "the vendor", vendor_signature=tmp_path / "vendor.sig", vendor_trust=trust)
    item = import_model(source, store, people.roles, people.signer("ines"), ()).item
    item.signature.unlink()
    sign(item.files, item.signature, people.people["ines"], keys)
    for name in ("ada", "bob"):
        approve_model(item, people.roles, people.signer(name))
    admitted = promote_model(store, item, people.roles)
    assert admitted.signed.algorithm == SHA256
    assert admitted.root == verify_signature(tmp_path / "vendor.sig", trust).root
    return default_configuration(store.path_of("tiny"), "tiny", tmp_path)[0]


def load_by_cores(folder: Path, check: FileCheck) -> None:
    """As an engine on a CPU does."""
    load_weights(folder, load_model_config(folder), device=torch.device("cpu"), dtype=torch.float32, verify=check)


def load_by_kernels(folder: Path, check: FileCheck) -> None:
    """As an engine on a GPU does: by windows, in whose memory the tree is hashed, here by the kernels' plain counterparts."""
    config, kernels = load_model_config(folder), DigestKernels(PlainLauncher(), group_chunks=2)
    parameters = {
        name: torch.empty(shape.shape, dtype=torch.float32) for name, shape in parameter_shapes(config).items()
    }
    with open_checkpoint(folder, config) as checkpoint, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(device_loading, "WINDOW_BYTES", 2 * kernels.group_bytes)
        monkeypatch.setattr(device_loading, "OrderedDigest", None)  # Whatever hashed by the cores would fail.
        placing = Placing(checkpoint.places, parameters, torch.float32)
        digests = device_loading.read_shards_to_device(
            checkpoint, placing, parameters["embedding.weight"], None, check, kernels=kernels
        )
    check.verify({**{name: check.digest_of(content) for name, content in config.files}, **digests})


@pytest.mark.parametrize("load", [load_by_cores, load_by_kernels])
def test_shards_signed_with_sha256_are_verified_by_blake3(load: Load, promoted: Configuration) -> None:
    """What is compared are BLAKE3 digests of what was read; one bit of any shard's data is refused by its name."""
    folder = Path(promoted.engines[0].model_path)
    check, told = weights_check(admit_model(promoted, folder)), dict[str, str]()
    assert check is not None
    load(folder, replace(check, verify=lambda digests: (told.update(digests), check.verify(digests))[1]))
    assert {name: told[name] for name in SHARDS} == {
        name: blake3((folder / name).read_bytes()).hexdigest() for name in SHARDS
    }
    for name in SHARDS:
        path = folder / name
        path.chmod(0o644)
        kept = path.read_bytes()
        for position in (len(kept) // 2, len(kept) - 1):
            path.write_bytes(kept[:position] + bytes([kept[position] ^ 1]) + kept[position + 1 :])
            with pytest.raises(StartRefused, match=f"model tiny: {name}: changed: BLAKE3"):
                load(folder, check)
        path.write_bytes(kept)
    load(folder, check)


def test_a_signature_over_other_files_is_refused(promoted: Configuration, sign: Sign, tmp_path: Path) -> None:
    """A stranger's signature over the very files, in the place of the importer's: load digests do not stand without it."""
    folder = Path(promoted.engines[0].model_path).resolve()
    (folder.parent / "model.sig").unlink()
    sign(folder, folder.parent / "model.sig", Holder("eve"), tmp_path / "keys")
    with pytest.raises(StartRefused, match="model tiny: signature: made with another key") as refused:
        admit_model(promoted, folder.parents[2] / "promoted/tiny")
    assert isinstance(refused.value.__cause__, ModelSignatureRejected)
