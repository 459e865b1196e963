"""Base64 and numbers as notes, proofs and requests hold them: what is parsed and encoded again is the same text.

Python's strict decoder of base64 still takes texts with bits left over in the last character, and some with padding in odd
places; its `int` takes signs, spaces, underscores and the digits of other scripts. Two notes would then say the same and hash
differently.

Source: RFC 4648, sections 3.5 and 4; C2SP tlog-checkpoint (the tree size).
"""

import base64
import binascii

from audit.errors import AuditRejected

MAX_TREE_SIZE = 2**63 - 1


def encode_base64(data: bytes) -> str:
    """The canonical text: the standard alphabet, padded, on one line."""
    return base64.b64encode(data).decode("ascii")


def decode_base64(text: str, what: str, rejected: type[AuditRejected]) -> bytes:
    """Decode an untrusted text: `encode_base64` of the result gives `text`.

    Args:
        what: names the thing in messages.
        rejected: what is raised for anything else.
    """
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise rejected(f"{what}: is not base64") from error
    if encode_base64(data) != text:
        raise rejected(f"{what}: is not canonical base64")
    return data


def parse_decimal(text: str, what: str, rejected: type[AuditRejected]) -> int:
    """Parse an untrusted tree size or index: ASCII digits, no leading zero, at most MAX_TREE_SIZE.

    Args:
        what: names the thing in messages.
        rejected: what is raised for anything else.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and (text == "0" or text[0] != "0")):
        raise rejected(f"{what}: expected a decimal without leading zeroes, got {text[:40]!r}")
    number = int(text)
    if number > MAX_TREE_SIZE:
        raise rejected(f"{what}: {text} is larger than any tree")
    return number
