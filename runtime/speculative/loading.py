"""The weights of a head: every tensor that the format has, nothing else, in the shapes that its configuration says.

Names are those that SGLang, vLLM and SpecForge publish, with or without `model.` before them; vLLM's `layers.0.` is
`midlayer.`. An embedding in the folder is left out where the head shares its target's, as SGLang does; of a head by
vLLM's names only where it is the target's, as vLLM does: it may have been trained. `d2t` holds, for each id of the
draft vocabulary, the difference to the target's id; `t2d` says which ids of the target can be drafted at all.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from runtime.errors import CheckpointRejected
from runtime.speculative.config import NUM_CAPTURED, HeadConfig
from runtime.weights.checkpoint import Shard, open_shards, read_exactly
from runtime.weights.file_check import FileCheck, digests_of, hasher_of
from runtime.weights.header import StoredTensor

_FLOATS = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
_INTEGERS = {"I64": torch.int64, "I32": torch.int32}
EMBEDDING = "embed_tokens.weight"
_OFFSETS, _DRAFTED = "d2t", "t2d"
_JOINED = {
    "qkv.weight": tuple(f"midlayer.self_attn.{name}_proj.weight" for name in "qkv"),
    "gate_up.weight": tuple(f"midlayer.mlp.{name}_proj.weight" for name in ("gate", "up")),
}
_DUMMY_STD = 0.02


@dataclass(frozen=True, slots=True)
class HeadWeights:
    """Parameters by the format's names, those of one matrix joined, and where drafts stand in the target's vocabulary."""

    parameters: Mapping[str, Tensor]
    target_ids: Tensor
    """[draft_vocab_size] int64."""
    digest: str
    """SHA-256, hexadecimal, over lines `<digest of the file>  <name>\\n` sorted by name."""


def load_head_weights(
    folder: Path, config: HeadConfig, embedding: Tensor, *, verify: FileCheck | None = None
) -> HeadWeights:
    """Check and read a head, converted to the dtype and on the device of its target's embedding.

    Args:
        embedding: [vocab_size, hidden_size] of the target.
    Raises: CheckpointRejected, naming file and tensor; whatever `verify` raises.
    """
    shards = open_shards(folder)
    try:
        stored, digests = _read(shards, verify)
    finally:
        for shard in shards:
            shard.file.close()
    digests |= digests_of(config.files, verify)
    if verify is not None:
        verify.verify(digests)
    where = folder.name
    target_ids = _target_ids(stored, config, where)
    own = {} if config.needs_own_embedding else _own_embedding(stored, config, embedding, where)
    tensors = {name: _take(stored, name, shape, where) for name, shape in tensor_shapes(config).items()}
    for name in stored:
        raise CheckpointRejected(f"{where}: tensor {name!r}: unexpected in a head of EAGLE-3")
    lines = (f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    device, dtype = embedding.device, embedding.dtype
    return HeadWeights(
        own | {name: _placed(tensor, device, dtype) for name, tensor in _joined(tensors).items()},
        target_ids.to(device),
        hashlib.sha256("".join(lines).encode()).hexdigest(),
    )


def build_dummy_head(config: HeadConfig, *, device: torch.device, dtype: torch.dtype) -> HeadWeights:
    """Random weights of the right shapes, the same in every process, for measurements without a checkpoint."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randn(shape, generator=generator) * _DUMMY_STD if len(shape) == 2 else torch.ones(shape)
        for name, shape in tensor_shapes(config).items()
    }
    parameters = {name: _placed(tensor, device, dtype) for name, tensor in _joined(tensors).items()}
    return HeadWeights(parameters, torch.arange(config.draft_vocab_size, device=device), "dummy")


def shaped_head(config: HeadConfig, *, device: torch.device, dtype: torch.dtype) -> HeadWeights:
    """Parameters of the right shapes that hold nothing; joined by numbers, as torch's way on `meta` imports its compiler."""
    shapes = tensor_shapes(config)
    for joined, names in _JOINED.items():
        parts = [shapes.pop(name) for name in names]
        shapes[joined] = (sum(rows for rows, _ in parts), parts[0][1])
    parameters = {name: torch.empty(shape, device=device, dtype=dtype) for name, shape in shapes.items()}
    return HeadWeights(parameters, torch.empty(config.draft_vocab_size, dtype=torch.int64, device=device), "")


def tensor_shapes(config: HeadConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of numbers that a head must have, by the format's names."""
    hidden, inner = config.hidden_size, config.intermediate_size
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "fc.weight": (hidden, NUM_CAPTURED * config.target_hidden_size),
        "midlayer.input_layernorm.weight": (hidden,),
        "midlayer.hidden_norm.weight": (hidden,),
        "midlayer.post_attention_layernorm.weight": (hidden,),
        "midlayer.self_attn.q_proj.weight": (queries, 2 * hidden),
        "midlayer.self_attn.k_proj.weight": (keys, 2 * hidden),
        "midlayer.self_attn.v_proj.weight": (keys, 2 * hidden),
        "midlayer.self_attn.o_proj.weight": (hidden, queries),
        "midlayer.mlp.gate_proj.weight": (inner, hidden),
        "midlayer.mlp.up_proj.weight": (inner, hidden),
        "midlayer.mlp.down_proj.weight": (hidden, inner),
        "norm.weight": (hidden,),
        "lm_head.weight": (config.draft_vocab_size, hidden),
    }
    if config.needs_own_embedding:
        shapes[EMBEDDING] = (config.vocab_size, hidden)
    return shapes


