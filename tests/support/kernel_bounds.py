"""Whether kernels stay within their arguments: under Triton's interpreter each load and store is held against the memory of the
tensors that the launch was given.

What lies behind a tensor is mostly another one, or zeros: a kernel that reads there gives the right results until, one day, it
does not. So nothing of it is done here, and the test fails. Which argument an address was meant for is not known: one argument's
memory is another's too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from runtime.kernels.launcher import JitLauncher
from runtime.kernels.launching import Argument, Constant, Options

_BY_ADDRESS = "ranks."
"""Kernels of this module read and write what other ranks have, by addresses that they are told."""


class KernelBounds:
    """Watches all launches while `monkeypatch` lasts. In a process that interprets only."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num_launches = 0
        self.violations: list[str] = []
        self._kernel = ""
        self._spans: list[tuple[int, int]] = []
        self._watch_launches(monkeypatch)
        self._watch_memory(monkeypatch)

    def _watch_launches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        launch = JitLauncher.launch

        def watched(
            launcher: JitLauncher,
            kernel: str,
            grid: tuple[int, int, int],
            arguments: Sequence[Argument],
            constants: Mapping[str, Constant],
            options: Options,
        ) -> None:
            self.num_launches += 1
            self._kernel = kernel
            self._spans = [_span(each) for each in arguments if isinstance(each, Tensor) and each.numel()]
            launch(launcher, kernel, grid, arguments, constants, options)

        monkeypatch.setattr(JitLauncher, "launch", watched)

    def _watch_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from triton.runtime import interpreter

        builder = interpreter.InterpreterBuilder
        load, store = builder.create_masked_load, builder.create_masked_store

        def inside(pointers: Any, mask: Any, what: str) -> Any:
            size = np.dtype(interpreter._get_np_dtype(pointers.get_element_ty())).itemsize
            allowed = self._allowed(pointers.data, mask.data, size, what)
            return mask if allowed is None else interpreter.TensorHandle(allowed, mask.dtype)

        def watched_load(builder: Any, pointers: Any, mask: Any, *others: Any) -> Any:
            return load(builder, pointers, inside(pointers, mask, "load"), *others)

        def watched_store(builder: Any, pointers: Any, value: Any, mask: Any, *others: Any) -> Any:
            return store(builder, pointers, value, inside(pointers, mask, "store"), *others)

        monkeypatch.setattr(builder, "create_masked_load", watched_load)
        monkeypatch.setattr(builder, "create_masked_store", watched_store)

    def _allowed(self, pointers: Any, mask: Any, size: int, what: str) -> Any:
        """The mask without what is outside; None where nothing is."""
        if self._kernel.startswith(_BY_ADDRESS):
            return None
        addresses = np.asarray(pointers).astype(np.int64)
        is_inside = np.zeros(addresses.shape, np.bool_)
        for start, end in self._spans:
            is_inside |= (addresses >= start) & (addresses + size <= end)
        is_asked = np.broadcast_to(np.asarray(mask).astype(np.bool_), addresses.shape)
        outside = addresses[is_asked & ~is_inside]
        if not outside.size:
            return None
        first = int(outside.flat[0])
        start, end = min(self._spans, key=lambda span: min(abs(first - span[0]), abs(first - span[1])))
        self.violations.append(
            f"{self._kernel}: {what} of {outside.size} x {size} bytes at {first - start} of an argument of {end - start}"
        )
        return is_asked & is_inside


def _span(tensor: Tensor) -> tuple[int, int]:
    """Addresses from its first element to behind its last."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()
