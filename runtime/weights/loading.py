"""Weights as tensors: read from a checked checkpoint in one pass, or random ones of the same shapes.

Reading and hashing are one pass over the same bytes in memory, so the digest is that of what was loaded, whatever
happens to the files meanwhile. Fused parameters are allocated first and filled range by range; at no time are there two
copies of more than one tensor.
"""

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from runtime.errors import CheckpointRejected
from runtime.kernels.digest import DigestKernels
from runtime.layers.quantized import E4M3, quantize_channels
from runtime.weights.cache_scales import CACHE_SCALES
from runtime.weights.checkpoint import Checkpoint, Shard, open_checkpoint, read_into
from runtime.weights.config import ModelConfig
from runtime.weights.device_loading import read_shards_to_device
from runtime.weights.file_check import FileCheck, digests_of, hasher_of
from runtime.weights.header import StoredTensor
from runtime.weights.layout import ParameterShape, Role, parameter_shapes
from runtime.weights.placing import FILE_DTYPES, Placing
from runtime.weights.shares import WHOLE, Share

Progress = Callable[[int, int], None]
"""Called with (bytes read, bytes in all), often."""

_CHUNK_BYTES = 1 << 24
_DUMMY_STD = 0.02
_DUMMY_SCALE = 2e-4
"""With it weights in e4m3 are about as large as those that are not."""


@dataclass(frozen=True, slots=True)
class LoadedWeights:
    """Parameters by the names of `layout`, and the digest of the files that they came from."""

    parameters: Mapping[str, Tensor]
    digest: str
    """SHA-256, hexadecimal, over lines `<digest of the file>  <name>\\n` sorted by name, of configuration and shards."""
    cache_scales: Tensor | None = None
    """[num_layers, 2] float32: of keys and values, where the checkpoint has them."""


def load_weights(
    folder: Path,
    config: ModelConfig,
    *,
    device: torch.device,
    dtype: torch.dtype,
    share: Share = WHOLE,
    progress: Progress | None = None,
    verify: FileCheck | None = None,
    kernels: DigestKernels | None = None,
) -> LoadedWeights:
    """Check and read the checkpoint of `folder`, converted to `dtype` on `device`.

    Args:
        config: of the whole model.
        share: what of it is kept; all of it is read and hashed.
        kernels: hash on the device what `verify` wants digested by a tree.
    Raises: CheckpointRejected, naming file and tensor; whatever `verify` raises.
    """
    with open_checkpoint(folder, config, share) as checkpoint:
        parameters = allocate_parameters(config, device=device, dtype=dtype, share=share)
        if any(place.parameter == CACHE_SCALES for place in checkpoint.places.values()):
            parameters[CACHE_SCALES] = torch.empty(2 * config.num_layers, dtype=torch.float32, device=device)
        placing, embedding = Placing(checkpoint.places, parameters, dtype), parameters["embedding.weight"]
        if device.type == "cpu":
            shard_digests = _read_shards(checkpoint, placing, embedding, progress, verify)
        else:
            shard_digests = read_shards_to_device(checkpoint, placing, embedding, progress, verify, kernels=kernels)
    digests = {**digests_of(config.files, verify), **shard_digests}
    if verify is not None:
        verify.verify(digests)
    placing.verify()
    cache_scales = parameters.pop(CACHE_SCALES, None)
    digest = _digest_of(digests.items())
    return LoadedWeights(parameters, digest, None if cache_scales is None else cache_scales.view(-1, 2))


def build_dummy_weights(
    config: ModelConfig, *, device: torch.device, dtype: torch.dtype, share: Share = WHOLE
) -> LoadedWeights:
    """Random weights of the right shapes, the same in every process, for measurements without a checkpoint."""
    parameters = allocate_parameters(config, device=device, dtype=dtype, share=share)
    shapes = parameter_shapes(config, share)
    generator = torch.Generator(device=device).manual_seed(0)
    for name, parameter in parameters.items():
        if name.endswith("norm.weight"):
            parameter.fill_(1.0)
        elif name.endswith(".bias"):
            parameter.zero_()
        elif shapes[name].role in (Role.E4M3, Role.TO_ROUND):
            wide = torch.empty(parameter.shape, device=device, dtype=dtype).normal_(
                0.0, _DUMMY_STD, generator=generator
            )
            parameter.copy_(quantize_channels(wide)[0])
        elif shapes[name].role is not Role.PLAIN:
            parameter.fill_(_DUMMY_SCALE)
        else:
            parameter.normal_(0.0, _DUMMY_STD, generator=generator)
    return LoadedWeights(parameters, f"dummy-{_digest_of(config.file_digests)}")