def _read(shards: list[Shard], check: FileCheck | None) -> tuple[dict[str, tuple[StoredTensor, bytes]], dict[str, str]]:
    """All tensors by their plain names, and the digest of each shard."""
    stored: dict[str, tuple[StoredTensor, bytes]] = {}
    digests: dict[str, str] = {}
    for shard in shards:
        hasher = hasher_of(check, shard.prefix, num_threads=len(os.sched_getaffinity(0)))
        for tensor in shard.tensors:
            content = read_exactly(shard.file, tensor.end - tensor.begin, where=shard.name)
            hasher.update(content)
            name = tensor.name.removeprefix("model.").replace("layers.0.", "midlayer.", 1)
            if name in stored:
                raise CheckpointRejected(f"{shard.name}: tensor {tensor.name!r} is in the head twice")
            stored[name] = tensor, content
        digests[shard.name] = hasher.hexdigest()
    return stored, digests


def _own_embedding(
    stored: dict[str, tuple[StoredTensor, bytes]], config: HeadConfig, embedding: Tensor, where: str
) -> dict[str, Tensor]:
    """Remove what need not be there; kept is what differs from the target's, where it may."""
    if EMBEDDING not in stored:
        return {}
    own = _take(stored, EMBEDDING, (config.vocab_size, config.hidden_size), where)
    if not config.may_differ_in_embedding:
        return {}
    own = own.to(embedding.device, embedding.dtype)
    return {} if torch.equal(own, embedding) else {EMBEDDING: own}


def _take(stored: dict[str, tuple[StoredTensor, bytes]], name: str, shape: tuple[int, ...], where: str) -> Tensor:
    """Remove a tensor of numbers from what was read."""
    return _tensor(stored, name, shape, _FLOATS, where)


def _tensor(
    stored: dict[str, tuple[StoredTensor, bytes]],
    name: str,
    shape: tuple[int, ...],
    dtypes: Mapping[str, torch.dtype],
    where: str,
) -> Tensor:
    if name not in stored:
        raise CheckpointRejected(f"{where}: the head lacks tensor {name!r}")
    tensor, content = stored.pop(name)
    if tensor.dtype not in dtypes:
        raise CheckpointRejected(
            f"{where}: tensor {name!r}: expected dtype {' or '.join(dtypes)}, found {tensor.dtype}"
        )
    if tensor.shape != shape:
        raise CheckpointRejected(f"{where}: tensor {name!r}: expected shape {list(shape)}, found {list(tensor.shape)}")
    return torch.frombuffer(bytearray(content), dtype=dtypes[tensor.dtype]).view(shape)


def _target_ids(stored: dict[str, tuple[StoredTensor, bytes]], config: HeadConfig, where: str) -> Tensor:
    """[draft_vocab_size] int64: the target's id of each draft; checked to be different ids of its vocabulary."""
    size = config.draft_vocab_size
    target_ids = torch.arange(size)
    if size < config.vocab_size or _OFFSETS in stored:
        target_ids = target_ids + _tensor(stored, _OFFSETS, (size,), _INTEGERS, where).long()
    if bool(((target_ids < 0) | (target_ids >= config.vocab_size)).any()):
        raise CheckpointRejected(
            f"{where}: tensor {_OFFSETS!r}: expected ids in [0, {config.vocab_size}), "
            f"found {int(target_ids.min())} to {int(target_ids.max())}"
        )
    if len(target_ids.unique()) < size:
        raise CheckpointRejected(f"{where}: tensor {_OFFSETS!r}: two drafts stand for the same token")
    if _DRAFTED in stored:
        drafted = _tensor(stored, _DRAFTED, (config.vocab_size,), {"BOOL": torch.bool}, where)
        if int(drafted.sum()) != size or not bool(drafted[target_ids].all()):
            raise CheckpointRejected(f"{where}: tensor {_DRAFTED!r}: does not say the same tokens as {_OFFSETS!r}")
    return target_ids


def _joined(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values as one matrix, gate and up projection as another."""
    joined = {matrix: torch.cat([tensors.pop(name).float() for name in names]) for matrix, names in _JOINED.items()}
    return joined | tensors


def _placed(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """On its device; matrices on a CPU column by column, see `runtime.weights.loading`."""
    if tensor.ndim == 2 and device.type == "cpu":
        return tensor.to(dtype).t().contiguous().t()
    return tensor.to(device, dtype)
