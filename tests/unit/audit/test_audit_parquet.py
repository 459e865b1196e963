"""Parquet files, read back by a reader of the Thrift footer and the pages that shares no code with the writer."""

import hashlib
import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from audit.parquet import encode_parquet

NAMES = ["n", "text"]


class Thrift:
    """The compact protocol, as structures of field number to value."""

    def __init__(self, data: bytes, position: int = 0) -> None:
        self.data, self.position = data, position

    def byte(self) -> int:
        self.position += 1
        return self.data[self.position - 1]

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def value(self, kind: int) -> Any:
        match kind:
            case 5 | 6:
                number = self.varint()
                return number >> 1 ^ -(number & 1)
            case 8:
                length = self.varint()
                self.position += length
                return self.data[self.position - length : self.position].decode()
            case 9:
                head = self.byte()
                size = head >> 4 if head >> 4 != 15 else self.varint()
                return [self.value(head & 15) for _ in range(size)]
            case 12:
                return self.struct()
        raise AssertionError(kind)

    def struct(self) -> dict[int, Any]:
        fields, number = {}, 0
        while head := self.byte():
            number += head >> 4
            fields[number] = self.value(head & 15)
        return fields


def read(data: bytes) -> list[list[Any]]:
    """All rows of a file."""
    assert data[:4] == data[-4:] == b"PAR1"
    (length,) = struct.unpack("<I", data[-8:-4])
    footer = Thrift(data[-8 - length : -8]).struct()
    assert [element[4] for element in footer[2]] == ["records", *NAMES]
    (group,) = footer[4]
    assert group[3] == footer[3]
    columns = [read_column(data, chunk[3]) for chunk in group[1]]
    return [list(row) for row in zip(*columns, strict=True)]


def read_column(data: bytes, metadata: dict[int, Any]) -> list[Any]:
    page = Thrift(data, metadata[9])
    header = page.struct()
    body = data[page.position : page.position + header[2]]
    assert page.position + header[2] == metadata[9] + metadata[7]
    (length,) = struct.unpack_from("<I", body)
    levels, runs = [], Thrift(body[4 : 4 + length])
    while runs.position < length:
        count = runs.varint()
        levels += [runs.byte()] * (count >> 1)
    assert len(levels) == header[5][1] == metadata[5]
    position, cells = 4 + length, []
    for level in levels:
        if not level:
            cells.append(None)
        elif metadata[1] == 2:
            cells.append(struct.unpack_from("<q", body, position)[0])
            position += 8
        else:
            (size,) = struct.unpack_from("<I", body, position)
            cells.append(body[position + 4 : position + 4 + size].decode())
            position += 4 + size
    assert position == len(body)
    return cells


CELLS = st.tuples(
    st.none() | st.integers(-(2**63), 2**63 - 1), st.none() | st.text(st.characters(exclude_categories=["Cs"]))
)


@given(st.lists(CELLS, max_size=60))
def test_rows_come_back(rows: list[tuple[int | None, str | None]]) -> None:
    """Nulls, negative numbers, empty and foreign texts."""
    assert read(encode_parquet(NAMES, frozenset({"n"}), rows)) == [list(row) for row in rows]


def test_a_file_that_another_reader_took_has_not_changed() -> None:
    """These very bytes were read with pyarrow 26.0.1 and gave the same rows."""
    rows = [(n if n % 3 else None, f"text {n}" if n % 5 else None) for n in range(40)]
    data = encode_parquet(NAMES, frozenset({"n"}), rows)
    assert hashlib.sha256(data).hexdigest() == "77c85fbeef164f6d6f1263b002b4ccb566868e7ce9cd971d2c91b346dc387ac8"
