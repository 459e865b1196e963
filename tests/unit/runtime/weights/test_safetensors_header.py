"""The header parser: what it accepts agrees with the safetensors library, what is ambiguous or wrong it refuses."""

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import CheckpointRejected
from runtime.weights.header import MAX_HEADER_BYTES, StoredTensor, parse_header, parse_header_length

ENTRY = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


def parse(file: bytes) -> tuple[StoredTensor, ...]:
    length = parse_header_length(file[:8], len(file), where="x.safetensors")
    return parse_header(file[8 : 8 + length], len(file), where="x.safetensors")


def build(header: dict[str, Any] | str, data: bytes) -> bytes:
    content = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(content)) + content + data


def test_a_file_of_the_library_is_read_to_the_byte() -> None:
    """Names, shapes and the bytes of a file that safetensors wrote come out as they went in."""
    tensors = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.ones(3, np.int64), "c": np.float16([[1.5]])}
    file = safetensors.numpy.save(tensors, {"format": "np"})
    parsed = {tensor.name: tensor for tensor in parse(file)}
    assert parsed.keys() == tensors.keys()
    for name, tensor in parsed.items():
        assert tensor.shape == tensors[name].shape
        assert file[tensor.begin : tensor.end] == tensors[name].tobytes()


CASES: dict[str, tuple[dict[str, Any] | str, bytes, str]] = {
    "duplicate_names": (
        f'{{"a": {json.dumps(ENTRY)}, "a": {json.dumps(ENTRY | {"data_offsets": [24, 48]})}}}', bytes(48), "'a' occurs twice",
    ),
    "overlap": ({"a": ENTRY, "b": ENTRY | {"data_offsets": [20, 44]}}, bytes(44), "'b' overlaps 'a'"),
    "same_bytes": ({"a": ENTRY, "b": ENTRY}, bytes(24), "overlaps"),
    "hole": ({"a": ENTRY, "b": ENTRY | {"data_offsets": [28, 52]}}, bytes(52), "4 bytes before tensor 'b'"),
    "hole_at_start": ({"a": ENTRY | {"data_offsets": [8, 32]}}, bytes(32), "8 bytes before tensor 'a'"),
    "trailing_bytes": ({"a": ENTRY}, bytes(25), "1 bytes after the last tensor"),
    "truncated": ({"a": ENTRY}, bytes(23), "truncated: tensor 'a'"),
    "size_and_shape_differ": ({"a": ENTRY | {"shape": [2, 4]}}, bytes(24), "tensor 'a'.*takes 32 bytes"),
    "backward": ({"a": ENTRY | {"data_offsets": [24, 0]}}, bytes(24), "tensor 'a': data_offsets"),
    "negative": ({"a": ENTRY | {"data_offsets": [-24, 0]}}, bytes(24), "tensor 'a': data_offsets"),
    "offsets_are_not_integers": ({"a": ENTRY | {"data_offsets": [0.0, 24.0]}}, bytes(24), "tensor 'a': data_offsets"),
    "negative_shape": ({"a": ENTRY | {"shape": [-2, -3]}}, bytes(24), "tensor 'a': shape"),
    "huge_shape": ({"a": ENTRY | {"shape": [1 << 60, 0]}}, bytes(24), "tensor 'a': shape"),
    "many_dimensions": ({"a": ENTRY | {"shape": [1] * 99}}, bytes(24), "tensor 'a': shape"),
    "unknown_dtype": ({"a": ENTRY | {"dtype": "F31"}}, bytes(24), "tensor 'a': unknown dtype 'F31'"),
    "unhashable_dtype": ({"a": ENTRY | {"dtype": ["F32"]}}, bytes(24), "tensor 'a': unknown dtype"),
    "more_keys": ({"a": ENTRY | {"code": "x"}}, bytes(24), "tensor 'a': expected exactly"),
    "entry_is_a_number": ({"a": 3}, bytes(24), "tensor 'a': expected exactly"),
    "metadata_is_no_object": ({"__metadata__": [1], "a": ENTRY}, bytes(24), "__metadata__"),
    "list": ("[]", b"", "JSON object"),
    "no_json": ("\x80\x04.", b"", "not valid JSON"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_wrong_headers_are_refused_by_name(case: str) -> None:
    """Each fault gets one error that names the file and, where there is one, the tensor."""
    header, data, message = CASES[case]
    with pytest.raises(CheckpointRejected, match=r"^x\.safetensors.*" + message):
        parse(build(header, data))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (b"", "0 bytes long"),
        (b"\x08\0\0", "3 bytes long"),
        (struct.pack("<Q", 1 << 63) + b"{}", "not a safetensors file"),
        (struct.pack("<Q", MAX_HEADER_BYTES) + b"{}", "truncated: header ends"),
        (b"\x80\x04\x95\x0e\0\0\0\0\0\0\0", "not a safetensors file|truncated"),
    ],
)
def test_wrong_lengths_are_refused(file: bytes, message: str) -> None:
    """A header length that the file cannot hold is refused before anything is read."""
    with pytest.raises(CheckpointRejected, match=message):
        parse(file)


@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_else(content: bytes) -> None:
    """Whatever the bytes, the outcome is a header or CheckpointRejected."""
    accepts_or_rejects(lambda: parse(content))
    accepts_or_rejects(lambda: parse(build(content.decode("latin-1"), b"")))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-100, 100) | st.floats() | st.sampled_from(["F32", "BF16", "x"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "dtype"]), inner, max_size=2),
    max_leaves=6,
)
ENTRIES = st.fixed_dictionaries({"dtype": JSON_VALUES, "shape": JSON_VALUES, "data_offsets": JSON_VALUES})


@given(st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), ENTRIES | JSON_VALUES), st.integers(0, 64))
def test_random_entries_raise_nothing_else(header: dict[str, Any], num_bytes: int) -> None:
    """Well-formed JSON of any content is accepted or refused with CheckpointRejected."""
    accepts_or_rejects(lambda: parse(build(header, bytes(num_bytes))))


def accepts_or_rejects(action: Callable[[], object]) -> None:
    try:
        action()
    except CheckpointRejected:
        pass
