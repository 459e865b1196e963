"""Compiled libraries of CUDA kernels, loaded through tvm-ffi.

`tvm_ffi` is imported when the first library is loaded: a process on a CPU has no use for it. Where torch lacks the
DLPack exchange that it calls by, it would compile one with the system's compiler; so that torch is refused first.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from runtime.errors import EngineMisconfigured, KernelMissing


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
        return load(str(path), "")
    except (RuntimeError, OSError) as error:
        raise EngineMisconfigured(f"kernel library {path}: {error}") from error
