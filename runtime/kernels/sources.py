"""The identity of our Triton sources, by which a bundle is known to have been built from those that are installed.

A variant says how a kernel is called and not what it computes: without this, a bundle of an older release could serve a
newer one wherever no call has changed.
"""

import hashlib
from pathlib import Path

SOURCES = Path(__file__).parent / "triton"


def digest_sources(folder: Path = SOURCES) -> str:
    """SHA-256, in hexadecimal, over names and contents of all kernel sources."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()
