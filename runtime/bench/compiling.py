"""Compiling what a measurement will launch beforehand and in threads: hundreds of variants in seconds instead of minutes."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from typing import Any

from torch import Tensor

from runtime.kernels.launching import Argument, Constant, Options, Variant, variant_of

_THREADS = 12


class CompilingLauncher:
    """See `runtime.kernels.launching.Launcher`. Compiles and launches nothing, so tensors may be on the device `meta`.

    What it compiled lies in Triton's cache, where the launcher of the measurement finds it.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS)
        self._running: dict[Variant, Future[Any]] = {}

    def launch(
        self,
        kernel: str,
        grid: tuple[int, int, int],
        arguments: Sequence[Argument],
        constants: Mapping[str, Constant],
        options: Options,
    ) -> None:
        """See `Launcher.launch`."""
        variant = variant_of(kernel, arguments, constants, options)
        if variant in self._running:
            return
        module, name = kernel.split(".")
        function = getattr(import_module(f"runtime.kernels.triton.{module}"), name)
        types = [argument.dtype if isinstance(argument, Tensor) else argument for argument in arguments]
        self._running[variant] = self._pool.submit(
            function.warmup, *types, grid=grid, **constants,
            num_warps=options.num_warps, num_stages=options.num_stages, launch_pdl=options.launch_pdl,
        )  # fmt: skip

    def wait(self) -> None:
        """Until all is compiled. Raises: whatever the compiler raised."""
        for future in self._running.values():
            future.result()
        self._pool.shutdown()
