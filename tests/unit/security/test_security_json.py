"""Untrusted JSON: what two readers could read in two ways, or nobody can write again, is refused."""

import pytest

from security.errors import MalformedDocument
from security.json_object import parse_json_object


@pytest.mark.parametrize(
    "data", [b'{"a":"\\ud800"}', b'{"\\uDFFF":1}', b'{"a":[{"b":"x\\uD83dy"}]}', b'{"a":"\\ude00\\ud83d"}']
)
def test_half_a_surrogate_pair_is_refused(data):
    """It is no text: to encode it later, for a digest or a message, would fail (RFC 8259 section 8.2)."""
    with pytest.raises(MalformedDocument):
        parse_json_object(data)


def test_whole_pairs_and_escaped_backslashes_are_text():
    """Only what is really there counts."""
    assert parse_json_object(b'{"a":"\\ud83d\\ude00","b":"\\\\ud800"}') == {"a": "\U0001f600", "b": "\\ud800"}