def allocate_parameters(
    config: ModelConfig, *, device: torch.device, dtype: torch.dtype, share: Share = WHOLE
) -> dict[str, Tensor]:
    """Uninitialized parameters of a model, by name."""
    return {name: _allocate(shape, device, dtype) for name, shape in parameter_shapes(config, share).items()}


def parameter_dtype(parameter: ParameterShape, dtype: torch.dtype) -> torch.dtype:
    """That of a parameter in a model of `dtype`."""
    if parameter.role in (Role.E4M3, Role.TO_ROUND):
        return E4M3
    return dtype if parameter.role is Role.PLAIN else torch.float32


def _allocate(parameter: ParameterShape, device: torch.device, dtype: torch.dtype) -> Tensor:
    # A matrix [out, in] is stored column by column on the CPU: measured with MKL on Sapphire Rapids, products of 16
    # rows are 1.4–2.2 times as fast as over rows (149 against 84 GFLOP/s for 256 → 512), and F.linear takes both.
    if parameter.is_matrix and device.type == "cpu":
        return torch.empty(parameter.shape[::-1], device=device, dtype=dtype).t()
    # Zeros: the scale of a layer's inputs grows from there.
    allocate = torch.zeros if parameter.role is Role.INPUT_SCALE else torch.empty
    return allocate(parameter.shape, device=device, dtype=parameter_dtype(parameter, dtype))


def _read_shards(
    checkpoint: Checkpoint, placing: Placing, embedding: Tensor, progress: Progress | None, check: FileCheck | None
) -> dict[str, str]:
    """Fill the places and return the digest of each shard."""
    digests: dict[str, str] = {}
    tied_heads: list[Tensor] = []
    done_bytes = 0
    for shard in checkpoint.shards:
        hasher = hasher_of(check, shard.prefix, num_threads=len(os.sched_getaffinity(0)))
        done_bytes += len(shard.prefix)
        for stored in shard.tensors:
            content = torch.empty(stored.end - stored.begin, dtype=torch.uint8)
            for chunk in _read_chunks(shard, content.numpy().data):
                hasher.update(chunk)
                done_bytes += len(chunk)
                if progress is not None:
                    progress(done_bytes, checkpoint.size_bytes)
            target = placing.target(stored.name)
            if target is not None:
                target.copy_(_as_stored(stored, content).view(target.shape))
                placing.filled(stored.name, target)
            elif stored.name == "lm_head.weight":
                tied_heads.append(_as_stored(stored, content))
        digests[shard.name] = hasher.hexdigest()
    _verify_tied(tied_heads, embedding)
    return digests


def _read_chunks(shard: Shard, target: memoryview) -> Iterator[memoryview]:
    """Fill `target` with the bytes that follow those read before, giving each piece as it is there."""
    for start in range(0, len(target), _CHUNK_BYTES):
        chunk = target[start : start + _CHUNK_BYTES]
        read_into(shard.file, chunk, where=shard.name)
        yield chunk


def _verify_tied(heads: list[Tensor], embedding: Tensor) -> None:
    for head in heads:
        if not torch.equal(head.to(embedding.dtype), embedding.cpu()):
            raise CheckpointRejected("tensor 'lm_head.weight' differs from the embedding that config.json ties it to")


def _as_stored(stored: StoredTensor, content: Tensor) -> Tensor:
    dtype = FILE_DTYPES[stored.dtype]
    assert content.numel() == math.prod(stored.shape) * dtype.itemsize
    return content.view(dtype).view(stored.shape)


def _digest_of(file_digests: Iterable[tuple[str, str]]) -> str:
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(file_digests))
    return hashlib.sha256(lines.encode()).hexdigest()
