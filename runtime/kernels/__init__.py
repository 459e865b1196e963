"""Our GPU kernels, and how they are compiled, frozen and launched.

Reading order: `launching` (one way to launch a Triton kernel, whether it is compiled now or was frozen), `triton/` (the
sources, the only modules that import triton), the wrappers beside them (one module per noun: shapes, dtypes, launch
parameters), `operations` (what a decoder is made of); then what freezes them: `recording` (which variants some work
launches), `compiling` and `flashinfer_building` (machine code without a GPU), `building`, `manifest` and `bundle` (all of
it in a folder whose every byte is named), `frozen` over `driver` (launches without a compiler in the process), `libraries`.

Imports: torch, numpy; triton only below `triton/`, in the launcher that compiles and in `compiling`, each when it is used.
"""
