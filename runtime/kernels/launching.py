"""One way to launch a kernel, whoever compiled it.

A wrapper names a kernel and gives its arguments and constants; it imports no compiler. Which machine code runs follows
from the kernel's name, the dtypes of its arguments, its constants and its options, and from nothing else: no value of an
argument is specialized on. So the variants that a configuration needs can be recorded without a GPU, compiled ahead of
time, and looked up by `Variant`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Constant = int | float | bool | str
Argument = Tensor | int | float

POINTER_ALIGNMENT = 16
"""Bytes; every tensor argument begins at a multiple of it, so that kernels may load so much at once."""

TYPE_NAMES = {
    torch.float8_e4m3fn: "fp8e4nv",
    torch.float8_e5m2: "fp8e5",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.float64: "fp64",
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.int16: "i16",
    torch.int32: "i32",
    torch.int64: "i64",
}
"""Triton's names of dtypes."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a kernel is compiled and launched."""

    num_warps: int = 4
    num_stages: int = 3
    launch_pdl: bool = False
    """Programmatic dependent launch: the kernel may start before the one ahead of it in the stream has ended, and waits
    for its memory by `gdc_wait`."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One compiled form of a kernel."""

    kernel: str
    """`module.function` below `runtime.kernels.triton`."""
    argument_types: tuple[str, ...]
    """Triton's names in the order of the kernel's arguments that are not constants: `*bf16`, `i32`, `fp32` …"""
    constants: tuple[tuple[str, Constant], ...]
    """Sorted by name."""
    options: Options

    def __str__(self) -> str:
        constants = ", ".join(f"{name}={value}" for name, value in self.constants)
        options = f"{self.options.num_warps} warps, {self.options.num_stages} stages"
        pdl = ", pdl" if self.options.launch_pdl else ""
        return f"{self.kernel}({', '.join(self.argument_types)}) with {constants}; {options}{pdl}"


def variant_of(
    kernel: str, arguments: Sequence[Argument], constants: Mapping[str, Constant], options: Options
) -> Variant:
    """The compiled form that a launch needs."""
    types = tuple(_type_of(argument) for argument in arguments)
    return Variant(kernel, types, tuple(sorted(constants.items())), options)


def verify_tensors(kernel: str, arguments: Sequence[Argument]) -> None:
    """Raises: ValueError for a tensor that begins elsewhere than kernels rely on, or that was expanded without a copy.

    A kernel gets an address: where elements share their memory it would read what lies behind them. Where there is no memory
    (`meta`) addresses count from its beginning.
    """
    for argument in arguments:
        if not isinstance(argument, Tensor):
            continue
        start = argument.storage_offset() * argument.element_size() if argument.is_meta else argument.data_ptr()
        if start % POINTER_ALIGNMENT:
            raise ValueError(
                f"{kernel}: expected tensors aligned to {POINTER_ALIGNMENT} bytes, found {tuple(argument.shape)} at {start}"
            )
        if any(size > 1 and not stride for size, stride in zip(argument.shape, argument.stride(), strict=True)):
            raise ValueError(f"{kernel}: expected a number for each element, found {tuple(argument.shape)} expanded")


def _type_of(argument: Argument) -> str:
    if isinstance(argument, Tensor):
        return f"*{TYPE_NAMES[argument.dtype]}"
    return "i32" if isinstance(argument, int) else "fp32"


class Launcher(Protocol):
    """Launches on the current stream; capture-safe after the variant was loaded once."""

    def launch(
        self,
        kernel: str,
        grid: tuple[int, int, int],
        arguments: Sequence[Argument],
        constants: Mapping[str, Constant],
        options: Options,
    ) -> None:
        """Run one kernel.

        Args:
            arguments: in the kernel's order; tensors, not expanded, are passed as pointers aligned to 16 bytes, ints
                as i32, floats as fp32.
            constants: the kernel's `tl.constexpr` parameters by name; dtypes as Triton's names (`bf16`).
        Raises: KernelMissing in a frozen runtime that does not hold the variant.
        """
        ...
