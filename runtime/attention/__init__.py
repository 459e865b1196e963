"""Attention over paged keys and values.

Reading order: `pages` (the cache tensor and what writes it), `backend` (the interface: plan once a step, then attend in
each layer), `reference` (plain torch, on any device: the judge of all faster ones); then `device` (the interface on a
GPU, where steps are captured graphs), behind it `triton` (our kernels, with `shared_prefixes` and `shared_decoding` for decodes
that begin alike) and `flashinfer`, one for decodes and one for chunks by `combined`,
at the same time by `beside`; `invariant` (no row depends on the others); `verifying` (rows of drafts).

Imports: torch, numpy, `runtime.batch`, `runtime.identifiers`, and what e4m3 is from `runtime.layers.quantized`. A backend sees
rows and page tables, never requests.
"""
