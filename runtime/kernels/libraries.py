"""Compiled libraries of CUDA kernels, loaded through tvm-ffi: from a folder in development, else from a frozen bundle.

`tvm_ffi` is imported when the first library is loaded: a process on a CPU has no use for it. Where torch lacks the
DLPack exchange that it calls by, it would compile one with the system's compiler; so that torch is refused first.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from runtime.errors import EngineMisconfigured, KernelMissing
from runtime.kernels.bundle import Bundle

_LOADED: list[Any] = []
"""Whatever was loaded stays for the life of the process. The loader would close a library with the last reference to it, but
captured graphs hold its kernels, and CUDA's runtime knows them by addresses which the next library may be given."""


class FolderLibraries:
    """Libraries as files `NAME.so` in a folder, as a build leaves them. Nothing is verified: for development."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._modules: dict[str, Any] = {}

    def function(self, library: str, name: str) -> Callable[..., Any]:
        """An exported function.

        Raises: KernelMissing, naming the library.
        """
        if library not in self._modules:
            path = self._folder / f"{library}.so"
            if not path.is_file():
                raise KernelMissing(f"kernel library {library}: expected {path}, which does not exist")
            self._modules[library] = load_library(path)
        return getattr(self._modules[library], name)  # type: ignore[no-any-return]


class BundleLibraries:
    """Libraries of a frozen bundle, loaded from the very bytes that were verified, which lie in memory and in no folder."""

    def __init__(self, bundle: Bundle, load: Callable[[Path], Any] | None = None) -> None:
        """
        Args:
            load: instead of `load_library`.
        """
        self._contents = {entry.name: bundle.contents[entry.sha256] for entry in bundle.manifest.libraries}
        self._load = load if load is not None else load_library
        self._modules: dict[str, Any] = {}

    def function(self, library: str, name: str) -> Callable[..., Any]:
        """An exported function.

        Raises: KernelMissing, naming the library.
        """
        if library not in self._modules:
            if library not in self._contents:
                raise KernelMissing(f"the kernel bundle lacks library {library}")
            self._modules[library] = self._load(_file_in_memory(library, self._contents[library]))
        return getattr(self._modules[library], name)  # type: ignore[no-any-return]


def _file_in_memory(name: str, content: bytes) -> Path:
    """A file of this process alone, under a path that the loader can open.

    Its descriptor stays open: the loader knows libraries by their path, and would take the next one under the same number
    for this one.
    """
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    return Path(f"/proc/self/fd/{descriptor}")


def load_library(path: Path) -> Any:
    """Load a shared object that exports functions through tvm-ffi, whatever its name ends in.

    Raises: EngineMisconfigured if it cannot be loaded.
    """
    if not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
        raise EngineMisconfigured(
            f"torch {torch.__version__} has no DLPack exchange for tvm-ffi; expected 2.11 or newer"
        )
    import tvm_ffi

    load = tvm_ffi.get_global_func("ffi.Module.load_from_file.so")
    try:
        module = load(str(path), "")
    except (RuntimeError, OSError) as error:
        raise EngineMisconfigured(f"kernel library {path}: {error}") from error
    _LOADED.append(module)
    return module
