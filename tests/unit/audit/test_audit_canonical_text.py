"""Base64 and decimals: one text for each value, and everything else refused as the caller asks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.canonical_text import MAX_TREE_SIZE, decode_base64, encode_base64, parse_decimal
from audit.errors import MalformedNote, MalformedProof


@given(st.binary(max_size=100))
def test_base64_comes_back(data: bytes) -> None:
    """Whatever is encoded."""
    assert decode_base64(encode_base64(data), "it", MalformedNote) == data


@given(st.text(alphabet="AZaz09+/=-_ \n\u00e4", max_size=12))
def test_each_run_of_bytes_has_one_text(text: str) -> None:
    """What is taken is what encoding gives; no other error escapes."""
    try:
        data = decode_base64(text, "it", MalformedProof)
    except MalformedProof:
        return
    assert encode_base64(data) == text


@pytest.mark.parametrize("text", ["AB==", "AA", "AA=", "A===", "AA==\n", "AA== ", "A A=", "_-==", "\u00e4", "AA==AA=="])
def test_other_base64_is_refused(text: str) -> None:
    """Bits left over, missing or early padding, white space, another alphabet."""
    with pytest.raises(MalformedProof, match=r"^the hash: is not"):
        decode_base64(text, "the hash", MalformedProof)


@given(st.integers(0, MAX_TREE_SIZE))
def test_decimals_come_back(number: int) -> None:
    """Up to the largest tree."""
    assert parse_decimal(str(number), "it", MalformedNote) == number


@pytest.mark.parametrize(
    "text",
    ["", "00", "01", "+1", "-1", " 1", "1 ", "1_0", "1.0", "\u0661", "\u00b2", str(MAX_TREE_SIZE + 1), "9" * 5_000],
)
def test_other_decimals_are_refused(text: str) -> None:
    """Signs, spaces, zeroes before, other digits, and what no tree reaches."""
    with pytest.raises(MalformedNote, match=r"^the size: "):
        parse_decimal(text, "the size", MalformedNote)
