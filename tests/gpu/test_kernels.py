"""Every kernel of ours beside its reference, over shapes, dtypes and seeds, on a Hopper GPU.

The error is ||out - reference|| / ||reference|| against float32; the tolerances are those of `tests.support.kernel_checks`.
"""

import pytest
import torch

from runtime.kernels.blocks import GemvBlocks, Shape, choose_blocks
from tests.support.kernel_checks import (
    TOLERANCES,
    Attention,
    Inputs,
    check_activation,
    check_attention,
    check_embedding,
    check_linear,
    check_norm,
    check_rotary,
    check_sampling,
    check_shared_attention,
    run_sampling,
)

pytestmark = pytest.mark.gpu

MODES = pytest.mark.parametrize(
    ("dtype", "pdl"), [(torch.bfloat16, True), (torch.float16, False)], ids=["bf16-pdl", "fp16"]
)
SEEDS = pytest.mark.parametrize("seed", [0, 1])

LAYERS = {
    "qkv": (6144, 4096, {"norm": True}),
    "o": (4096, 4096, {"residual": True}),
    "gate_up": (14336, 4096, {"norm": True, "swiglu": True}),
    "down": (4096, 14336, {"residual": True}),
    "head": (128256, 4096, {"norm": True, "out_dtype": torch.float32}),
    "small": (384, 256, {"norm": True, "bias": True}),
    "odd": (1000, 520, {"norm": True, "bias": True, "residual": True}),
}


@MODES
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 8, 9, 24, 64, 128])
@pytest.mark.parametrize("layer", LAYERS)
def test_linear_layers(layer: str, rows: int, dtype: torch.dtype, pdl: bool) -> None:
    """The blocks that `choose_blocks` chooses, others where it leaves the product to cuBLAS, and their fusions."""
    n, k, fused = LAYERS[layer]
    blocks = choose_blocks(Shape(n, k, swiglu=bool(fused.get("swiglu"))), rows) or GemvBlocks("dot", 64, 64, 4, 8)
    error = check_linear(Inputs("cuda", dtype, rows), rows, n, k, blocks=blocks, pdl=pdl, **fused)
    assert error < TOLERANCES[dtype]


@SEEDS
@pytest.mark.parametrize("rows", [17, 33, 65])
@pytest.mark.parametrize("cut", [(64, 64, 4, 4), (64, 128, 4, 3), (128, 64, 8, 3)])
def test_linear_with_more_rows(cut: tuple[int, int, int, int], rows: int, seed: int) -> None:
    """Padded to the next power of two."""
    blocks = GemvBlocks("dot", *cut, prefetch=512)
    inputs = Inputs("cuda", torch.bfloat16, seed)
    assert (
        check_linear(inputs, rows, 1000, 520, blocks=blocks, bias=True, swiglu=True, pdl=True)
        < TOLERANCES[torch.bfloat16]
    )
    assert check_linear(inputs, rows, 1024, 4096, blocks=blocks, residual=True, pdl=True) < TOLERANCES[torch.bfloat16]


@SEEDS
@pytest.mark.parametrize("rows", [1, 2, 4, 8])
@pytest.mark.parametrize(
    "blocks",
    [
        GemvBlocks("multiply_reduce", 2, 512, 4, prefetch=1024),
        GemvBlocks("multiply_reduce", 1, 2048, 8),
        GemvBlocks("dot", 16, 128, 1, 4, prefetch=512),
        GemvBlocks("dot", 64, 128, 4, 3),
        GemvBlocks("dot", 16, 256, 1, 4, first_tile=True),
        GemvBlocks("dot", 32, 256, 2, 3, first_tile=True, late=True),
        GemvBlocks("multiply_reduce", 4, 512, 4, late=True),
        GemvBlocks("split_dot", 16, 256, 4, 2),
        GemvBlocks("split_dot", 32, 64, 8, 2, prefetch=1024, late=True),
    ],
    ids=lambda blocks: f"{blocks.kernel}-{blocks.block_n}{'-first' * blocks.first_tile}{'-late' * blocks.late}",
)
def test_linear_with_other_blocks(blocks: GemvBlocks, rows: int, seed: int) -> None:
    """All kernels at every number of rows, whoever is chosen."""
    inputs = Inputs("cuda", torch.bfloat16, seed)
    error = check_linear(inputs, rows, 1024, 4096, blocks=blocks, norm=True, swiglu=True, pdl=True)
    assert error < TOLERANCES[torch.bfloat16]


