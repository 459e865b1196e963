"""A monitor's client of C2SP tlog-tiles, written from the specification with the standard library alone.

It shares no code with the product: it fetches a checkpoint and entry bundles, hashes the leaves (RFC 6962), builds every hash
tile from them, compares those with the tiles that are served, and the root with the checkpoint's.
"""

import base64
import hashlib
import struct
from collections.abc import Callable

Fetch = Callable[[str], bytes]
"""Gives what lies at a path below the monitoring prefix."""


def tile_number(number: int) -> str:
    """`1234067` is `x001/x234/067`."""
    text = f"{number:d}"
    text = text.zfill(-(-len(text) // 3) * 3)
    groups = [text[i : i + 3] for i in range(0, len(text), 3)]
    return "/".join([*("x" + group for group in groups[:-1]), groups[-1]])


def parse_head(checkpoint: bytes) -> tuple[str, int, bytes]:
    """Origin, size and root; the signatures are somebody else's matter."""
    origin, size, root = checkpoint.decode().split("\n\n")[0].split("\n")[:3]
    return origin, int(size), base64.b64decode(root)


def root_hash(hashes: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word by word."""
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return hashlib.sha256(b"\1" + root_hash(hashes[:split]) + root_hash(hashes[split:])).digest()


def walk(fetch: Fetch) -> list[bytes]:
    """Fetch and check everything under the checkpoint; gives the entries."""
    _, size, root = parse_head(fetch("checkpoint"))
    entries: list[bytes] = []
    for number in range(-(-size // 256)):
        width = min(256, size - number * 256)
        bundle = fetch(f"tile/entries/{tile_number(number)}" + (f".p/{width}" if width < 256 else ""))
        found = []
        while bundle:
            (length,) = struct.unpack(">H", bundle[:2])
            found.append(bundle[2 : 2 + length])
            bundle = bundle[2 + length :]
        assert len(found) == width
        entries += found
    hashes, level = [hashlib.sha256(b"\0" + entry).digest() for entry in entries], 0
    assert root_hash(hashes) == root
    while hashes:
        for number in range(-(-len(hashes) // 256)):
            part = hashes[number * 256 : number * 256 + 256]
            path = f"tile/{level}/{tile_number(number)}" + (f".p/{len(part)}" if len(part) < 256 else "")
            assert fetch(path) == b"".join(part), path
        hashes = [root_hash(hashes[i : i + 256]) for i in range(0, len(hashes) // 256 * 256, 256)]
        level += 1
    return entries
