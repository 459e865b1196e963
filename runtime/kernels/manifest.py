"""What a bundle of frozen kernels holds: one JSON file that names every other file by its SHA-256.

It has one form only: keys and entries are sorted, nothing is indented, and reading it and writing it again gives the same
bytes. So the SHA-256 of the manifest identifies the whole bundle, and equal builds are equal files.

A manifest is untrusted until somebody compares that digest; parsing it costs no more than its size, and only
`KernelMissing` leaves.
"""

import hashlib
from collections.abc import Iterable
from typing import Annotated, Literal

from msgspec import DecodeError, Meta, Struct, json

from runtime.errors import KernelMissing
from runtime.kernels.launching import Constant, Options, Variant

MANIFEST_FILE = "manifest.json"
MAX_MANIFEST_BYTES = 16 << 20

Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Name = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9_.]+\Z")]
FileSize = Annotated[int, Meta(ge=1, le=1 << 30)]


class KernelEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One variant of a Triton kernel, and what the driver must be told to launch it."""

    kernel: Name
    argument_types: tuple[str, ...]
    constants: dict[str, Constant]
    num_warps: Annotated[int, Meta(ge=1, le=32)]
    num_stages: Annotated[int, Meta(ge=1, le=16)]
    launch_pdl: bool
    symbol: Name
    """The function's name in the cubin."""
    shared_bytes: Annotated[int, Meta(ge=0, le=232_448)]
    """Dynamic shared memory of a block; at most what Hopper has."""
    scratch_pointers: Annotated[int, Meta(ge=0, le=4)]
    """Null pointers that follow the arguments: Triton's places for scratch memory, which no kernel of ours needs."""
    sha256: Digest
    size_bytes: FileSize

    @property
    def variant(self) -> Variant:
        """What a launch asks for."""
        options = Options(num_warps=self.num_warps, num_stages=self.num_stages, launch_pdl=self.launch_pdl)
        return Variant(self.kernel, self.argument_types, tuple(sorted(self.constants.items())), options)

    @property
    def file(self) -> str:
        """The cubin in the bundle's folder."""
        return f"{self.sha256}.cubin"


class LibraryEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One compiled library, see `runtime.attention.flashinfer.libraries`."""

    name: Name
    sha256: Digest
    size_bytes: FileSize

    @property
    def file(self) -> str:
        """The shared object in the bundle's folder."""
        return f"{self.sha256}.so"


class Versions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What compiled the bundle; empty where it had no part in it."""

    triton: str
    ptxas: str
    nvcc: str
    flashinfer: str


class Manifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole bundle."""

    format: Literal["casemate-kernels-1"] = "casemate-kernels-1"
    arch: Annotated[str, Meta(pattern=r"^sm_[0-9]{2,3}[af]?\Z")]
    sources_sha256: Digest
    """Of our kernels' sources, see `sources`."""
    versions: Versions
    kernels: tuple[KernelEntry, ...]
    libraries: tuple[LibraryEntry, ...]

    def encode(self) -> bytes:
        """The canonical form."""
        return json.encode(self, order="sorted") + b"\n"

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical form, in hexadecimal."""
        return hashlib.sha256(self.encode()).hexdigest()

    @property
    def entries(self) -> tuple[KernelEntry | LibraryEntry, ...]:
        """Everything that is a file."""
        return (*self.kernels, *self.libraries)


def build_manifest(
    arch: str,
    sources_sha256: str,
    versions: Versions,
    kernels: Iterable[KernelEntry],
    libraries: Iterable[LibraryEntry],
) -> Manifest:
    """With the entries in their order."""
    return Manifest(
        arch=arch,
        sources_sha256=sources_sha256,
        versions=versions,
        kernels=tuple(sorted(kernels, key=lambda entry: json.encode(entry, order="sorted"))),
        libraries=tuple(sorted(libraries, key=lambda entry: entry.name)),
    )


def parse_manifest(content: bytes) -> Manifest:
    """Parse an untrusted manifest; accepts the canonical form only.

    Raises: KernelMissing for whatever is refused.
    """
    if len(content) > MAX_MANIFEST_BYTES:
        raise KernelMissing(f"{MANIFEST_FILE}: expected at most {MAX_MANIFEST_BYTES} bytes, found {len(content)}")
    try:
        manifest = json.decode(content, type=Manifest)
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise KernelMissing(f"{MANIFEST_FILE}: {error}") from error
    again = build_manifest(
        manifest.arch, manifest.sources_sha256, manifest.versions, manifest.kernels, manifest.libraries
    )
    if again.encode() != content:
        raise KernelMissing(f"{MANIFEST_FILE}: expected the canonical form, found another writing of it")
    for what, names in (
        ("kernel", [str(entry.variant) for entry in manifest.kernels]),
        ("library", [entry.name for entry in manifest.libraries]),
    ):
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise KernelMissing(f"{MANIFEST_FILE}: {what} {twice[0]} is there twice")
    return manifest
