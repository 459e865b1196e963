"""The decoder's operations by our kernels and cuBLAS: `runtime.models.operations`, made fast.

While rows are few a product is bound by how fast its weights come from memory: our own kernels take it where `blocks` says so, with
the activation or residual behind it, and start before the kernel ahead of them has drained (programmatic dependent launch). Up to
`MAX_ROWS` rows the norm before it is theirs as well; with more a kernel of its own is cheaper than a norm in every program.
Elsewhere cuBLAS multiplies and our kernels do what lies between. Products in e4m3 are `quantized`'s.
"""

import torch
import torch.nn.functional as functional
from torch import Tensor

from runtime.kernels.activation import silu_and_multiply
from runtime.kernels.blocks import MAX_ROWS, Shape, choose_blocks
from runtime.kernels.chains import join_normed
from runtime.kernels.embedding import gather_embeddings
from runtime.kernels.launching import Launcher
from runtime.kernels.linear import Norm, multiply_rows
from runtime.kernels.norm import add_rms_norm
from runtime.kernels.quantized import multiply_quantized, quantize_gated, quantize_rows
from runtime.kernels.rotary import HeadNorms, rotate_and_store
from runtime.kernels.sampling import SamplingWorkspace, sample_rows
from runtime.layers.linear import Linear
from runtime.layers.norm import RMSNorm
from runtime.layers.quantized import AnyLinear, InputScaling, QuantizedLinear, QuantizedRows
from runtime.layers.rotary import RotaryTable
from runtime.models.operations import DraftTokens, SampleColumns, TokenPlaces, TokenSource


