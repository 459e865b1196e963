"""The algorithms that files are digested with: SHA-256, which every verifier of the format has, and BLAKE3, which is faster.

SHA-256 is read by one core at 1.1 to 1.6 GB/s, whatever the size of the file. BLAKE3 is a tree: one core hashes several times as
fast, and several cores share one file. Both have digests of 256 bits. BLAKE3 is no approved algorithm: `fips = true` refuses models
that are signed with it. The digest that stands for the whole model is SHA-256 over the others in either case (OMS section 6.5.1).
Sources: OMS v1.0, algorithm registry; FIPS 180-4; BLAKE3, one function, fast everywhere (2021).
"""

import hashlib
from typing import Protocol

from blake3 import blake3

SHA256 = "sha256"
BLAKE3 = "blake3"
ALGORITHMS = (SHA256, BLAKE3)
TITLES = {SHA256: "SHA-256", BLAKE3: "BLAKE3"}
"""As people write them."""
APPROVED_ALGORITHMS = (SHA256,)
"""What `fips = true` takes."""


class Hasher(Protocol):
    """A digest in the making."""

    def update(self, data: bytes | memoryview, /) -> object:
        """Add bytes."""

    def hexdigest(self) -> str:
        """Of all bytes so far, in lower case hexadecimal."""


def new_hasher(algorithm: str, *, num_threads: int = 1) -> Hasher:
    """Begin a digest by one of ALGORITHMS.

    Args:
        num_threads: how many may share the bytes of one update; SHA-256 is sequential and takes one.
    """
    if algorithm == BLAKE3:
        return blake3(max_threads=num_threads)
    assert algorithm == SHA256
    return hashlib.sha256()


def digest_of(algorithm: str, content: bytes) -> str:
    """The digest of bytes in memory, in hexadecimal."""
    hasher = new_hasher(algorithm)
    hasher.update(content)
    return hasher.hexdigest()
