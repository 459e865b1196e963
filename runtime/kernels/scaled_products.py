"""Products in e4m3 that are added to a residual by the kernel that multiplies: cuBLASLt, with scales by row of both operands.

torch's own way to it (`torch._scaled_mm`, 2.11) has no addition, so a residual takes a kernel of its own and is rounded twice. By
ctypes on the library that torch has loaded, over memory that is prepared once for a shape.

cuBLAS counts by columns: our [n, k] weights are its matrix of k rows and n columns, transposed; what it writes as n rows and
num_rows columns is our [num_rows, n].

Source: CUDA 13.0 `cublasLt.h`.
"""

import ctypes
import functools
from ctypes import c_float, c_int, c_int8, c_int64, c_size_t, c_uint64, c_void_p
from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.errors import EngineMisconfigured

_BF16, _E4M3, _FLOAT32 = 14, 28, 0
_COMPUTE_FLOAT32 = 68
_TRANSPOSE_A, _A_SCALE, _B_SCALE, _FAST_SUMS, _A_SCALE_MODE, _B_SCALE_MODE = 3, 17, 18, 25, 31, 32
"""Of `cublasLtMatmulDescAttributes_t`."""
_SCALES_BY_ROW = 3
"""Of `cublasLtMatmulMatrixScale_t`: a float32 for each row of our operand."""
_MOST_WORKSPACE_BYTES = 1
"""Of `cublasLtMatmulPreferenceAttributes_t`."""
_WORKSPACE_BYTES = 32 << 20
_NUM_SHAPES = 1024
"""Kept ready: all graphs have, and what steps outside of graphs had last."""

_Layout, _Preference, _Algorithm = c_uint64 * 8, c_uint64 * 8, c_uint64 * 8
_Description = c_uint64 * 32


class _Proposal(ctypes.Structure):
    """`cublasLtMatmulHeuristicResult_t`."""

    _fields_ = (
        ("algorithm", _Algorithm),
        ("workspace_bytes", c_size_t),
        ("state", c_int),
        ("waves", c_float),
        ("reserved", c_int * 4),
    )


@dataclass(frozen=True, slots=True)
class _Plan:
    """One shape, as cuBLASLt wants it; the addresses of the scales are written into `description` before each call."""

    description: ctypes.Array[c_uint64]
    weights: ctypes.Array[c_uint64]
    rows: ctypes.Array[c_uint64]
    out: ctypes.Array[c_uint64]
    algorithm: ctypes.Array[c_uint64]


