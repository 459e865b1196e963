"""From a model folder to a `ModelRunner`: weights, cache, model, attention and sampling put together.

Reading order: `building` (what the engine's process calls), `torch_runner` (one step from `StepBatch` to `StepResult`),
`rows` (how rows are grouped, and why results on a CPU have the same bits in every batch), `scoring` (logits of the rows
that need them, and no others), `whole_texts` (all places of a text at once, without a cache). On a GPU:
`device_building`, `device_runner` (the life of a step), `passes` (graphs, pieces of graphs, single kernels),
`step_buffers` and `step_inputs` (the memory that all of them work on).

Imports: the other packages of tensors, `runtime.batch`, `runtime.errors`. A runner sees no requests.
"""
