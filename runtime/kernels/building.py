"""Builds a bundle: every Triton variant and every library that some engines need, compiled and named in a manifest."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runtime.attention.flashinfer.libraries import LibraryName
from runtime.errors import EngineMisconfigured
from runtime.kernels.bundle import load_bundle
from runtime.kernels.compiling import CompiledKernel
from runtime.kernels.launching import Variant
from runtime.kernels.manifest import MANIFEST_FILE, LibraryEntry, Manifest, Versions, build_manifest
from runtime.kernels.sources import digest_sources

VERSIONS_FILE = "versions.json"
"""In a folder of libraries: what compiled them, `{"nvcc": …, "flashinfer": …}`."""

Say = Callable[[str], None]


class KernelCompiler(Protocol):
    """Compiles variants, see `compiling`."""

    @property
    def version(self) -> str:
        """Of Triton."""
        ...

    @property
    def ptxas_version(self) -> str:
        """Of the assembler."""
        ...

    def compile(self, variant: Variant) -> CompiledKernel:
        """One variant."""
        ...


class LibraryCompiler(Protocol):
    """Compiles libraries, see `flashinfer_building`."""

    version: str

    @property
    def nvcc_version(self) -> str:
        """Of the compiler."""
        ...

    def compile(self, name: LibraryName) -> bytes:
        """One library."""
        ...


@dataclass(frozen=True, slots=True)
class CompiledLibraries:
    """Libraries by name, and what compiled them."""

    contents: dict[str, bytes]
    nvcc: str = ""
    flashinfer: str = ""


def build_bundle(
    arch: str, variants: Iterable[Variant], libraries: CompiledLibraries, compiler: KernelCompiler, say: Say
) -> tuple[Manifest, dict[str, bytes]]:
    """Compile the variants and put all into a manifest.

    Args:
        say: told what is compiled now.
    Returns: the manifest, and the files' contents by SHA-256.
    """
    ordered = sorted(variants, key=str)
    compiled = []
    for index, variant in enumerate(ordered, 1):
        say(f"kernel {index} of {len(ordered)}: {variant.kernel}")
        compiled.append(compiler.compile(variant))
    contents = {kernel.entry.sha256: kernel.cubin for kernel in compiled}
    entries = []
    for name, content in libraries.contents.items():
        digest = hashlib.sha256(content).hexdigest()
        contents[digest] = content
        entries.append(LibraryEntry(name=name, sha256=digest, size_bytes=len(content)))
    versions = Versions(
        triton=compiler.version if ordered else "",
        ptxas=compiler.ptxas_version if ordered else "",
        nvcc=libraries.nvcc,
        flashinfer=libraries.flashinfer,
    )
    return build_manifest(arch, digest_sources(), versions, (kernel.entry for kernel in compiled), entries), contents


def compile_libraries(names: Iterable[LibraryName], compiler: LibraryCompiler, say: Say) -> CompiledLibraries:
    """Compile each of the names."""
    ordered = sorted(names, key=str)
    contents = {}
    for index, name in enumerate(ordered, 1):
        say(f"library {index} of {len(ordered)}: {name}, which takes minutes")
        contents[str(name)] = compiler.compile(name)
    return CompiledLibraries(contents, compiler.nvcc_version, compiler.version)


def reuse_libraries(folder: Path, names: Iterable[LibraryName]) -> CompiledLibraries:
    """Take libraries that were compiled before: from a bundle, which is verified, or from a folder of `NAME.so`.

    Raises: EngineMisconfigured for one that is not there, KernelMissing for a bundle that is not whole.
    """
    wanted = sorted(map(str, names))
    if (folder / MANIFEST_FILE).exists():
        bundle = load_bundle(folder)
        bundle.verify_holds((), wanted)
        by_name = {entry.name: bundle.contents[entry.sha256] for entry in bundle.manifest.libraries}
        made_by = bundle.manifest.versions
        return CompiledLibraries({name: by_name[name] for name in wanted}, made_by.nvcc, made_by.flashinfer)
    if absent := [name for name in wanted if not (folder / f"{name}.so").is_file()]:
        raise EngineMisconfigured(f"{folder} holds no library {', '.join(absent)}")
    if not (folder / VERSIONS_FILE).is_file():
        raise EngineMisconfigured(f"{folder}: expected {VERSIONS_FILE}, which says what compiled the libraries")
    versions = json.loads((folder / VERSIONS_FILE).read_text())
    contents = {name: (folder / f"{name}.so").read_bytes() for name in wanted}
    return CompiledLibraries(contents, str(versions["nvcc"]), str(versions["flashinfer"]))
