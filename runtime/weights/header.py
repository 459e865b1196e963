"""The header of a safetensors file, parsed from untrusted bytes.

Layout (half-open, bytes): [0, 8) length N of the header, little-endian; [8, 8 + N) JSON; [8 + N, end) tensor data.
The JSON maps each tensor's name to `dtype`, `shape` and `data_offsets` (begin, end from the start of the data), and
`__metadata__` to strings.

The format leaves room for files that two readers understand differently. Accepted here is only a file whose tensors
fill the data from its first byte to the file's last, each byte once, under names that are all different.
Source: the format's description in the safetensors project.
"""

import math
from dataclasses import dataclass
from typing import Any

from runtime.errors import CheckpointRejected
from runtime.weights.json_file import parse_json_object

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000
MAX_DIMENSIONS = 8
DTYPE_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a file; `begin` and `end` count from the file's first byte, half-open."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def parse_header_length(prefix: bytes, file_bytes: int, *, where: str) -> int:
    """Read the length of the JSON from the first bytes of a file of `file_bytes`.

    Raises: CheckpointRejected.
    """
    if len(prefix) < LENGTH_BYTES:
        raise CheckpointRejected(f"{where}: not a safetensors file: {len(prefix)} bytes long")
    length = int.from_bytes(prefix[:LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        raise CheckpointRejected(
            f"{where}: not a safetensors file: header of {length} bytes, at most {MAX_HEADER_BYTES}"
        )
    if LENGTH_BYTES + length > file_bytes:
        raise CheckpointRejected(
            f"{where}: truncated: header ends at byte {LENGTH_BYTES + length}, the file at {file_bytes}"
        )
    return length


def parse_header(content: bytes, file_bytes: int, *, where: str) -> tuple[StoredTensor, ...]:
    """Parse the JSON of a header into its tensors, in the order of their bytes.

    Args:
        content: the JSON, without the length before it.
        file_bytes: size of the whole file.
        where: the file's name for messages.
    Raises: CheckpointRejected, naming file and tensor, for whatever is refused.
    """
    entries = parse_json_object(content, where=f"{where}: header")
    metadata = entries.pop("__metadata__", {})
    if type(metadata) is not dict or not all(type(value) is str for value in metadata.values()):
        raise CheckpointRejected(f"{where}: __metadata__: expected an object of strings")
    data_start = LENGTH_BYTES + len(content)
    tensors = [_parse_entry(name, entry, data_start, where) for name, entry in entries.items()]
    tensors.sort(key=lambda tensor: (tensor.begin, tensor.end))
    _verify_coverage(tensors, data_start, file_bytes, where)
    return tuple(tensors)


def _parse_entry(name: str, entry: Any, data_start: int, where: str) -> StoredTensor:
    def rejected(what: str) -> CheckpointRejected:
        return CheckpointRejected(f"{where}: tensor {name!r}: {what}")

    if type(entry) is not dict or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise rejected("expected exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if type(dtype) is not str or dtype not in DTYPE_BYTES:
        raise rejected(f"unknown dtype {dtype!r}")
    if not _is_naturals(shape) or len(shape) > MAX_DIMENSIONS:
        raise rejected("shape: expected a short list of integers from 0")
    if not _is_naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise rejected(f"data_offsets: expected begin and end, found {offsets!r}")
    size_bytes = DTYPE_BYTES[dtype] * math.prod(shape)
    if offsets[1] - offsets[0] != size_bytes:
        raise rejected(f"{dtype} of shape {shape} takes {size_bytes} bytes, data_offsets say {offsets[1] - offsets[0]}")
    return StoredTensor(name, dtype, tuple(shape), data_start + offsets[0], data_start + offsets[1])


def _is_naturals(values: Any) -> bool:
    return type(values) is list and all(type(value) is int and 0 <= value < 1 << 53 for value in values)


def _verify_coverage(tensors: list[StoredTensor], data_start: int, file_bytes: int, where: str) -> None:
    """Every byte of the data belongs to exactly one tensor."""
    end, previous = data_start, "the header"
    for tensor in tensors:
        if tensor.begin < end:
            raise CheckpointRejected(f"{where}: tensor {tensor.name!r} overlaps {previous!r}")
        if tensor.begin > end:
            raise CheckpointRejected(
                f"{where}: {tensor.begin - end} bytes before tensor {tensor.name!r} belong to none"
            )
        if tensor.end > file_bytes:
            raise CheckpointRejected(
                f"{where}: truncated: tensor {tensor.name!r} ends at byte {tensor.end}, the file at {file_bytes}"
            )
        end, previous = tensor.end, tensor.name
    if end != file_bytes:
        raise CheckpointRejected(f"{where}: {file_bytes - end} bytes after the last tensor belong to none")
