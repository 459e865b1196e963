"""All shards of a checkpoint, opened and checked against each other, the index and the model's configuration.

A checkpoint is `model.safetensors`, or the shards that `model.safetensors.index.json` lists; both at once, and any other
safetensors file beside them, are refused, since it would be unclear which of them was approved.

Checks, in this order: (1) the folder holds nothing executable; (2) the index is sound; (3) each shard's header and size;
(4) no tensor in two shards, none elsewhere than the index says; (5) exactly the tensors that the model needs, in the
configured shape and dtype. The files stay open from the check to the reading, so that a name that is pointed elsewhere
in between changes nothing.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from types import TracebackType

from runtime.errors import CheckpointRejected
from runtime.weights.cache_scales import cache_scale_places
from runtime.weights.config import ModelConfig
from runtime.weights.fields import Fields
from runtime.weights.folder import verify_model_folder
from runtime.weights.header import LENGTH_BYTES, StoredTensor, parse_header, parse_header_length
from runtime.weights.json_file import load_json_object, open_regular_file
from runtime.weights.layout import Role, TensorPlace, tensor_places
from runtime.weights.shares import WHOLE, Share

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
FILE_DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}

_SHARD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}\.safetensors")
_EMBEDDING = "model.embed_tokens.weight"
_HEAD = "lm_head.weight"
_ROPE_BUFFER = ".rotary_emb.inv_freq"
_NAMES_SHOWN = 3
_SCALES = (Role.SCALE, Role.TENSOR_SCALE, Role.INPUT_SCALE)


@dataclass(frozen=True, slots=True)
class Shard:
    """One open safetensors file: its header as read, and its tensors in the order of their bytes."""

    name: str
    file: BufferedReader
    prefix: bytes
    """Everything before the data: length and JSON."""
    tensors: tuple[StoredTensor, ...]
    size_bytes: int


class Checkpoint:
    """The open, checked shards of one model; a context manager that closes them."""

    def __init__(self, shards: tuple[Shard, ...], places: Mapping[str, TensorPlace]) -> None:
        self.shards = shards
        self.places = places
        """Where each stored tensor goes; one without a place is redundant."""
        self.size_bytes = sum(shard.size_bytes for shard in shards)

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for shard in self.shards:
            shard.file.close()


def open_checkpoint(folder: Path, config: ModelConfig, share: Share = WHOLE) -> Checkpoint:
    """Open and check all shards of a model folder; see the module for what is checked.

    Args:
        config: of the whole model.
        share: what of it is to be loaded.
    Raises: CheckpointRejected, naming file and tensor.
    """
    shards = open_shards(folder)  # (1) to (4)
    try:
        places = _verify_tensors(shards, config, share)  # (5)
    except CheckpointRejected:
        _close(shards)
        raise
    return Checkpoint(tuple(shards), places)


def open_shards(folder: Path) -> list[Shard]:
    """Open the shards of any checkpoint, checked for all that its configuration does not say: (1) to (4) of the module.

    Raises: CheckpointRejected, naming file and tensor.
    """
    verify_model_folder(folder)  # (1)
    weight_map = _load_index(folder)  # (2)
    shards: list[Shard] = []
    try:
        for name in sorted(set(weight_map.values())) if weight_map is not None else [SINGLE_FILE]:
            shards.append(_open_shard(folder / name))  # (3)
        _verify_shards(shards, weight_map)  # (4)
    except CheckpointRejected:
        _close(shards)
        raise
    return shards


def _close(shards: list[Shard]) -> None:
    for shard in shards:
        shard.file.close()


def _load_index(folder: Path) -> dict[str, str] | None:
    """The index's map from tensor to shard; None if the checkpoint is a single file."""
    present = {path.name for path in folder.iterdir() if path.suffix == ".safetensors"}
    weight_map: dict[str, str] | None = None
    listed = {SINGLE_FILE}
    if (folder / INDEX_FILE).exists():
        names = Fields(load_json_object(folder / INDEX_FILE), INDEX_FILE).raw("weight_map")
        if type(names) is not dict or not names:
            raise CheckpointRejected(
                f"{INDEX_FILE}: weight_map: expected an object that names the shard of each tensor"
            )
        for tensor, shard in names.items():
            if type(shard) is not str or not _SHARD_NAME.fullmatch(shard):
                raise CheckpointRejected(f"{INDEX_FILE}: tensor {tensor!r}: {shard!r} is not a shard's file name")
        weight_map, listed = names, set(names.values())
    elif SINGLE_FILE not in present:
        raise CheckpointRejected(f"{folder}: holds neither {SINGLE_FILE} nor {INDEX_FILE}")
    for name in sorted(listed - present):
        raise CheckpointRejected(f"{folder / name}: shard is missing; {INDEX_FILE} lists it")
    for name in sorted(present - listed):
        raise CheckpointRejected(f"{folder / name}: not part of the checkpoint; remove it or list it in {INDEX_FILE}")
    return weight_map


def _open_shard(path: Path) -> Shard:
    file = open_regular_file(path)
    try:
        size_bytes = os.fstat(file.fileno()).st_size
        length_field = read_exactly(file, min(LENGTH_BYTES, size_bytes), where=path.name)
        length = parse_header_length(length_field, size_bytes, where=path.name)
        content = read_exactly(file, length, where=path.name)
        tensors = parse_header(content, size_bytes, where=path.name)
    except CheckpointRejected:
        file.close()
        raise
    return Shard(path.name, file, length_field + content, tensors, size_bytes)


