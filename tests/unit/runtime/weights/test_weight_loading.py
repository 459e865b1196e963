"""Reading: each tensor lands in its place, progress is told, and the digest is that of the files."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from runtime.errors import CheckpointRejected
from runtime.weights.config import load_model_config
from runtime.weights.loading import LoadedWeights, build_dummy_weights, load_weights
from tests.unit.runtime.weights.conftest import tiny_tensors

CPU = torch.device("cpu")


def load(folder: Path, dtype: torch.dtype = torch.float32) -> LoadedWeights:
    return load_weights(folder, load_model_config(folder), device=CPU, dtype=dtype)


def test_tensors_land_in_their_fused_places(single_folder: Path) -> None:
    """Queries, keys and values are one matrix, gate and up another; all others are as stored."""
    stored = {name: torch.from_numpy(tensor) for name, tensor in tiny_tensors().items()}
    loaded = load(single_folder).parameters
    layer = {
        name.removeprefix("model.layers.1."): tensor
        for name, tensor in stored.items()
        if name.startswith("model.layers.1.")
    }
    qkv = torch.cat([layer[f"self_attn.{name}_proj.weight"] for name in "qkv"])
    assert torch.equal(loaded["layers.1.qkv.weight"], qkv)
    assert torch.equal(
        loaded["layers.1.gate_up.weight"], torch.cat((layer["mlp.gate_proj.weight"], layer["mlp.up_proj.weight"]))
    )
    assert torch.equal(loaded["layers.1.down.weight"], layer["mlp.down_proj.weight"])
    assert torch.equal(loaded["layers.1.output.weight"], layer["self_attn.o_proj.weight"])
    assert torch.equal(loaded["layers.1.mlp_norm.weight"], layer["post_attention_layernorm.weight"])
    assert torch.equal(loaded["embedding.weight"], stored["model.embed_tokens.weight"])
    assert torch.equal(loaded["head.weight"], stored["lm_head.weight"])


def test_shards_and_a_single_file_load_the_same(single_folder: Path, sharded_folder: Path) -> None:
    """How tensors are spread over files does not matter."""
    single, sharded = load(single_folder).parameters, load(sharded_folder).parameters
    assert single.keys() == sharded.keys()
    assert all(torch.equal(single[name], sharded[name]) for name in single)


def test_weights_are_converted(single_folder: Path) -> None:
    """Stored float32 becomes what is asked for."""
    loaded = load(single_folder, torch.bfloat16).parameters
    expected = torch.from_numpy(tiny_tensors()["model.embed_tokens.weight"]).bfloat16()
    assert torch.equal(loaded["embedding.weight"], expected)


def test_the_digest_is_that_of_the_files(sharded_folder: Path) -> None:
    """SHA-256 over `digest  name` lines, as sha256sum prints them, of configuration and shards."""
    files = sorted(("config.json", *(path.name for path in sharded_folder.glob("*.safetensors"))))
    digests = {name: hashlib.sha256((sharded_folder / name).read_bytes()).hexdigest() for name in files}
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    assert load(sharded_folder).digest == hashlib.sha256(lines.encode()).hexdigest()


def test_any_changed_byte_changes_the_digest(single_folder: Path) -> None:
    """A weight that differs in one bit is another model."""
    before = load(single_folder).digest
    content = bytearray((single_folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (single_folder / "model.safetensors").write_bytes(content)
    assert load(single_folder).digest != before


def test_progress_grows_to_the_whole(sharded_folder: Path) -> None:
    """Progress is told in bytes of all shards, and ends at all of them."""
    seen: list[tuple[int, int]] = []
    config = load_model_config(sharded_folder)
    load_weights(
        sharded_folder, config, device=CPU, dtype=torch.float32, progress=lambda done, total: seen.append((done, total))
    )
    total = sum(path.stat().st_size for path in sharded_folder.glob("*.safetensors"))
    assert seen == sorted(seen)
    assert seen[-1] == (total, total)


def test_a_tied_head_must_equal_the_embedding(write_folder: Callable[..., Path]) -> None:
    """A checkpoint that holds both, with different numbers, is not the model it says."""
    tensors = tiny_tensors()
    folder = write_folder({"model.safetensors": tensors}, {"tie_word_embeddings": True})
    with pytest.raises(CheckpointRejected, match=r"lm_head\.weight.*differs"):
        load(folder)
    same = tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]}
    loaded = load(write_folder({"model.safetensors": same}, {"tie_word_embeddings": True})).parameters
    assert np.array_equal(loaded["embedding.weight"].numpy(), same["lm_head.weight"])


def test_dummy_weights_are_the_same_each_time(single_folder: Path) -> None:
    """They need shapes only, and their digest says what they are."""
    config = load_model_config(single_folder)
    first = build_dummy_weights(config, device=CPU, dtype=torch.float32)
    second = build_dummy_weights(config, device=CPU, dtype=torch.float32)
    assert first.digest == second.digest
    assert first.digest.startswith("dummy-")
    assert first.parameters.keys() == load(single_folder).parameters.keys()
    for name, parameter in first.parameters.items():
        assert torch.equal(parameter, second.parameters[name])
        assert parameter.shape == load(single_folder).parameters[name].shape
