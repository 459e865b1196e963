"""The launcher of frozen kernels: no compiler and no Triton in the process, only machine code and the driver.

A launch fills a buffer that was laid out when the kernel was loaded, and makes one call. The parameters of a kernel are
its arguments in order, 8 bytes apart, and then null pointers where Triton would pass scratch memory; constants are in the
machine code. A block has 32 threads a warp.
"""

import ctypes
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

from runtime.errors import KernelMissing
from runtime.kernels.bundle import Bundle
from runtime.kernels.driver import CudaDriver, LaunchAttribute, LaunchConfig, programmatic_serialization
from runtime.kernels.launching import POINTER_ALIGNMENT, Argument, Constant, Options, Variant, variant_of
from runtime.kernels.manifest import KernelEntry

_THREADS_PER_WARP = 32
_PARAMETER_BYTES = 8
_FORMATS = {"i32": "i4x", "fp32": "f4x"}
_POINTER_FORMAT = "Q"


class Driver(Protocol):
    """What `runtime.kernels.driver.CudaDriver` does."""

    def load(self, image: bytes, symbol: str, shared_bytes: int) -> ctypes.c_void_p:
        """A function of a cubin."""
        ...

    def launch(self, config: object, function: ctypes.c_void_p, parameters: object) -> None:
        """Enqueue one kernel."""
        ...


class FrozenKernel:
    """One loaded kernel with the memory of its launches. One thread at a time launches it."""

    def __init__(self, entry: KernelEntry, image: bytes, driver: Driver) -> None:
        self._driver = driver
        self._function = driver.load(image, entry.symbol, entry.shared_bytes)
        formats = [_POINTER_FORMAT if name.startswith("*") else _FORMATS[name] for name in entry.argument_types]
        self._pack_into = struct.Struct("<" + "".join(formats)).pack_into
        num_parameters = len(formats) + entry.scratch_pointers
        self._buffer = ctypes.create_string_buffer(num_parameters * _PARAMETER_BYTES)
        start = ctypes.addressof(self._buffer)
        self._parameters = (ctypes.c_void_p * num_parameters)(
            *(start + index * _PARAMETER_BYTES for index in range(num_parameters))
        )
        self._attributes = (LaunchAttribute * 1)(programmatic_serialization())
        self._config = LaunchConfig(
            block_x=_THREADS_PER_WARP * entry.num_warps,
            block_y=1,
            block_z=1,
            shared_bytes=entry.shared_bytes,
            attributes=self._attributes,
            num_attributes=1 if entry.launch_pdl else 0,
        )
        self._config_reference = ctypes.byref(self._config)

    def launch(self, grid: tuple[int, int, int], values: Sequence[int | float], stream: int) -> None:
        """Enqueue it. `values` are addresses and numbers in the kernel's order."""
        config = self._config
        config.grid_x, config.grid_y, config.grid_z = grid
        config.stream = stream
        self._pack_into(self._buffer, 0, *values)
        self._driver.launch(self._config_reference, self._function, self._parameters)


class FrozenLauncher:
    """See `runtime.kernels.launching.Launcher`. All kernels of the bundle are loaded when it is made.

    Args:
        current_stream: the handle of the stream that torch enqueues on now.
    """

    def __init__(self, bundle: Bundle, driver: Driver, current_stream: Callable[[], int]) -> None:
        self._kernels: Mapping[Variant, FrozenKernel] = {
            entry.variant: FrozenKernel(entry, bundle.contents[entry.sha256], driver)
            for entry in bundle.manifest.kernels
        }
        self._current_stream = current_stream
        self._known: dict[Any, FrozenKernel] = {}
        """By what tells launches apart and is cheap to gather; a `Variant` costs more than the launch itself."""

    def launch(
        self,
        kernel: str,
        grid: tuple[int, int, int],
        arguments: Sequence[Argument],
        constants: Mapping[str, Constant],
        options: Options,
    ) -> None:
        """See `Launcher.launch`.

        Raises: KernelMissing, naming the variant; ValueError for a tensor that is not aligned.
        """
        if 0 in grid:
            return
        types: list[object] = []
        values: list[int | float] = []
        addresses = 0
        untyped: Sequence[Any] = arguments
        for argument in untyped:
            kind = type(argument)
            if kind is int or kind is float:
                types.append(kind)
                values.append(argument)
            else:
                address = argument.data_ptr()
                addresses |= address
                types.append(argument.dtype)
                values.append(address)
        if addresses % POINTER_ALIGNMENT:
            raise ValueError(
                f"{kernel}: expected tensors aligned to {POINTER_ALIGNMENT} bytes, found addresses {values}"
            )
        compiled_for = (options.num_warps, options.num_stages, options.launch_pdl)
        key = (kernel, compiled_for, *types, *constants, *constants.values())
        frozen = self._known.get(key)
        if frozen is None:
            frozen = self._known[key] = self._find(variant_of(kernel, arguments, constants, options))
        frozen.launch(grid, values, self._current_stream())

    def _find(self, variant: Variant) -> FrozenKernel:
        found = self._kernels.get(variant)
        if found is None:
            raise KernelMissing(f"the kernel bundle lacks {variant}")
        return found


def load_frozen_launcher(bundle: Bundle, device_index: int) -> FrozenLauncher:
    """A bundle's kernels on one GPU, launched on torch's current stream.

    torch has no public way to this number that does not make a stream object first; Triton's launcher takes the same.
    """
    current_stream = torch._C._cuda_getCurrentRawStream
    return FrozenLauncher(bundle, CudaDriver(device_index), lambda: int(current_stream(device_index)))