class ScaledProducts:
    """cuBLASLt on one device. Launches on the current stream; one thread at a time."""

    def __init__(self, device: torch.device) -> None:
        """
        Raises: EngineMisconfigured without the library.
        """
        name = f"libcublasLt.so.{(torch.version.cuda or '').partition('.')[0]}"
        try:
            self._library = ctypes.CDLL(name)
        except OSError as error:
            raise EngineMisconfigured(f"products in e4m3 need cuBLASLt: {error}") from error
        self._handle = c_void_p()
        self._call("cublasLtCreate", ctypes.byref(self._handle))
        self._workspace = torch.empty(_WORKSPACE_BYTES, dtype=torch.uint8, device=device)
        self._preference = _Preference()
        self._call("cublasLtMatmulPreferenceInit_internal", self._preference, c_size_t(ctypes.sizeof(_Preference)))
        most = c_uint64(_WORKSPACE_BYTES)
        self._call(
            "cublasLtMatmulPreferenceSetAttribute",
            self._preference,
            _MOST_WORKSPACE_BYTES,
            ctypes.byref(most),
            c_size_t(8),
        )
        self._one = c_float(1.0)
        self._plan = functools.lru_cache(_NUM_SHAPES)(self._make_plan)

    def add(self, rows: Tensor, row_scales: Tensor, weight: Tensor, weight_scales: Tensor, out: Tensor) -> bool:
        """out += rows @ weight.T, whose elements are multiplied by the scales of their row and column. Capture-safe.

        Args:
            rows: [num_rows, k] e4m3.
            row_scales: [num_rows] float32.
            weight: [n, k] e4m3; n and k multiples of 16.
            weight_scales: [n] float32.
            out: [num_rows, n] bf16. All contiguous.
        Returns: False if cuBLASLt knows no way for this shape; nothing was launched.
        """
        (num_rows, k), n = rows.shape, weight.shape[0]
        plan = self._plan(num_rows, n, k)
        if plan is None:
            return False
        self._describe(plan.description, _A_SCALE, c_void_p(weight_scales.data_ptr()))
        self._describe(plan.description, _B_SCALE, c_void_p(row_scales.data_ptr()))
        self._call(
            "cublasLtMatmul",
            self._handle,
            plan.description,
            ctypes.byref(self._one),
            c_void_p(weight.data_ptr()),
            plan.weights,
            c_void_p(rows.data_ptr()),
            plan.rows,
            ctypes.byref(self._one),
            c_void_p(out.data_ptr()),
            plan.out,
            c_void_p(out.data_ptr()),
            plan.out,
            plan.algorithm,
            c_void_p(self._workspace.data_ptr()),
            c_size_t(_WORKSPACE_BYTES),
            c_void_p(torch.cuda.current_stream(out.device).cuda_stream),
        )
        return True

    def _make_plan(self, num_rows: int, n: int, k: int) -> _Plan | None:
        """By cuBLASLt's first proposal, which for a shape is the same whenever it is asked."""
        description = _Description()
        size = c_size_t(ctypes.sizeof(_Description))
        self._call("cublasLtMatmulDescInit_internal", description, size, _COMPUTE_FLOAT32, _FLOAT32)
        self._describe(description, _TRANSPOSE_A, c_int(1))
        self._describe(description, _FAST_SUMS, c_int8(1))
        for mode in (_A_SCALE_MODE, _B_SCALE_MODE):
            self._describe(description, mode, c_int(_SCALES_BY_ROW))
        for scale in (_A_SCALE, _B_SCALE):  # Any address that is not null; the real ones come with each call.
            self._describe(description, scale, c_void_p(self._workspace.data_ptr()))
        weights, rows, out = (
            self._layout(_E4M3, k, n),
            self._layout(_E4M3, k, num_rows),
            self._layout(_BF16, n, num_rows),
        )
        found, count = _Proposal(), c_int()
        status = self._library.cublasLtMatmulAlgoGetHeuristic(
            self._handle,
            description,
            weights,
            rows,
            out,
            out,
            self._preference,
            1,
            ctypes.byref(found),
            ctypes.byref(count),
        )
        if status or not count.value or found.state:
            return None
        return _Plan(description, weights, rows, out, found.algorithm)

    def _layout(self, kind: int, num_rows: int, num_columns: int) -> ctypes.Array[c_uint64]:
        layout = _Layout()
        size = c_size_t(ctypes.sizeof(_Layout))
        sizes = c_uint64(num_rows), c_uint64(num_columns), c_int64(num_rows)
        self._call("cublasLtMatrixLayoutInit_internal", layout, size, kind, *sizes)
        return layout

    def _describe(self, description: ctypes.Array[c_uint64], attribute: int, value: c_int | c_int8 | c_void_p) -> None:
        size = c_size_t(ctypes.sizeof(value))
        self._call("cublasLtMatmulDescSetAttribute", description, attribute, ctypes.byref(value), size)

    def _call(self, function: str, *arguments: object) -> None:
        status = getattr(self._library, function)(*arguments)
        if status:
            raise RuntimeError(f"{function} of cuBLASLt returned {status}, expected 0")


@functools.cache
def scaled_products(device: torch.device) -> ScaledProducts:
    """The one of a device."""
    return ScaledProducts(device)
