"""Plain tokens leave as arrays, under whatever numbers stand above their ids; packed columns agree or are refused."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.bench.host_time import measure_host_time
from runtime.request import PackedTokens
from runtime.scheduling.delivery import PlainTokens, StepOutput

tokens = st.tuples(
    st.integers(0, (1 << 15) - 1), st.integers(0, (1 << 48) - 1), st.integers(0, 63), st.integers(0, 1 << 20)
)


@given(st.lists(tokens, max_size=30))
def test_split_tokens_keep_owner_order_and_values(drawn: list[tuple[int, int, int, int]]) -> None:
    """Each group has exactly its own tokens, in their order, and survives the wire."""
    groups, ids, choices, token_ids = (
        np.array(column, np.int64) for column in (zip(*drawn, strict=True) if drawn else [[]] * 4)
    )
    plain = PlainTokens((groups << 48) | ids, choices.astype(np.int32), token_ids)
    expected: dict[int, list[tuple[int, int, int]]] = {}
    for group, *token in drawn:
        expected.setdefault(group, []).append((token[0], token[1], token[2]))
    decoded = {
        group: list(msgspec.msgpack.decode(msgspec.msgpack.encode(packed), type=PackedTokens))
        for group, packed in plain.split(48)
    }
    assert decoded == expected


@pytest.mark.parametrize("columns", [(b"", b"\0", b""), (bytes(8), b"\0", bytes(3)), (bytes(7), b"\0", bytes(4))])
def test_columns_of_different_length_are_refused(columns: tuple[bytes, bytes, bytes]) -> None:
    """A message whose columns disagree is malformed, not half a token."""
    with pytest.raises(msgspec.ValidationError, match="differ in length"):
        msgspec.msgpack.decode(msgspec.msgpack.encode(columns), type=PackedTokens)


def test_ordinary_rows_are_never_looked_at_one_by_one() -> None:
    """In a measured run of 20 decoding rows every token is plain, whatever a step costs."""
    outputs: list[StepOutput] = []
    times = measure_host_time(20, 10, send=outputs.append)
    assert [(len(output.plain), output.tokens, output.prompts) for output in outputs] == [(20, [], [])] * 10
    assert len(times.plan) == len(times.collect) == len(times.send) == 10
