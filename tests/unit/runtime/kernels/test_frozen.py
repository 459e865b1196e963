"""Frozen launches: what the driver is told, and what is refused before it is told anything."""

import ctypes
import struct

import pytest
import torch

from runtime.errors import KernelMissing
from runtime.kernels.bundle import Bundle
from runtime.kernels.driver import LaunchAttribute, LaunchConfig
from runtime.kernels.frozen import FrozenLauncher
from runtime.kernels.launching import Constant, Options
from runtime.kernels.manifest import build_manifest
from tests.support.frozen_bundles import SOURCES, VERSIONS, RecordingDriver, small_bundle

STREAM = 77
CONSTANTS: dict[str, Constant] = {"N": 4, "EPS": 1e-5}
OPTIONS = Options(num_warps=2, num_stages=3)
PROGRAMMATIC_SERIALIZATION = 6


@pytest.fixture
def driver() -> RecordingDriver:
    return RecordingDriver()


@pytest.fixture
def launcher(driver: RecordingDriver) -> FrozenLauncher:
    return FrozenLauncher(Bundle(*small_bundle()), driver, lambda: STREAM)


def tensors() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(32, dtype=torch.bfloat16), torch.zeros(32)


def test_arguments_reach_the_kernel_in_order_and_scratch_is_null(
    launcher: FrozenLauncher, driver: RecordingDriver
) -> None:
    """Addresses as 64 bits, integers as 32 with their sign, then a null pointer for each scratch memory."""
    rows, out = tensors()
    launcher.launch("linear.dot", (5, 6, 7), (rows, out, -3), CONSTANTS, OPTIONS)
    (launched,) = driver.launched
    assert launched.grid == (5, 6, 7)
    assert (launched.threads, launched.shared_bytes, launched.stream) == (64, 1024, STREAM)
    assert launched.attributes == []
    minus_three = struct.unpack("<I", struct.pack("<i", -3))[0]
    assert launched.parameters == [rows.data_ptr(), out.data_ptr(), minus_three, 0, 0]


def test_floats_are_passed_in_single_precision(driver: RecordingDriver) -> None:
    """A float argument is an fp32 parameter."""
    manifest, contents = small_bundle()
    entries = [
        type(entry)(**{f: getattr(entry, f) for f in entry.__struct_fields__} | {"argument_types": ("fp32",)})
        for entry in manifest.kernels
    ]
    changed = build_manifest("sm_90a", SOURCES, VERSIONS, entries, ())
    FrozenLauncher(Bundle(changed, contents), driver, lambda: STREAM).launch(
        "linear.dot", (1, 1, 1), (0.1,), CONSTANTS, OPTIONS
    )
    assert driver.launched[0].parameters[0] == struct.unpack("<I", struct.pack("<f", 0.1))[0]


def test_dependent_launch_is_one_attribute(launcher: FrozenLauncher, driver: RecordingDriver) -> None:
    """Only variants that were compiled for it ask for it."""
    options = Options(num_warps=4, num_stages=3, launch_pdl=True)
    launcher.launch("norm.add_rms_norm", (1, 1, 1), (*tensors(), 1), CONSTANTS, options)
    assert driver.launched[0].attributes == [(PROGRAMMATIC_SERIALIZATION, 1)]
    assert driver.launched[0].threads == 128


def test_a_second_launch_leaves_nothing_of_the_first(launcher: FrozenLauncher, driver: RecordingDriver) -> None:
    """The memory of a launch is used again with all its values new."""
    for count in (1, 2):
        rows, out = tensors()
        launcher.launch("linear.dot", (count, 1, 1), (rows, out, count), CONSTANTS, OPTIONS)
        assert driver.launched[-1].grid == (count, 1, 1)
        assert driver.launched[-1].parameters == [rows.data_ptr(), out.data_ptr(), count, 0, 0]


@pytest.mark.parametrize(
    ("kernel", "types", "constants", "options"),
    [
        ("linear.none", (torch.bfloat16, torch.float32), CONSTANTS, OPTIONS),
        ("linear.dot", (torch.float16, torch.float32), CONSTANTS, OPTIONS),
        ("linear.dot", (torch.bfloat16, torch.float32), CONSTANTS | {"N": 5}, OPTIONS),
        ("linear.dot", (torch.bfloat16, torch.float32), CONSTANTS | {"M": 1}, OPTIONS),
        ("linear.dot", (torch.bfloat16, torch.float32), CONSTANTS, Options(num_warps=4)),
        ("linear.dot", (torch.bfloat16, torch.float32), CONSTANTS, Options(num_warps=2, launch_pdl=True)),
    ],
    ids=["kernel", "dtype", "constant", "constant more", "warps", "pdl"],
)
def test_a_variant_that_is_not_there_is_named(
    launcher: FrozenLauncher,
    driver: RecordingDriver,
    kernel: str,
    types: tuple[torch.dtype, ...],
    constants: dict[str, Constant],
    options: Options,
) -> None:
    """Also after a launch of the one that is there; nothing near it is taken instead."""
    launcher.launch("linear.dot", (1, 1, 1), (*tensors(), 1), CONSTANTS, OPTIONS)
    arguments = (*(torch.zeros(8, dtype=dtype) for dtype in types), 1)
    with pytest.raises(KernelMissing, match=f"lacks {kernel}.*warps"):
        launcher.launch(kernel, (1, 1, 1), arguments, constants, options)
    assert len(driver.launched) == 1


def test_a_tensor_between_16_bytes_is_refused(launcher: FrozenLauncher, driver: RecordingDriver) -> None:
    """The machine code relies on it."""
    rows, out = tensors()
    with pytest.raises(ValueError, match="aligned to 16 bytes"):
        launcher.launch("linear.dot", (1, 1, 1), (rows[1:], out, 1), CONSTANTS, OPTIONS)
    assert driver.launched == []


def test_an_integer_beyond_32_bits_is_refused(launcher: FrozenLauncher, driver: RecordingDriver) -> None:
    """Cut off it would be another number."""
    with pytest.raises(struct.error):
        launcher.launch("linear.dot", (1, 1, 1), (*tensors(), 1 << 31), CONSTANTS, OPTIONS)
    assert driver.launched == []


def test_an_empty_grid_launches_nothing(launcher: FrozenLauncher, driver: RecordingDriver) -> None:
    """The driver would refuse it; there is nothing to do."""
    launcher.launch("linear.dot", (0, 1, 1), (*tensors(), 1), CONSTANTS, OPTIONS)
    assert driver.launched == []


def test_every_kernel_is_loaded_at_once_from_the_verified_bytes(
    launcher: FrozenLauncher, driver: RecordingDriver
) -> None:
    """Loading waits for the device, so it may not happen inside a capture."""
    manifest, contents = small_bundle()
    assert sorted(driver.images) == sorted(contents[entry.sha256] for entry in manifest.kernels)


def test_structures_are_laid_out_as_in_the_drivers_header() -> None:
    """Offsets of `CUlaunchConfig` and `CUlaunchAttribute` on 64-bit Linux (cuda.h)."""
    offsets = {name: getattr(LaunchConfig, name).offset for name, _ in LaunchConfig._fields_}
    assert offsets == {
        "grid_x": 0, "grid_y": 4, "grid_z": 8, "block_x": 12, "block_y": 16, "block_z": 20, "shared_bytes": 24,
        "stream": 32, "attributes": 40, "num_attributes": 48,
    }  # fmt: skip
    assert ctypes.sizeof(LaunchConfig) == 56
    assert (ctypes.sizeof(LaunchAttribute), LaunchAttribute.value.offset) == (72, 8)
