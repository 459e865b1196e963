"""The manifest: every file of a model by name and digest, and the one digest that stands for all of them.

What always holds: at least one file, at most MAX_FILES, good names without repetition in a stated order, digests of 256
bits in lower case hexadecimal, all by one algorithm. The root is SHA-256 over the raw digests in that order (OMS section 6.5.1).
"""

import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from security.errors import ModelSignatureRejected
from security.model_signing.algorithms import SHA256
from security.model_signing.names import MAX_FILES, problem_of_name, show_name

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a signature says about a model. `model_name` is informational and decides nothing (OMS section 6.5)."""

    model_name: str
    digests: Mapping[str, str]
    """The digest of each file by its name, in the order of the manifest."""
    ignored: tuple[str, ...]
    """Paths that the signer left out; recorded, and nothing that we tolerate."""
    algorithm: str = SHA256
    """What files are digested with."""

    @property
    def root(self) -> str:
        """SHA-256, in hexadecimal, over all digests."""
        return hashlib.sha256(b"".join(map(bytes.fromhex, self.digests.values()))).hexdigest()


def build_manifest(
    model_name: str, digests: Mapping[str, str], ignored: Sequence[str] = (), algorithm: str = SHA256
) -> Manifest:
    """The manifest of files that were hashed, sorted by code point (OMS section 5.2.1)."""
    return Manifest(model_name, dict(sorted(digests.items())), tuple(sorted(ignored)), algorithm)


def verify_manifest(names: Sequence[str], digests: Sequence[str]) -> dict[str, str]:
    """Check untrusted names and digests, and return them as a mapping.

    Two orders are taken: by code point, as the format says, and by path component, as model-signing 1.1.1 writes (they differ
    for `a.txt` beside `a/b`). Both are strict, so that no name can come twice.

    Raises: ModelSignatureRejected.
    """
    if not names or len(names) > MAX_FILES:
        raise ModelSignatureRejected(f"signature lists {len(names)} files: expected 1 to {MAX_FILES}")
    for name, digest in zip(names, digests, strict=True):
        if problem := problem_of_name(name):
            raise ModelSignatureRejected(f"signature lists {show_name(name)}: {problem}")
        if not _DIGEST.fullmatch(digest):
            raise ModelSignatureRejected(
                f"signature lists {show_name(name)} with something else than a digest of 256 bits"
            )
    by_component = [name.split("/") for name in names]
    if not (_is_ascending(names) or _is_ascending(by_component)):
        raise ModelSignatureRejected("signature lists files twice or out of order")
    return dict(zip(names, digests, strict=True))


def _is_ascending(keys: Iterable[Any]) -> bool:
    return all(before < after for before, after in itertools.pairwise(keys))