def read_exactly(file: BufferedReader, size_bytes: int, *, where: str) -> bytes:
    """Read so many bytes. Raises: CheckpointRejected on an error or if the file has become shorter."""
    content = bytearray(size_bytes)
    read_into(file, memoryview(content), where=where)
    return bytes(content)


def read_into(file: BufferedReader, target: memoryview, *, where: str) -> None:
    """Fill `target` from the file. Raises: CheckpointRejected on an error or if the file has become shorter."""
    filled = 0
    while filled < len(target):
        try:
            count = file.readinto(target[filled:])
        except OSError as error:
            raise CheckpointRejected(f"{where}: cannot be read: {error.strerror or error}") from error
        if not count:
            raise CheckpointRejected(f"{where}: truncated while being read")
        filled += count


def read_at(file: BufferedReader, target: memoryview, position: int, *, where: str) -> None:
    """Fill `target` from a position of the file, whoever else reads it. Raises: as `read_into`."""
    filled = 0
    while filled < len(target):
        try:
            count = os.preadv(file.fileno(), [target[filled:]], position + filled)
        except OSError as error:
            raise CheckpointRejected(f"{where}: cannot be read: {error.strerror or error}") from error
        if not count:
            raise CheckpointRejected(f"{where}: truncated while being read")
        filled += count


def _verify_shards(shards: list[Shard], weight_map: dict[str, str] | None) -> None:
    found: dict[str, str] = {}
    for shard in shards:
        for tensor in shard.tensors:
            if tensor.name in found:
                raise CheckpointRejected(f"tensor {tensor.name!r} is in {found[tensor.name]} and in {shard.name}")
            found[tensor.name] = shard.name
    for name, listed in (weight_map or {}).items():
        if found.get(name) != listed:
            raise CheckpointRejected(
                f"{listed}: tensor {name!r} is not in it, though {INDEX_FILE} says so; found in {found.get(name, 'no shard')}"
            )
    if weight_map is not None:
        _refuse_names((name for name in found if name not in weight_map), f"not listed in {INDEX_FILE}", found)


def _verify_tensors(shards: list[Shard], config: ModelConfig, share: Share) -> dict[str, TensorPlace]:
    """Check names, shapes and dtypes, and return where each tensor goes."""
    found = {tensor.name: shard.name for shard in shards for tensor in shard.tensors}
    places = tensor_places(config, share) | cache_scale_places(config, found)
    if config.tie_word_embeddings and _EMBEDDING not in found and _HEAD in found:
        # safetensors stores one of two names of a shared tensor; which of them is up to the writer.
        places[_HEAD] = places.pop(_EMBEDDING)
    missing = [name for name in places if name not in found]
    if missing:
        shown = ", ".join(repr(name) for name in missing[:_NAMES_SHOWN])
        raise CheckpointRejected(f"checkpoint lacks {len(missing)} of the model's {len(places)} tensors: {shown}")
    _refuse_names(
        (name for name in found if name not in places and not _is_redundant(name, config)), "unexpected", found
    )
    expected_dtype = FILE_DTYPES.get(config.dtype or "")
    for shard in shards:
        for tensor in shard.tensors:
            place = places.get(tensor.name)
            shape = place.shape if place is not None else (config.vocab_size, config.hidden_size)
            _verify_tensor(tensor, shard.name, place, shape, expected_dtype)
    return places


def _verify_tensor(
    tensor: StoredTensor, shard: str, place: TensorPlace | None, shape: tuple[int, ...], expected_dtype: str | None
) -> None:
    if tensor.name.endswith(_ROPE_BUFFER):
        return
    role = Role.PLAIN if place is None else place.role
    allowed = (expected_dtype,) if expected_dtype else tuple(FILE_DTYPES.values())
    if role is Role.E4M3:
        allowed = ("F8_E4M3",)
    elif role in _SCALES:
        allowed = tuple(FILE_DTYPES.values())
    if tensor.dtype not in allowed:
        raise CheckpointRejected(
            f"{shard}: tensor {tensor.name!r}: expected dtype {' or '.join(allowed)}, found {tensor.dtype}"
        )
    # A scale may be stored as a column, or without a dimension.
    found, wanted = (_without_ones(tensor.shape), _without_ones(shape)) if role in _SCALES else (tensor.shape, shape)
    if found != wanted:
        raise CheckpointRejected(
            f"{shard}: tensor {tensor.name!r}: expected shape {list(shape)}, found {list(tensor.shape)}"
        )


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _is_redundant(name: str, config: ModelConfig) -> bool:
    """A tensor that a checkpoint may hold though the model does not need it.

    That is the head's matrix in a model that ties it to the embedding (reading verifies that it is the same), and the
    rotary frequencies that old versions of transformers stored, which follow from the configuration.
    """
    return (name == _HEAD and config.tie_word_embeddings) or (
        name.startswith("model.layers.") and name.endswith(_ROPE_BUFFER)
    )


def _refuse_names(names: Iterable[str], what: str, shard_of: dict[str, str]) -> None:
    for name in names:
        raise CheckpointRejected(f"{shard_of[name]}: tensor {name!r}: {what}")
