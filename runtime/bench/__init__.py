"""Measurements of the runtime by itself, for `casemate bench`.

`host_time` is what a step costs the host, `speculation` what drafts are worth. On a GPU: `device_time` (how kernels are
timed), `compiling` (before that), `linear_layers` (few rows, all candidates), `quantized_layers` (the same in e4m3),
`kernels` (the rest), `decode_chain` (a whole step of them), `block_search` (the best blocks for it), `parts` (all of it
by name). Nothing here is imported by the engine. What always holds: a measurement changes nothing that it measures, and
prints nothing: whoever asked for it words the result.
"""
