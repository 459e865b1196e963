"""Who says whether the bytes that were read are the right ones, and what they are to be digested with.

What the digests should be is not for this package to know.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

TREE_ALGORITHM = "blake3"
"""By which the pieces of a file can be hashed in any order, and on a device (`tree_digest`)."""


class Hasher(Protocol):
    """A digest in the making, as `hashlib` has them."""

    def update(self, data: bytes | memoryview, /) -> object:
        """Add bytes."""

    def hexdigest(self) -> str:
        """Of all bytes so far."""


def sha256_of(content: bytes) -> str:
    """SHA-256, hexadecimal, of bytes in memory."""
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True, slots=True)
class FileCheck:
    """Asked once all is read, and before anything is computed from it."""

    verify: Callable[[Mapping[str, str]], None]
    """Called with the digest, hexadecimal, of every file that was read, by name; raises to refuse them."""
    new_hasher: Callable[[int], Hasher] = lambda _num_threads: hashlib.sha256()
    """Begins the digest of a file of weights. Given is how many threads may share the bytes of one update, if the algorithm can."""
    algorithm: str = "sha256"
    """What `new_hasher` begins."""
    digest_of: Callable[[bytes], str] = sha256_of
    """The digest of a small file, such as a configuration; another algorithm may be asked of it."""


def hasher_of(check: FileCheck | None, first: bytes = b"", *, num_threads: int = 1) -> Hasher:
    """Begin the digest of a file of weights as the check wants it; SHA-256 where nobody checks."""
    hasher: Hasher = hashlib.sha256() if check is None else check.new_hasher(num_threads)
    hasher.update(first)
    return hasher


def is_tree(check: FileCheck | None) -> bool:
    """Whether the check wants digests of weights by TREE_ALGORITHM."""
    return check is not None and check.algorithm == TREE_ALGORITHM


def digests_of(files: Iterable[tuple[str, bytes]], check: FileCheck | None = None) -> dict[str, str]:
    """The digests of small files in memory, by name; SHA-256 where nobody checks."""
    digest_of = sha256_of if check is None else check.digest_of
    return {name: digest_of(content) for name, content in files}
