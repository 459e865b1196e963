"""Head norms, rotation and the write to the cache, in one pass over the projected rows of a step."""

from dataclasses import dataclass

from torch import Tensor

from runtime.kernels.launching import Launcher, Options

_BLOCK_HEADS = 8


@dataclass(frozen=True, slots=True)
class HeadNorms:
    """The per-head norms of queries and keys that Qwen3 has: weights [head_dim]."""

    query: Tensor
    key: Tensor
    eps: float


def rotate_and_store(
    qkv: Tensor,
    positions: Tensor,
    slots: Tensor,
    cosines: Tensor,
    sines: Tensor,
    layer_pages: Tensor,
    *,
    query: Tensor,
    launcher: Launcher,
    head_norms: HeadNorms | None = None,
    scales: Tensor | None = None,
    pdl: bool = False,
) -> None:
    """Norm and turn queries and keys; queries go to `query`, keys and values to the cache.

    Args:
        qkv: [rows, (heads + 2 * kv_heads) * head_dim], contiguous.
        positions: [rows] int32 or int64, each within the table.
        slots: [rows] int32 or int64; slot = page * page_size + offset; page 0 for padding rows.
        cosines, sines: [num_positions, head_dim] as `runtime.layers.rotary.RotaryTable` tabulates them.
        layer_pages: [num_pages, 2, page_size, kv_heads, head_dim]; bf16, fp16 or e4m3.
        query: [rows, heads, head_dim], written.
        scales: [at least 2] float32: the cache holds keys and values divided by them, rounded to e4m3. None: as they are.
    Capture-safe.
    """
    rows, heads, head_dim = query.shape
    page_size, kv_heads = layer_pages.shape[2:4]
    all_heads = heads + 2 * kv_heads
    assert qkv.shape == (rows, all_heads * head_dim), f"{qkv.shape} for {all_heads} heads of {head_dim}"
    launcher.launch(
        "rotary.rotate_and_store",
        (rows, -(-all_heads // _BLOCK_HEADS), 1),
        (
            qkv,
            positions,
            slots,
            cosines,
            sines,
            qkv if head_norms is None else head_norms.query,
            qkv if head_norms is None else head_norms.key,
            cosines if scales is None else scales,
            layer_pages,
            query,
        ),
        {
            "HEADS": heads,
            "KV_HEADS": kv_heads,
            "HEAD_DIM": head_dim,
            "PAGE_SIZE": page_size,
            "BLOCK_HEADS": _BLOCK_HEADS,
            "BLOCK_HALF": 1 << (head_dim // 2 - 1).bit_length(),
            "NORM": head_norms is not None,
            "EPS": 0.0 if head_norms is None else head_norms.eps,
            "SCALED": scales is not None,
            "PDL": pdl,
        },
        Options(num_warps=2, launch_pdl=pdl),
    )
