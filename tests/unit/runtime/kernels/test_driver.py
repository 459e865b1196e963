"""The driver's functions as they are called, on a library that writes down what it is asked."""

import ctypes
from collections.abc import Callable
from typing import Any

import pytest

from runtime.errors import EngineMisconfigured
from runtime.kernels.driver import CudaDriver

MOST_SHARED_BYTES = 232_448
STATIC_SHARED_BYTES = 1024
INVALID_IMAGE = 200
OUT_OF_RESOURCES = 701


class Library:
    """`libcuda` without a GPU: hands out handles, fails where it is told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[Any]]] = []
        self.codes: dict[str, int] = {}
        self.context = 0

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            self.calls.append((name, [getattr(argument, "value", argument) for argument in arguments]))
            self._answer(name, arguments)
            return self.codes.get(name, 0)

        return call

    def _answer(self, name: str, arguments: tuple[Any, ...]) -> None:
        values = {
            "cuCtxGetCurrent": self.context,
            "cuDevicePrimaryCtxRetain": 11,
            "cuDeviceGet": 0,
            "cuModuleLoadData": 21,
            "cuModuleGetFunction": 31,
            "cuDeviceGetAttribute": MOST_SHARED_BYTES,
            "cuFuncGetAttribute": STATIC_SHARED_BYTES,
            "cuGetErrorName": b"CUDA_ERROR_X",
        }
        if name in values:
            place = arguments[1] if name == "cuGetErrorName" else arguments[0]
            place._obj.value = values[name]

    def arguments_of(self, name: str) -> list[list[Any]]:
        return [arguments for called, arguments in self.calls if called == name]


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    made = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: made)
    return made


def test_the_context_of_torch_is_taken_where_there_is_one(library: Library) -> None:
    """A second context on the device would not see torch's memory."""
    library.context = 7
    CudaDriver(0)
    assert not library.arguments_of("cuDevicePrimaryCtxRetain")


def test_else_the_primary_one_which_torch_will_take(library: Library) -> None:
    """Torch works in the primary context of a device."""
    CudaDriver(0)
    assert [arguments[0] for arguments in library.arguments_of("cuCtxSetCurrent")] == [11]


def test_a_kernel_is_loaded_from_memory(library: Library) -> None:
    """Its image as it is, its function by name."""
    function = CudaDriver(0).load(b"\x7fELF\0image", "dot", 1024)
    assert function.value == 31
    assert library.arguments_of("cuModuleGetFunction")[0][1:] == [21, b"dot"]
    assert not library.arguments_of("cuFuncSetAttribute")


@pytest.mark.parametrize(("shared_bytes", "asked"), [(48 << 10, False), ((48 << 10) + 1, True), (200_000, True)])
def test_more_than_48_kib_of_shared_memory_is_asked_for(library: Library, shared_bytes: int, asked: bool) -> None:
    """All that the function's static memory leaves of a block's most."""
    CudaDriver(0).load(b"image", "dot", shared_bytes)
    given = library.arguments_of("cuFuncSetAttribute")
    assert given == ([[31, 8, MOST_SHARED_BYTES - STATIC_SHARED_BYTES]] if asked else [])


def test_more_shared_memory_than_the_gpu_has_is_refused(library: Library) -> None:
    """With both numbers."""
    with pytest.raises(EngineMisconfigured, match="needs 232000 bytes of shared memory, the GPU has 231424"):
        CudaDriver(0).load(b"image", "dot", 232_000)


def test_what_the_driver_refuses_is_told_by_its_name(library: Library) -> None:
    """A cubin of another architecture, for one."""
    library.codes["cuModuleLoadData"] = INVALID_IMAGE
    with pytest.raises(EngineMisconfigured, match=r"cuModuleLoadData: CUDA_ERROR_X \(200\)"):
        CudaDriver(0).load(b"image", "dot", 0)


def test_a_launch_that_fails_raises(library: Library) -> None:
    """It is our bug or the device's end, so it is no error of the settings."""
    driver = CudaDriver(0)
    library.codes["cuLaunchKernelEx"] = OUT_OF_RESOURCES
    with pytest.raises(RuntimeError, match=r"cuLaunchKernelEx: CUDA_ERROR_X \(701\)"):
        driver.launch(None, ctypes.c_void_p(31), None)


def test_a_machine_without_a_driver_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """By an error that says what is needed."""

    def absent(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", absent)
    with pytest.raises(EngineMisconfigured, match="need NVIDIA's driver: libcuda"):
        CudaDriver(0)
