"""The decoder's operations where a row's result must not depend on the rows beside it (`deterministic`).

What makes it depend on them elsewhere is that kernels are chosen by how many rows there are, and add up in different orders. Here
one way serves every number: products by `invariant.multiply`, norms by a kernel of their own, and a token's choice in blocks of one
size. What is left of `FusedOperations` treats each row by itself already.
"""

from torch import Tensor

from runtime.kernels.blocks import choose_invariant_blocks
from runtime.kernels.launching import Launcher, Options
from runtime.kernels.norm import add_rms_norm
from runtime.kernels.operations import FusedOperations
from runtime.layers.linear import Linear
from runtime.layers.norm import RMSNorm
from runtime.layers.quantized import AnyLinear


def multiply_any(
    x: Tensor,
    weight: Tensor,
    *,
    out: Tensor,
    launcher: Launcher,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    swiglu: bool = False,
    pdl: bool = False,
) -> None:
    """out = activation(x @ weight.T + bias) + residual, accumulated in float32 and rounded once; each row as if it were alone.

    Args:
        x: [rows, K], bf16 or fp16, contiguous; as are the others.
        weight: [N, K] of x's dtype; with `swiglu` [2 * N, K], gate before up, and the result is silu(gate) * up.
        out: [rows, N]; any float dtype. It may be `residual` itself, not x.
        bias: as many as the weight has rows.
        residual: [rows, N].
        pdl: whether kernels before and after take part in programmatic dependent launch; see `runtime.kernels.triton`.
    Capture-safe.
    """
    rows, k = x.shape
    n = weight.shape[0] // 2 if swiglu else weight.shape[0]
    assert (weight.shape[1], *out.shape) == (k, rows, n), f"{x.shape} @ {weight.shape}.T -> {out.shape}"
    cut = choose_invariant_blocks(rows, swiglu=swiglu)
    # What is absent is never read, but has to be a pointer of a known type.
    absent = weight
    launcher.launch(
        "invariant.multiply",
        (-(-rows // cut.rows), -(-n // cut.block_n), 1),
        (x, weight, absent if bias is None else bias, absent if residual is None else residual, out, rows),
        {
            "ROWS": cut.rows,
            "N": n,
            "K": k,
            "BLOCK_N": cut.block_n,
            "BLOCK_K": cut.block_k,
            "BIAS": bias is not None,
            "RESIDUAL": residual is not None,
            "SWIGLU": swiglu,
            "STAGES": cut.num_stages,
            "PDL": pdl,
        },
        Options(num_warps=cut.num_warps, num_stages=cut.num_stages, launch_pdl=pdl),
    )


class InvariantOperations(FusedOperations):
    """See `runtime.models.operations.Operations` for what each does. Weights in e4m3 are refused when an engine is configured."""

    _samples_in_large_blocks = True

    def norm_linear(self, hidden: Tensor, norm: RMSNorm, linear: AnyLinear, out: Tensor | None = None) -> Tensor:
        """See `Operations.norm_linear`."""
        return self._product(self._normed(hidden, norm), linear, out)

    def add_linear(self, hidden: Tensor, rows: Tensor, linear: AnyLinear, part: Tensor | None = None) -> None:
        """See `Operations.add_linear`."""
        if part is None:
            self._product(rows, linear, hidden, residual=hidden)
        else:
            self._product(rows, linear, part)

    def linear(self, rows: Tensor, linear: Linear) -> Tensor:
        """See `Operations.linear`."""
        return self._product(rows, linear)

    def feed_forward(
        self, hidden: Tensor, norm: RMSNorm, gate_up: AnyLinear, down: AnyLinear, part: Tensor | None = None
    ) -> None:
        """See `Operations.feed_forward`."""
        self.add_linear(hidden, self._product(self._normed(hidden, norm), gate_up, swiglu=True), down, part)

    def _normed(self, hidden: Tensor, norm: RMSNorm) -> Tensor:
        out = hidden.new_empty(hidden.shape)
        add_rms_norm(hidden, None, norm.weight, norm.eps, out=out, launcher=self._launcher, pdl=self._dependent_launch)
        return out

    def _product(
        self,
        rows: Tensor,
        linear: AnyLinear,
        out: Tensor | None = None,
        *,
        residual: Tensor | None = None,
        swiglu: bool = False,
    ) -> Tensor:
        assert isinstance(linear, Linear), "FP8 in a deterministic engine"
        if out is None:
            out = rows.new_empty(rows.shape[0], linear.weight.shape[0] // (2 if swiglu else 1))
        multiply_any(
            rows,
            linear.weight,
            out=out,
            launcher=self._launcher,
            bias=linear.bias,
            residual=residual,
            swiglu=swiglu,
            pdl=self._dependent_launch,
        )
        return out
