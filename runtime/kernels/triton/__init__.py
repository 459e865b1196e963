"""Triton sources: device code only, one module per noun, launched by the wrappers beside this package.

Reading order: `linear`, `norm`, `rotary`, `activation`, `embedding`, `sampling`, `decode` and `prefill` (attention).

What always holds: sizes and strides are `tl.constexpr`, every other integer is `do_not_specialize`, so the machine code
depends on shapes and dtypes and on no value. Under programmatic dependent launch (PDL) a kernel first lets the next one
start, then loads what no kernel writes (weights), and calls `gdc_wait` before it touches anything that a kernel before it
reads or writes. Since every kernel of a chain waits, the wait for the one before is a wait for all before it.

Imports: triton, and nothing else.
"""
