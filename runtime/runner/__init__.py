"""From a model folder to a `ModelRunner`: weights, cache, model, attention and sampling put together.

Reading order: `building` (what the engine's process calls), `torch_runner` (one step from `StepBatch` to `StepResult`),
`verification` (the last look at a step), `rows` (how rows are grouped, and why results on a CPU have the same bits in
every batch), `scoring` (logits of the rows that need them, and no others), `whole_texts` (all places of a text at once,
without a cache), `cache_choice` and `calibration` (what pages hold).

On a GPU: `device_building`, with `memory` and `sizing` (who gets how much), `attention_choice`, `kernel_choice` and
`kernel_needs` (with which kernels); `device_runner` (the life of a step), `passes`, `graphs` and `pieces` (graphs, those
between attentions, single kernels), `step_buffers` and `step_inputs` (the memory that all of them work on), `upload` and `readback`
(the way there and back), `stopwatch` (what parts take). Drafts there: `speculation_building`, `speculation_parts`,
`speculation_needs`, `uniform` (steps as graphs take them), `chain_inputs`, `chains`, `fused_chains`, `trees`,
`head_drafting` (the head's part of a step), `device_drafting` (the target's, and both as graphs).

Imports: the other packages of tensors, `runtime.batch`, `runtime.errors`. A runner sees no requests.
"""