@MODES
@pytest.mark.parametrize("dim", [256, 520, 4096, 8192])
@pytest.mark.parametrize("rows", [1, 7, 512])
def test_norm(rows: int, dim: int, dtype: torch.dtype, pdl: bool) -> None:
    """With the residual addition, which is exact, and without."""
    for delta in (False, True):
        assert check_norm(Inputs("cuda", dtype, rows), rows, dim, delta=delta, pdl=pdl) < TOLERANCES[dtype]


@MODES
@pytest.mark.parametrize(("rows", "inner"), [(1, 14336), (512, 14336), (5, 712)])
def test_activation(rows: int, inner: int, dtype: torch.dtype, pdl: bool) -> None:
    """One row and many, an inner size that fills no block."""
    assert check_activation(Inputs("cuda", dtype, rows), rows, inner, pdl=pdl) < TOLERANCES[dtype]


@pytest.mark.parametrize("pdl", [False, True], ids=["", "pdl"])
@pytest.mark.parametrize(("rows", "dim"), [(1, 4096), (512, 4096), (9, 264)])
def test_embedding(rows: int, dim: int, pdl: bool) -> None:
    """Exact."""
    check_embedding(Inputs("cuda", torch.bfloat16, rows), rows, 3000, dim, pdl=pdl)


@MODES
@pytest.mark.parametrize("norm", [False, True], ids=["", "norm"])
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(32, 8, 128), (4, 2, 64), (16, 2, 256), (6, 6, 96)])
@pytest.mark.parametrize("rows", [1, 300])
def test_rotary(rows: int, heads: int, kv_heads: int, head_dim: int, norm: bool, dtype: torch.dtype, pdl: bool) -> None:
    """Queries, keys and values; nothing else in the cache changes."""
    error = check_rotary(Inputs("cuda", dtype, rows), rows, heads, kv_heads, head_dim, norm=norm, pdl=pdl)
    assert error < TOLERANCES[dtype]


@pytest.mark.parametrize("rows", [1, 300])
def test_rotary_into_e4m3(rows: int) -> None:
    """3 bits of mantissa, rounded: a relative error below 1/32 in the mean."""
    error = check_rotary(Inputs("cuda", torch.bfloat16, rows), rows, 32, 8, 128, cache_dtype=torch.float8_e4m3fn)
    assert error < 1 / 32


