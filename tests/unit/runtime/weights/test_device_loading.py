"""Reading with many threads: the same values and digests as one shard after the other; the first failure is the one told."""

from hashlib import sha256
from io import BufferedReader
from pathlib import Path

import pytest
import torch
from blake3 import blake3
from torch import Tensor

import runtime.weights.device_loading as device_loading
from runtime.errors import CheckpointRejected
from runtime.kernels.digest import DigestKernels
from runtime.weights.checkpoint import open_checkpoint
from runtime.weights.config import load_model_config
from runtime.weights.device_loading import read_shards_to_device
from runtime.weights.file_check import FileCheck, Hasher
from runtime.weights.layout import parameter_shapes
from runtime.weights.loading import load_weights
from runtime.weights.placing import Placing
from tests.support.plain_blake3 import PlainLauncher


def read(
    folder: Path,
    dtype: torch.dtype,
    seen: list[tuple[int, int]],
    check: FileCheck | None = None,
    kernels: DigestKernels | None = None,
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Into row-major tensors on the CPU, as they would be on a GPU."""
    config = load_model_config(folder)
    parameters = {name: torch.empty(shape.shape, dtype=dtype) for name, shape in parameter_shapes(config).items()}
    with open_checkpoint(folder, config) as checkpoint:
        placing = Placing(checkpoint.places, parameters, dtype)
        digests = read_shards_to_device(
            checkpoint,
            placing,
            parameters["embedding.weight"],
            lambda done, total: seen.append((done, total)),
            check,
            kernels=kernels,
        )
    return parameters, digests


def overwrite_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on a range of a file holds zeroes as soon as it was read."""
    read_at = device_loading.read_at

    def read_and_change(file: BufferedReader, target: memoryview, position: int, *, where: str) -> None:
        read_at(file, target, position, where=where)
        with open(f"/proc/self/fd/{file.fileno()}", "r+b") as written:
            written.seek(position)
            written.write(bytes(len(target)))

    monkeypatch.setattr(device_loading, "read_at", read_and_change)


@pytest.mark.parametrize("piece_bytes", [64, 97, 1 << 24])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_are_those_of_a_plain_read(
    sharded_folder: Path, monkeypatch: pytest.MonkeyPatch, piece_bytes: int, dtype: torch.dtype
) -> None:
    """Whatever the size of pieces, converted or not; progress ends at the whole."""
    monkeypatch.setattr(device_loading, "PIECE_BYTES", piece_bytes)
    seen: list[tuple[int, int]] = []
    parameters, digests = read(sharded_folder, dtype, seen)
    verified: dict[str, str] = {}
    config = load_model_config(sharded_folder)
    expected = load_weights(
        sharded_folder, config, device=torch.device("cpu"), dtype=dtype, verify=FileCheck(verified.update)
    )
    assert parameters.keys() == expected.parameters.keys()
    assert all(torch.equal(parameters[name], expected.parameters[name]) for name in parameters)
    assert digests == {name: digest for name, digest in verified.items() if name.endswith(".safetensors")}
    assert seen[-1][0] == seen[-1][1]


@pytest.mark.parametrize("num_threads", [1, 5])
def test_all_threads_may_read_and_hash_one_shard(
    single_folder: Path, monkeypatch: pytest.MonkeyPatch, num_threads: int
) -> None:
    """The check is told how many may share an update; its digest is that of the file."""
    monkeypatch.setattr(device_loading, "PIECE_BYTES", 32)
    config = load_model_config(single_folder)
    parameters = {name: torch.empty(shape.shape) for name, shape in parameter_shapes(config).items()}
    shares: list[int] = []

    def new_hasher(count: int) -> Hasher:
        shares.append(count)
        return blake3(max_threads=count)

    with open_checkpoint(single_folder, config) as checkpoint:
        digests = read_shards_to_device(
            checkpoint,
            Placing(checkpoint.places, parameters, torch.float32),
            parameters["embedding.weight"],
            None,
            FileCheck(lambda _digests: None, new_hasher),
            num_threads=num_threads,
        )
    assert shares == [num_threads]
    content = (single_folder / "model.safetensors").read_bytes()
    assert digests == {"model.safetensors": blake3(content).hexdigest()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pieces_are_hashed_where_tensors_take_them_from(
    sharded_folder: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    """By kernels, several pieces a shard, with what is read overwritten behind the reader at once: values and digests are those of
    the bytes that were read, header included."""
    kernels = DigestKernels(PlainLauncher(), group_chunks=2)
    monkeypatch.setattr(device_loading, "WINDOW_BYTES", 2 * kernels.group_bytes)
    monkeypatch.setattr(device_loading, "PIECE_BYTES", 1000)
    config = load_model_config(sharded_folder)
    expected = load_weights(sharded_folder, config, device=torch.device("cpu"), dtype=dtype).parameters
    wanted = blake3_of_shards(sharded_folder)
    overwrite_what_is_read(monkeypatch)
    seen: list[tuple[int, int]] = []
    check = FileCheck(lambda _digests: None, lambda _count: blake3(), "blake3")
    parameters, digests = read(sharded_folder, dtype, seen, check, kernels)
    assert digests == wanted
    assert all(torch.equal(parameters[name], expected[name]) for name in expected)
    assert wanted != blake3_of_shards(sharded_folder)
    assert seen[-1][0] == seen[-1][1]


def test_kernels_hash_nothing_that_is_to_be_digested_in_order(sharded_folder: Path) -> None:
    """With SHA-256 cores hash, whatever kernels there are."""
    kernels = DigestKernels(PlainLauncher())
    _, digests = read(sharded_folder, torch.float32, [], None, kernels)
    assert digests == {
        path.name: sha256(path.read_bytes()).hexdigest() for path in sharded_folder.glob("*.safetensors")
    }


def blake3_of_shards(folder: Path) -> dict[str, str]:
    return {path.name: blake3(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")}


def test_a_file_that_changes_while_it_is_read_has_the_digest_of_what_was_read(
    single_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes are read once: what is changed behind the reader, before or after it hashes, changes nothing of what it says."""
    monkeypatch.setattr(device_loading, "PIECE_BYTES", 64)
    path = single_folder / "model.safetensors"
    before = path.read_bytes()
    config = load_model_config(single_folder)
    parameters = {name: torch.empty(shape.shape) for name, shape in parameter_shapes(config).items()}
    overwrite_what_is_read(monkeypatch)
    with open_checkpoint(single_folder, config) as checkpoint:
        placing = Placing(checkpoint.places, parameters, torch.float32)
        digests = read_shards_to_device(checkpoint, placing, parameters["embedding.weight"], None)
    assert path.read_bytes() != before
    assert digests["model.safetensors"] == sha256(before).hexdigest()
    assert parameters["norm.weight"].count_nonzero() == parameters["norm.weight"].numel()


def test_a_shard_that_shrinks_is_named(sharded_folder: Path) -> None:
    """It is cut after its header was checked; the error is that shard's, whatever the other threads were told."""
    config = load_model_config(sharded_folder)
    parameters = {name: torch.empty(shape.shape) for name, shape in parameter_shapes(config).items()}
    cut = sorted(sharded_folder.glob("*.safetensors"))[1]
    with open_checkpoint(sharded_folder, config) as checkpoint:
        content = cut.read_bytes()
        cut.write_bytes(content[:-8])
        with pytest.raises(CheckpointRejected, match=f"{cut.name}: truncated"):
            read_shards_to_device(
                checkpoint, Placing(checkpoint.places, parameters, torch.float32), parameters["embedding.weight"], None
            )
