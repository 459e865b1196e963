"""The gated activation of the feed-forward layer for many rows. Source: SwiGLU, Shazeer 2020."""

from torch import Tensor

from runtime.kernels.launching import Launcher, Options

_BLOCK = 2048


def silu_and_multiply(gate_up: Tensor, *, out: Tensor, launcher: Launcher, pdl: bool = False) -> None:
    """[rows, 2 * inner], gate before up → out [rows, inner] = silu(gate) * up; both contiguous. Capture-safe."""
    rows, inner = out.shape
    assert gate_up.shape == (rows, 2 * inner), f"{gate_up.shape} -> {out.shape}"
    block = min(_BLOCK, 1 << (inner - 1).bit_length())
    launcher.launch(
        "activation.silu_and_multiply",
        (rows, -(-inner // block), 1),
        (gate_up, out),
        {"INNER": inner, "BLOCK": block, "PDL": pdl},
        Options(num_warps=4, launch_pdl=pdl),
    )