@SEEDS
@pytest.mark.parametrize("pdl", [False, True], ids=["", "pdl"])
@pytest.mark.parametrize("drawn", [False, True], ids=["greedy", "drawn"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
@pytest.mark.parametrize(("rows", "vocab_size"), [(1, 128256), (16, 2048), (64, 128256), (33, 151936)])
def test_sampling(rows: int, vocab_size: int, dtype: torch.dtype, drawn: bool, seed: int, pdl: bool) -> None:
    """Tokens are the reference's but for ties; `check_sampling` asserts that, and that there is hardly any tie."""
    assert check_sampling(Inputs("cuda", dtype, seed), rows, vocab_size, drawn=drawn, pdl=pdl) < 0.1


@pytest.mark.parametrize("rows", [3, 40])
@pytest.mark.parametrize("drawn", [False, True], ids=["greedy", "drawn"])
def test_sampling_tells_rows_that_are_not_finite(drawn: bool, rows: int) -> None:
    """NaN in a row, plus infinity in another, no finite value in a third; the others are chosen as before."""
    inputs = Inputs("cuda", torch.bfloat16, 5)
    logits = inputs.normal(rows, 128256)
    parameters = torch.full((rows,), float(drawn), device="cuda"), inputs.integers(99, rows), inputs.integers(99, rows)
    wanted, _ = run_sampling(logits, *parameters, drawn=drawn)
    logits[0, 100_000] = torch.nan
    logits[1, 5] = torch.inf
    logits[2] = -torch.inf
    token_ids, is_finite = run_sampling(logits, *parameters, drawn=drawn)
    assert is_finite.tolist() == [0, 0, 0] + [1] * (rows - 3)
    assert torch.equal(token_ids[3:], wanted[3:])
    assert bool(((token_ids >= 0) & (token_ids < 128256)).all())


SHAPES = pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim"), [(32, 8, 128), (4, 2, 64), (16, 8, 256), (8, 8, 96), (64, 8, 128)]
)


@MODES
@SHAPES
@pytest.mark.parametrize(("sequences", "window"), [(1, None), (5, None), (40, None), (5, 100)])
def test_decode_attention(
    sequences: int, window: int | None, heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype, pdl: bool
) -> None:
    """Lengths from 1 to 3000, one part and many; NaN wherever no token is."""
    inputs = Inputs("cuda", dtype, sequences)
    contexts = [1, 3000, 16, 1025, 64][:sequences] + inputs.integers(900, max(0, sequences - 5)).add(1).tolist()
    case = Attention(inputs, contexts, [1] * sequences, heads=heads, kv_heads=kv_heads, head_dim=head_dim)
    assert check_attention(case, window=window, pdl=pdl) < TOLERANCES[dtype]


@MODES
@SHAPES
@pytest.mark.parametrize("cache_dtype", [None, torch.float8_e4m3fn], ids=["", "e4m3"])
@pytest.mark.parametrize("sequences", [9, 64])
def test_decodes_of_which_some_begin_with_the_same_pages(
    sequences: int, cache_dtype: torch.dtype | None, heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype,
    pdl: bool,
) -> None:  # fmt: skip
    """Groups of 2, 3 and 4 in random order, beside sequences by themselves; one token behind what is shared, and many."""
    inputs = Inputs("cuda", dtype, sequences)
    contexts = inputs.integers(900, sequences).add(400).tolist()
    order = inputs.permutation(sequences).tolist()
    groups = [(order[at : at + size], pages) for at, size, pages in ((0, 4, 20), (4, 2, 1), (6, 2, 17))]
    if sequences > 9:
        groups += [(order[at : at + 3], 10 + at % 11) for at in range(8, sequences - 8, 3)]
    for members, pages in groups:
        contexts[members[-1]] = 16 * pages + 1
    case = Attention(
        inputs, contexts, [1] * sequences, heads=heads, kv_heads=kv_heads, head_dim=head_dim, cache_dtype=cache_dtype
    )
    assert check_shared_attention(case, groups, pdl=pdl) < TOLERANCES[dtype]


@MODES
@SHAPES
@pytest.mark.parametrize("window", [None, 100])
def test_prefill_attention(
    window: int | None, heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype, pdl: bool
) -> None:
    """Decodes, whole prompts and chunks after a cached prefix in one step."""
    inputs = Inputs("cuda", dtype, 0)
    case = Attention(
        inputs, [700, 33, 1000, 1500, 20, 64], [1, 1, 1000, 300, 2, 64],
        heads=heads, kv_heads=kv_heads, head_dim=head_dim,
    )  # fmt: skip
    assert check_attention(case, window=window, pdl=pdl) < TOLERANCES[dtype]


@pytest.mark.parametrize("queries", [[1, 1, 1], [1, 200, 33]])
def test_attention_over_e4m3(queries: list[int]) -> None:
    """The reference reads the same rounded cache, so only the weights' rounding differs."""
    inputs = Inputs("cuda", torch.bfloat16, 1)
    case = Attention(
        inputs, [400, 900, 33], queries, heads=32, kv_heads=8, head_dim=128, cache_dtype=torch.float8_e4m3fn
    )
    assert check_attention(case) < TOLERANCES[torch.bfloat16]


def test_a_captured_plan_follows_the_tables() -> None:
    """A graph captured with some lengths attends over others when it is replayed."""
    inputs = Inputs("cuda", torch.bfloat16, 2)
    case = Attention(inputs, [1000] * 4, [1] * 4, heads=32, kv_heads=8, head_dim=128)
    plan = case.backend(pdl=True).plan_capture(case.tables, 4)
    out = torch.empty_like(case.query)
    plan.attend(1, case.query, out)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        plan.attend(1, case.query, out)
    for contexts in ([1000, 1, 17, 300], [64, 128, 129, 999]):
        case.tables.context_lengths.copy_(torch.tensor(contexts))
        graph.replay()
        case.contexts = contexts
        wanted = case.reference(None)
        assert float((out.float() - wanted).norm() / wanted.norm()) < TOLERANCES[torch.bfloat16]