class FusedOperations:
    """See `runtime.models.operations.Operations` for what each does."""

    _samples_in_large_blocks = False
    """Whether a token is chosen in the same way whatever the number of rows."""

    def __init__(
        self,
        launcher: Launcher,
        *,
        max_samples: int,
        vocab_size: int,
        device: torch.device,
        dependent_launch: bool = True,
    ) -> None:
        """
        Args:
            max_samples: rows that are sampled in one step at most.
            dependent_launch: whether kernels use programmatic dependent launch, which a CPU's interpreter lacks.
        """
        self._launcher = launcher
        self._dependent_launch = dependent_launch
        self._workspace = SamplingWorkspace(max_samples, vocab_size, device)

    def embed(self, source: TokenSource, table: Tensor, hidden: Tensor) -> None:
        """See `Operations.embed`."""
        gather_embeddings(
            source.token_ids,
            source.previous_rows,
            source.previous_ids,
            table,
            out=hidden,
            launcher=self._launcher,
            pdl=False,  # The first of a step: later ones read the step's tables before they wait for whoever is ahead.
        )

    def norm_linear(self, hidden: Tensor, norm: RMSNorm, linear: AnyLinear, out: Tensor | None = None) -> Tensor:
        """See `Operations.norm_linear`."""
        if isinstance(linear, QuantizedLinear):
            rows = self._quantize(hidden, linear.inputs, Norm(norm.weight, norm.eps))
            product = self._multiply_quantized(rows, linear, hidden.dtype)
            return product if out is None else out.copy_(product)
        normed, fused = self._norm_before(hidden, norm)
        return self._multiply(normed, linear, out, fused)

    def add_linear(self, hidden: Tensor, rows: Tensor, linear: AnyLinear, part: Tensor | None = None) -> None:
        """See `Operations.add_linear`."""
        if isinstance(linear, QuantizedLinear):
            self._add_quantized(hidden, self._quantize(rows, linear.inputs, None), linear, part)
        elif part is not None:
            self._multiply(rows, linear, part)
        elif _is_ours(linear, hidden):
            self._multiply_few(rows, linear, hidden, residual=hidden)
        elif linear.bias is None and not hidden.is_meta:
            hidden.addmm_(rows, linear.weight.t())
        else:
            hidden.add_(_multiply_by_cublas(rows, linear))

    def linear(self, rows: Tensor, linear: Linear) -> Tensor:
        """See `Operations.linear`."""
        return self._multiply(rows, linear)

    def join_normed(self, tokens: DraftTokens, table: Tensor, hidden: Tensor, norms: tuple[RMSNorm, RMSNorm]) -> Tensor:
        """See `Operations.join_normed`."""
        return join_normed(
            tokens.ids,
            tokens.target_ids,
            tokens.drafts,
            tokens.step,
            table,
            hidden,
            (norms[0].weight, norms[1].weight),
            norms[0].eps,
            launcher=self._launcher,
            pdl=self._dependent_launch,
        )

    def feed_forward(
        self, hidden: Tensor, norm: RMSNorm, gate_up: AnyLinear, down: AnyLinear, part: Tensor | None = None
    ) -> None:
        """See `Operations.feed_forward`."""
        if isinstance(gate_up, Linear) and _is_ours(gate_up, hidden, swiglu=True):
            self.add_linear(hidden, self._norm_gated(hidden, norm, gate_up), down, part)
            return
        rows = self.norm_linear(hidden, norm, gate_up)
        if isinstance(down, QuantizedLinear):
            inner = quantize_gated(rows, down.inputs, launcher=self._launcher, pdl=self._dependent_launch)
            self._add_quantized(hidden, inner, down, part)
            return
        gated = rows.new_empty(rows.shape[0], rows.shape[1] // 2)
        silu_and_multiply(rows, out=gated, launcher=self._launcher, pdl=self._dependent_launch)
        self.add_linear(hidden, gated, down, part)

    def rotate_and_store(
        self,
        heads: Tensor,
        places: TokenPlaces,
        rotary: RotaryTable,
        head_norms: tuple[RMSNorm, RMSNorm] | None,
        layer_pages: Tensor,
        query: Tensor,
        layer_scales: Tensor | None = None,
    ) -> None:
        """See `Operations.rotate_and_store`."""
        rotate_and_store(
            heads,
            places.positions,
            places.slots,
            rotary.cosines,
            rotary.sines,
            layer_pages,
            query=query,
            launcher=self._launcher,
            head_norms=_head_norms(head_norms),
            scales=layer_scales,
            pdl=self._dependent_launch,
        )

    def sample(self, logits: Tensor, columns: SampleColumns, samples: Tensor) -> None:
        """See `Operations.sample`."""
        count = logits.shape[0]
        sample_rows(
            logits,
            columns.temperature,
            columns.seeds,
            columns.positions,
            workspace=self._workspace,
            token_ids=samples[0, :count],
            is_finite=samples[1, :count],
            drawn=True,
            launcher=self._launcher,
            in_large_blocks=self._samples_in_large_blocks,
            pdl=self._dependent_launch,
        )

    def _norm_gated(self, hidden: Tensor, norm: RMSNorm, gate_up: Linear) -> Tensor:
        """The activation comes out of the product."""
        rows, fused = self._norm_before(hidden, norm)
        out = hidden.new_empty(hidden.shape[0], gate_up.weight.shape[0] // 2)
        self._multiply_few(rows, gate_up, out, norm=fused, swiglu=True)
        return out

    def _norm_before(self, hidden: Tensor, norm: RMSNorm) -> tuple[Tensor, Norm | None]:
        """The rows that a product reads, and the norm that it is to apply; None: they have been through it."""
        if hidden.shape[0] <= MAX_ROWS:
            return hidden, Norm(norm.weight, norm.eps)
        out = torch.empty_like(hidden)
        add_rms_norm(hidden, None, norm.weight, norm.eps, out=out, launcher=self._launcher, pdl=self._dependent_launch)
        return out, None

    def _multiply(self, rows: Tensor, linear: Linear, out: Tensor | None = None, norm: Norm | None = None) -> Tensor:
        if not _is_ours(linear, rows):
            return _multiply_by_cublas(rows, linear, out)
        if out is None:
            out = rows.new_empty(rows.shape[0], linear.weight.shape[0])
        self._multiply_few(rows, linear, out, norm=norm)
        return out

    def _multiply_few(
        self, rows: Tensor, linear: Linear, out: Tensor, *,
        norm: Norm | None = None, residual: Tensor | None = None, swiglu: bool = False,
    ) -> None:  # fmt: skip
        """By our kernels."""
        multiply_rows(
            rows,
            linear.weight,
            out=out,
            launcher=self._launcher,
            norm=norm,
            bias=linear.bias,
            residual=residual,
            swiglu=swiglu,
            pdl=self._dependent_launch,
        )

    def _quantize(self, rows: Tensor, scaling: InputScaling, norm: Norm | None) -> QuantizedRows:
        return quantize_rows(rows, scaling, launcher=self._launcher, norm=norm, pdl=self._dependent_launch)

    def _add_quantized(self, hidden: Tensor, rows: QuantizedRows, linear: QuantizedLinear, part: Tensor | None) -> None:
        residual = hidden if part is None else None
        self._multiply_quantized(rows, linear, hidden.dtype, residual=residual, out=part)

    def _multiply_quantized(
        self,
        rows: QuantizedRows,
        linear: QuantizedLinear,
        dtype: torch.dtype,
        *,
        residual: Tensor | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        return multiply_quantized(
            rows, linear, launcher=self._launcher, dtype=dtype, residual=residual, out=out, pdl=self._dependent_launch
        )


def _multiply_by_cublas(rows: Tensor, linear: Linear, out: Tensor | None = None) -> Tensor:
    """On `meta` the shape is enough: torch's own way to it imports its compiler, which a frozen engine must not."""
    if rows.is_meta:
        return rows.new_empty(rows.shape[0], linear.weight.shape[0]) if out is None else out
    if out is None:
        return functional.linear(rows, linear.weight, linear.bias)
    if linear.bias is None:
        return torch.mm(rows, linear.weight.t(), out=out)
    return torch.addmm(linear.bias, rows, linear.weight.t(), out=out)


def _is_ours(linear: Linear, rows: Tensor, *, swiglu: bool = False) -> bool:
    """Whether our kernels are faster than cuBLAS with so many rows; up to MAX_ROWS always."""
    n, k = linear.weight.shape
    return choose_blocks(Shape(n // 2 if swiglu else n, k, swiglu), rows.shape[0]) is not None


def _head_norms(norms: tuple[RMSNorm, RMSNorm] | None) -> HeadNorms | None:
    if norms is None:
        return None
    query, key = norms
    return HeadNorms(query.weight, key.weight, query.eps)
