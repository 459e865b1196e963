"""The manifest of a pack: what it is about, every file with its digest, in one form; and what its signature is over."""

from pathlib import Path

import msgspec

from audit.entry import encode_canonical
from audit.errors import AuditRejected
from compliance.errors import PackRejected

PACK_FORMAT = "casemate-evidence-pack/2"
MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
CHECKPOINT, RECORDS, EDGES = "log/checkpoint", "log/records/", "log/edges/"
MAX_MANIFEST_BYTES = 16 << 20


class PackedFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a pack."""

    bytes: int
    name: str
    sha256: str


class PackManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a pack is about, and all that is in it."""

    checkpoint_size: int
    end: int
    files: list[PackedFile]
    format: str
    framework: str
    made_at: str
    origin: str
    period_end: str
    period_start: str
    root: str
    software: str
    start: int


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """A file of a pack that must be there, and no longer.

    Raises: PackRejected, OSError.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except FileNotFoundError:
        raise PackRejected(f"{path}: is missing") from None
    if len(data) > max_bytes:
        raise PackRejected(f"{path}: has more than {max_bytes} bytes")
    return data


def encode_manifest(manifest: PackManifest) -> bytes:
    """The file, canonical (RFC 8785)."""
    return encode_canonical(msgspec.to_builtins(manifest))


def parse_manifest(data: bytes) -> PackManifest:
    """Parse an untrusted manifest, in its one form.

    Raises: PackRejected.
    """
    try:
        manifest = msgspec.json.decode(data, type=PackManifest)
        canonical = encode_manifest(manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, AuditRejected) as error:
        raise PackRejected(f"{MANIFEST}: {error}") from error
    names = [file.name for file in manifest.files]
    if manifest.format != PACK_FORMAT or canonical != data or names != sorted(set(names)):
        raise PackRejected(f"{MANIFEST}: is not of the format {PACK_FORMAT}")
    return manifest


def signed_text(digest: str) -> str:
    """What the signature is over."""
    return f"{PACK_FORMAT}\nsha256:{digest}\n"
