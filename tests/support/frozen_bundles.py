"""Bundles of frozen kernels without a compiler: the machine code is made up, and a driver writes down what it is told."""

import ctypes
import hashlib
from dataclasses import dataclass, field
from typing import Any

from runtime.kernels.launching import Constant
from runtime.kernels.manifest import KernelEntry, LibraryEntry, Manifest, Versions, build_manifest

SOURCES = "5" * 64
VERSIONS = Versions(triton="3.6.0", ptxas="12.8", nvcc="", flashinfer="")


def kernel_entry(cubin: bytes, **given: Any) -> KernelEntry:
    """Of `linear.dot` with two pointers and an integer, but for what is given."""
    fields: dict[str, Any] = {
        "kernel": "linear.dot",
        "argument_types": ("*bf16", "*fp32", "i32"),
        "constants": {"N": 4, "EPS": 1e-5},
        "num_warps": 2,
        "num_stages": 3,
        "launch_pdl": False,
        "symbol": "dot",
        "shared_bytes": 1024,
        "scratch_pointers": 2,
        "sha256": hashlib.sha256(cubin).hexdigest(),
        "size_bytes": len(cubin),
    }
    return KernelEntry(**(fields | given))


def library_entry(name: str, content: bytes) -> LibraryEntry:
    return LibraryEntry(name=name, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))


def small_bundle(constants: dict[str, Constant] | None = None) -> tuple[Manifest, dict[str, bytes]]:
    """Two kernels and a library."""
    files = {"a": b"cubin a" * 9, "b": b"cubin b" * 7, "so": b"library" * 5}
    kernels = [
        kernel_entry(files["a"], **({} if constants is None else {"constants": constants})),
        kernel_entry(files["b"], kernel="norm.add_rms_norm", symbol="add_rms_norm", launch_pdl=True, num_warps=4),
    ]
    manifest = build_manifest("sm_90a", SOURCES, VERSIONS, kernels, [library_entry("fa3_bf16_bf16_d128", files["so"])])
    return manifest, {hashlib.sha256(content).hexdigest(): content for content in files.values()}


@dataclass
class Launched:
    """What the driver was told in one launch."""

    image: bytes
    grid: tuple[int, int, int]
    threads: int
    shared_bytes: int
    stream: int
    attributes: list[tuple[int, int]]
    parameters: list[int]
    """The 8 bytes that each parameter points to, as an unsigned number."""


@dataclass
class RecordingDriver:
    """A driver without a device."""

    images: list[bytes] = field(default_factory=list)
    launched: list[Launched] = field(default_factory=list)

    def load(self, image: bytes, symbol: str, shared_bytes: int) -> ctypes.c_void_p:
        self.images.append(image)
        return ctypes.c_void_p(len(self.images))

    def launch(self, config: Any, function: ctypes.c_void_p, parameters: Any) -> None:
        told = config._obj
        assert function.value is not None
        self.launched.append(
            Launched(
                image=self.images[function.value - 1],
                grid=(told.grid_x, told.grid_y, told.grid_z),
                threads=told.block_x * told.block_y * told.block_z,
                shared_bytes=told.shared_bytes,
                stream=told.stream,
                attributes=[(told.attributes[i].id, told.attributes[i].value[0]) for i in range(told.num_attributes)],
                parameters=[ctypes.c_uint64.from_address(address).value for address in parameters],
            )
        )
