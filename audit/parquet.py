"""Parquet, as much of it as a table of records needs: one row group, plain encoding, no compression.

The same rows give the same bytes: nothing in the file depends on time or on a library. Texts and 64-bit integers only;
what a record does not have is null.

Source: Apache Parquet format 2.10 (file, data page v1, plain encoding, run lengths of definition levels); Thrift compact protocol.
"""

import struct
from collections.abc import Sequence

MAGIC = b"PAR1"
CREATED_BY = "Casemate"
Cell = str | int | None
_INT64, _BYTE_ARRAY = 2, 6
_OPTIONAL, _UTF8, _PLAIN, _RLE, _UNCOMPRESSED, _DATA_PAGE = 1, 0, 0, 3, 0, 0
_I32, _I64, _BINARY, _LIST, _STRUCT = 5, 6, 8, 9, 12


def encode_parquet(names: Sequence[str], integers: frozenset[str], rows: Sequence[Sequence[Cell]]) -> bytes:
    """A table as a file.

    Args:
        names: of the columns, in order.
        integers: those of them that hold integers; the others hold texts.
        rows: cells in the order of the columns.
    """
    body = bytearray(MAGIC)
    chunks = []
    for position, name in enumerate(names):
        kind = _INT64 if name in integers else _BYTE_ARRAY
        page = _encode_page([row[position] for row in rows])
        offset = len(body)
        body += page
        chunks.append(_encode_chunk(name, kind, len(rows), offset, len(page)))
    footer = _encode_footer(names, integers, len(rows), chunks, len(body) - len(MAGIC))
    return bytes(body) + footer + struct.pack("<I", len(footer)) + MAGIC


def _encode_page(cells: Sequence[Cell]) -> bytes:
    """One data page: its header, definition levels after their length, then the values that are there."""
    levels = _encode_levels([cell is not None for cell in cells])
    data = struct.pack("<I", len(levels)) + levels + b"".join(_encode_value(cell) for cell in cells if cell is not None)
    data_header = _encode_struct(
        [(1, _I32, _zigzag(len(cells))), (2, _I32, _zigzag(_PLAIN)), (3, _I32, _zigzag(_RLE)), (4, _I32, _zigzag(_RLE))]
    )
    size = _zigzag(len(data))
    header = [(1, _I32, _zigzag(_DATA_PAGE)), (2, _I32, size), (3, _I32, size), (5, _STRUCT, data_header)]
    return _encode_struct(header) + data


def _encode_levels(present: Sequence[bool]) -> bytes:
    """Runs of equal levels: the length doubled, then the level."""
    encoded = bytearray()
    start = 0
    for end in range(1, len(present) + 1):
        if end == len(present) or present[end] != present[start]:
            encoded += _varint((end - start) << 1) + bytes([present[start]])
            start = end
    return bytes(encoded)


def _encode_value(cell: Cell) -> bytes:
    if isinstance(cell, int):
        return struct.pack("<q", cell)
    data = str(cell).encode()
    return struct.pack("<I", len(data)) + data


def _encode_chunk(name: str, kind: int, num_values: int, offset: int, num_bytes: int) -> bytes:
    metadata = _encode_struct(
        [
            (1, _I32, _zigzag(kind)),
            (2, _LIST, _encode_list(_I32, [_zigzag(_PLAIN), _zigzag(_RLE)])),
            (3, _LIST, _encode_list(_BINARY, [_encode_text(name)])),
            (4, _I32, _zigzag(_UNCOMPRESSED)),
            (5, _I64, _zigzag(num_values)),
            (6, _I64, _zigzag(num_bytes)),
            (7, _I64, _zigzag(num_bytes)),
            (9, _I64, _zigzag(offset)),
        ]
    )
    return _encode_struct([(2, _I64, _zigzag(offset)), (3, _STRUCT, metadata)])


def _encode_footer(
    names: Sequence[str], integers: frozenset[str], num_rows: int, chunks: Sequence[bytes], num_bytes: int
) -> bytes:
    root = _encode_struct([(4, _BINARY, _encode_text("records")), (5, _I32, _zigzag(len(names)))])
    schema = [root, *(_encode_element(name, is_integer=name in integers) for name in names)]
    group = _encode_struct(
        [(1, _LIST, _encode_list(_STRUCT, chunks)), (2, _I64, _zigzag(num_bytes)), (3, _I64, _zigzag(num_rows))]
    )
    return _encode_struct(
        [
            (1, _I32, _zigzag(1)),
            (2, _LIST, _encode_list(_STRUCT, schema)),
            (3, _I64, _zigzag(num_rows)),
            (4, _LIST, _encode_list(_STRUCT, [group])),
            (6, _BINARY, _encode_text(CREATED_BY)),
        ]
    )


def _encode_element(name: str, *, is_integer: bool) -> bytes:
    fields = [
        (1, _I32, _zigzag(_INT64 if is_integer else _BYTE_ARRAY)),
        (3, _I32, _zigzag(_OPTIONAL)),
        (4, _BINARY, _encode_text(name)),
    ]
    return _encode_struct(fields if is_integer else [*fields, (6, _I32, _zigzag(_UTF8))])


def _encode_struct(fields: Sequence[tuple[int, int, bytes]]) -> bytes:
    """Fields as (id, type, encoded value), ids rising by at most 15."""
    encoded = bytearray()
    last = 0
    for number, kind, value in fields:
        encoded += bytes([(number - last) << 4 | kind]) + value
        last = number
    return bytes(encoded) + b"\0"


def _encode_list(kind: int, items: Sequence[bytes]) -> bytes:
    head = bytes([len(items) << 4 | kind]) if len(items) < 15 else bytes([0xF0 | kind]) + _varint(len(items))
    return head + b"".join(items)


def _encode_text(text: str) -> bytes:
    data = text.encode()
    return _varint(len(data)) + data


def _zigzag(number: int) -> bytes:
    return _varint(number << 1 if number >= 0 else (-number << 1) - 1)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
