"""Root mean square norm of many rows, with the residual addition before it. Source: Zhang and Sennrich 2019."""

from torch import Tensor

from runtime.kernels.launching import Launcher, Options


def add_rms_norm(
    hidden: Tensor,
    delta: Tensor | None,
    weight: Tensor,
    eps: float,
    *,
    out: Tensor,
    launcher: Launcher,
    pdl: bool = False,
) -> None:
    """hidden += delta, in place and rounded to its dtype; then out = norm(hidden).

    Args:
        hidden: [rows, dim], contiguous, as are the others; changed only if there is a delta.
        delta: [rows, dim] or None.
        weight: [dim]; eps is added to the mean square.
        out: [rows, dim]; may be `delta` or `hidden`.
    Capture-safe.
    """
    rows, dim = hidden.shape
    block = 1 << (dim - 1).bit_length()
    launcher.launch(
        "norm.add_rms_norm",
        (rows, 1, 1),
        (hidden, hidden if delta is None else delta, weight, out),
        {"DIM": dim, "BLOCK": block, "DELTA": delta is not None, "EPS": eps, "PDL": pdl},
        Options(num_warps=min(16, max(1, block // 512)), launch_pdl=pdl),
    )
