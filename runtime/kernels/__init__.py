"""Our GPU kernels, and how they are compiled, frozen and launched.

Reading order: `launching` (one way to launch a Triton kernel, whether it is compiled now or was frozen), `triton/` (the
sources, the only modules that import triton), the wrappers beside them (shapes, dtypes, launch parameters: `embedding`,
`norm`, `linear` with `blocks`, `quantized` with `scaled_products`, `rotary`, `ranks`, `contexts`, `activation`, `sampling`,
`chains`, `digest`), `operations` (what a decoder is made of) and `invariant` (the same, each row by itself), `launcher` (compiles
what it launches, for development); then what freezes them: `recording` (which variants some work launches), `compiling`,
`flashinfer_building` and its `flashinfer_recipe` (machine code without a GPU), `sources` (their identity), `building`, `manifest`
and `bundle` (all of it in a folder whose every byte is named), `frozen` over `driver` (launches without a compiler in the process),
`libraries`.
Imports: torch, numpy; triton only below `triton/`, in the launcher that compiles and in `compiling`, each when it is used.
"""
