"""Our GPU kernels, and how they are compiled, frozen and launched.

Reading order: `launching` (one way to launch a Triton kernel, whether it is compiled now or was frozen), `triton/` (the
sources, the only modules that import triton), the wrappers beside them (one module per noun: shapes, dtypes, launch
parameters), and the bundle of frozen kernels.

Imports: torch, numpy; triton only below `triton/` and in the launcher that compiles.
"""
