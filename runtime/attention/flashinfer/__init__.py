"""FlashInfer's attention kernels, called without FlashInfer's Python.

Reading order: `attention` (the backend: which kernel gets which sequences), `work` (part of a step on one kernel),
`contexts` (chunks over contexts that are gathered from their pages), `calls` (the argument lists of the compiled
functions), `workspace` (memory for plans, and how it is reused with steps in flight), `block_tables` (page tables for
XQA), `libraries` (what a compiled library is called and where it comes from).

Imports: torch, `runtime.attention`. Nothing here compiles: libraries are built by `runtime.kernels`.
"""
