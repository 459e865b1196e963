"""CUDA's driver API, as far as a frozen kernel needs it: load machine code, launch it.

By ctypes on libcuda, which torch has loaded anyway. NVIDIA's Python bindings would do as well, but they build the
arguments of a launch anew each time; here a launch is one foreign call over memory that was prepared once.

Source: CUDA 13.0 `cuda.h`; what Triton 3.6 tells the driver about its kernels (`backends/nvidia/driver.c`, `driver.py`).
"""

import ctypes
from ctypes import c_char_p, c_int, c_uint, c_void_p

from runtime.errors import EngineMisconfigured

_MAX_DEFAULT_SHARED_BYTES = 48 << 10
"""More dynamic shared memory must be asked for, function by function."""
_FUNCTION_SHARED_SIZE_BYTES = 1
_FUNCTION_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8
_DEVICE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = 97
_CACHE_PREFER_SHARED = 1
_PROGRAMMATIC_STREAM_SERIALIZATION = 6


class LaunchAttribute(ctypes.Structure):
    """`CUlaunchAttribute`: an id, and 64 bytes of value at offset 8."""

    _fields_ = (("id", c_int), ("padding", c_int), ("value", c_int * 16))


class LaunchConfig(ctypes.Structure):
    """`CUlaunchConfig`."""

    _fields_ = (
        ("grid_x", c_uint),
        ("grid_y", c_uint),
        ("grid_z", c_uint),
        ("block_x", c_uint),
        ("block_y", c_uint),
        ("block_z", c_uint),
        ("shared_bytes", c_uint),
        ("stream", c_void_p),
        ("attributes", ctypes.POINTER(LaunchAttribute)),
        ("num_attributes", c_uint),
    )


def programmatic_serialization() -> LaunchAttribute:
    """The attribute that lets a kernel start before the one ahead of it in its stream has ended."""
    attribute = LaunchAttribute(id=_PROGRAMMATIC_STREAM_SERIALIZATION)
    attribute.value[0] = 1
    return attribute


class CudaDriver:
    """The driver, with the primary context of one device, which is the one that torch works in."""

    def __init__(self, device_index: int) -> None:
        """
        Raises: EngineMisconfigured without a driver.
        """
        try:
            self._library = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise EngineMisconfigured(f"frozen kernels need NVIDIA's driver: {error}") from error
        self._launch = self._library.cuLaunchKernelEx
        self._device_index = device_index
        self._make_current()

    def load(self, image: bytes, symbol: str, shared_bytes: int) -> c_void_p:
        """Load a cubin and find its function.

        Args:
            shared_bytes: dynamic shared memory that it will be launched with.
        Raises: EngineMisconfigured if the driver refuses it.
        """
        module, function = c_void_p(), c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(module), c_char_p(image))
        self._call("cuModuleGetFunction", ctypes.byref(function), module, c_char_p(symbol.encode()))
        if shared_bytes > _MAX_DEFAULT_SHARED_BYTES:
            self._allow_shared_memory(function, shared_bytes)
        return function

    def launch(self, config: object, function: c_void_p, parameters: object) -> None:
        """Enqueue one kernel.

        Args:
            config: by reference, a `LaunchConfig`.
            parameters: an array of pointers to the kernel's parameters, which are copied before this returns.
        Raises: RuntimeError with the driver's code.
        """
        code = self._launch(config, function, parameters, None)
        if code:
            raise RuntimeError(f"cuLaunchKernelEx: {self._describe(code)}")

    def _make_current(self) -> None:
        self._call("cuInit", c_uint(0))
        context, device = c_void_p(), c_int()
        self._call("cuCtxGetCurrent", ctypes.byref(context))
        if not context:
            self._call("cuDeviceGet", ctypes.byref(device), c_int(self._device_index))
            self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
            self._call("cuCtxSetCurrent", context)

    def _allow_shared_memory(self, function: c_void_p, shared_bytes: int) -> None:
        """All that a block can have beside the function's static memory, as Triton asks for."""
        most, static, device = c_int(), c_int(), c_int()
        self._call("cuDeviceGet", ctypes.byref(device), c_int(self._device_index))
        self._call("cuDeviceGetAttribute", ctypes.byref(most), c_int(_DEVICE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN), device)
        self._call("cuFuncGetAttribute", ctypes.byref(static), c_int(_FUNCTION_SHARED_SIZE_BYTES), function)
        left = most.value - static.value
        if shared_bytes > left:
            raise EngineMisconfigured(f"a kernel needs {shared_bytes} bytes of shared memory, the GPU has {left}")
        self._call("cuFuncSetCacheConfig", function, c_int(_CACHE_PREFER_SHARED))
        self._call("cuFuncSetAttribute", function, c_int(_FUNCTION_MAX_DYNAMIC_SHARED_SIZE_BYTES), c_int(left))

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            raise EngineMisconfigured(f"{name}: {self._describe(code)}")

    def _describe(self, code: int) -> str:
        text = c_char_p()
        self._library.cuGetErrorName(c_int(code), ctypes.byref(text))
        return f"{text.value.decode() if text.value else 'error'} ({code})"
