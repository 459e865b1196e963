"""Compiles one FlashInfer library: `python -m runtime.kernels.flashinfer_recipe ALGORITHM QUERY CACHE HEAD_DIM WINDOWED GROUP`.

A program of its own, because FlashInfer reads its build folder, architecture and flags from the environment when it is
imported; `flashinfer_building` gives them. Prints where the shared object is. It imports FlashInfer, which no engine does.

Source: FlashInfer 0.6.14, `flashinfer/jit/attention/modules.py` and `flashinfer/jit/xqa.py`.
"""

import contextlib
import sys
from typing import Any

import torch

from runtime.attention.flashinfer.libraries import TYPE_NAMES
from runtime.identifiers import PAGE_SIZE

_DTYPES = {name: dtype for dtype, name in TYPE_NAMES.items()}


def build_recipe(algorithm: str, query: str, cache: str, head_dim: int, windowed: bool, group_size: int) -> Any:
    """FlashInfer's own description of the module."""
    query_dtype, cache_dtype = _DTYPES[query], _DTYPES[cache]
    if algorithm == "xqa":
        from flashinfer.jit.xqa import gen_xqa_module

        return gen_xqa_module(query_dtype, cache_dtype, PAGE_SIZE, head_dim, group_size, windowed, query_dtype)
    from flashinfer.jit import gen_batch_prefill_module

    no_positions, no_cap, no_fp16_reduction = 0, False, False
    return gen_batch_prefill_module(
        algorithm,
        query_dtype,
        cache_dtype,
        query_dtype,
        torch.int32,
        head_dim,
        head_dim,
        no_positions,
        windowed,
        no_cap,
        no_fp16_reduction,
    )


def main(words: list[str]) -> int:
    """Compile and say where the result is, on the last line."""
    algorithm, query, cache, head_dim, windowed, group_size = words
    with contextlib.redirect_stdout(sys.stderr):
        recipe = build_recipe(algorithm, query, cache, int(head_dim), bool(int(windowed)), int(group_size))
        recipe.build(verbose=False)
    sys.stdout.write(f"{recipe.jit_library_path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
