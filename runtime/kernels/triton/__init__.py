"""Triton sources: device code only, one module per noun, launched by the wrappers beside this package.

Reading order: `linear`, `invariant` (products of any number of rows, none of which depends on the others), `norm`, `rotary`,
`activation`, `embedding`, `sampling`, `quantize` and `quantized` (FP8), `decode`, `decode_e4m3`, `decode_shared`, `prefill`,
`invariant_attention`, `verify` and `contexts` (attention), `chains` (speculation), `ranks` (sums over GPUs) and `digest`
(BLAKE3 of a checkpoint).

What always holds: sizes and strides are `tl.constexpr`, every other integer is `do_not_specialize`, so the machine code
depends on shapes and dtypes and on no value.

Under programmatic dependent launch (PDL) a kernel first lets the next one start, then reads what no kernel of the chain
writes (weights, and the step's tables: lengths, pages, positions, slots), and calls `gdc_wait` before it touches anything
else. Since every kernel of a chain waits, its wait for the one before is a wait for all before it. The first kernel of a
chain must be launched without PDL, so that the copies which filled the tables have ended before any of them starts.

Imports: triton, and nothing else.
"""
