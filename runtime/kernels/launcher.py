"""The launcher that compiles what it launches, for development: needs Triton, a C compiler and NVIDIA's assembler.

Compiled code is kept in Triton's own cache folder. A production engine has none of the three and loads frozen kernels.
"""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from runtime.kernels.launching import Argument, Constant, Options, verify_tensors


class JitLauncher:
    """See `runtime.kernels.launching.Launcher`."""

    def __init__(self) -> None:
        self._functions: dict[str, Any] = {}

    def launch(
        self,
        kernel: str,
        grid: tuple[int, int, int],
        arguments: Sequence[Argument],
        constants: Mapping[str, Constant],
        options: Options,
    ) -> None:
        """See `Launcher.launch`.

        Raises: ValueError for a tensor that no kernel can take, see `verify_tensors`.
        """
        verify_tensors(kernel, arguments)
        function = self._functions.get(kernel)
        if function is None:
            module, name = kernel.split(".")
            function = getattr(importlib.import_module(f"runtime.kernels.triton.{module}"), name)
            self._functions[kernel] = function
        function[grid](
            *arguments,
            **constants,
            num_warps=options.num_warps,
            num_stages=options.num_stages,
            launch_pdl=options.launch_pdl,
        )
