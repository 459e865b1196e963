"""Checkpoints on their way to a GPU."""

import random
from pathlib import Path

import pytest
import torch
from blake3 import blake3

from runtime.kernels.digest import DigestKernels
from runtime.kernels.launcher import JitLauncher
from runtime.runner.building import apply_quantization
from runtime.weights import device_loading
from runtime.weights.config import load_model_config
from runtime.weights.file_check import FileCheck
from runtime.weights.loading import load_weights
from runtime.weights.tree_digest import TreeDigest
from tests.support.plain_blake3 import PUBLISHED, published_input
from tests.support.quantized_checkpoints import (
    FORMATS,
    cache_scale_tensors,
    plain_tensors,
    quantized_tensors,
    write_checkpoint,
)
from tests.support.random_models import write_random_model

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_digest_are_those_of_the_cpu(tmp_path: Path, device: torch.device, dtype: torch.dtype) -> None:
    """In pinned chunks on a stream of their own, converted on the way."""
    config = load_model_config(write_random_model(tmp_path))
    expected = load_weights(tmp_path, config, device=torch.device("cpu"), dtype=dtype)
    given = load_weights(tmp_path, config, device=device, dtype=dtype)
    assert given.digest == expected.digest
    assert all(torch.equal(given.parameters[name].cpu(), expected.parameters[name]) for name in expected.parameters)


@pytest.mark.parametrize("name", [*FORMATS, "at load"])
def test_quantized_values_are_those_of_the_cpu(tmp_path: Path, device: torch.device, name: str) -> None:
    """Every byte of every matrix and scale, of every format, and a KV cache's scales; ten times, as threads and streams race."""
    form = FORMATS.get(name)
    tensors = (plain_tensors() if form is None else quantized_tensors(form)) | cache_scale_tensors("k_scale", "v_scale")
    folder = write_checkpoint(tmp_path, tensors, None if form is None else form.declared)
    config = apply_quantization(load_model_config(folder), "fp8")
    expected = load_weights(folder, config, device=torch.device("cpu"), dtype=torch.bfloat16)
    for _ in range(10):
        given = load_weights(folder, config, device=device, dtype=torch.bfloat16)
        for key, wanted in expected.parameters.items():
            assert torch.equal(bytes_of(given.parameters[key]), bytes_of(wanted)), key
        assert given.cache_scales is not None
        assert expected.cache_scales is not None
        assert given.cache_scales.tolist() == expected.cache_scales.tolist()


LENGTHS = [0, 1, 3, 4, 63, 64, 65, 127, 128, 1023, 1024, 1025, 2047, 2048, 2049, 3072, 3073, 5121, 31_744, 102_400]


@pytest.mark.parametrize("group_chunks", [2, 128])
def test_files_of_all_kinds_of_length_are_hashed_as_by_the_library(device: torch.device, group_chunks: int) -> None:
    """Those of the official vectors, around a group and around a group of groups, and random ones; pieces come in any order."""
    kernels = DigestKernels(JitLauncher(), group_chunks=group_chunks)
    group, random_number = kernels.group_bytes, random.Random(7)
    around = [unit + change for unit in (group, 2 * group, group * group_chunks) for change in (-1, 0, 1, 1024, 1025)]
    contents = [random_number.randbytes(length) for length in LENGTHS + around]
    contents += [random_number.randbytes(random_number.randrange(1 << 22)) for _ in range(20)]
    for content in [*contents, *map(published_input, PUBLISHED)]:
        length = len(content)
        digest = TreeDigest(length, device, kernels)
        piece_bytes = group * random_number.choice([1, 3, 64])
        starts = list(range(0, max(1, length), piece_bytes))
        random_number.shuffle(starts)
        for start in starts:
            piece = content[start : start + piece_bytes]
            staged = torch.zeros(-(-len(piece) // 1024) * 1024, dtype=torch.uint8)
            staged[: len(piece)] = torch.frombuffer(bytearray(piece), dtype=torch.uint8) if piece else 0
            digest.add(start, staged.to(device), len(piece))
        found = digest.hexdigest()
        assert found == blake3(content).hexdigest(), length
        assert content != published_input(length) or found == PUBLISHED.get(length, found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_digests_by_a_tree_are_computed_on_the_device(
    tmp_path: Path, device: torch.device, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the very bytes from which the tensors are filled; in many small windows, ten times, as threads and streams race."""
    kernels = DigestKernels(JitLauncher())
    monkeypatch.setattr(device_loading, "WINDOW_BYTES", 2 * kernels.group_bytes)
    monkeypatch.setattr(device_loading, "PIECE_BYTES", 100_000)
    folder = write_random_model(tmp_path)
    config = load_model_config(folder)
    expected = load_weights(folder, config, device=torch.device("cpu"), dtype=dtype)
    digests = {path.name: blake3(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")}
    for _ in range(10):
        told: dict[str, str] = {}
        check = FileCheck(told.update, lambda count: blake3(max_threads=count), "blake3")
        given = load_weights(folder, config, device=device, dtype=dtype, verify=check, kernels=kernels)
        assert {name: told[name] for name in digests} == digests
        assert all(torch.equal(given.parameters[name].cpu(), expected.parameters[name]) for name in expected.parameters)


def bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.cpu().contiguous().view(torch.uint8)
