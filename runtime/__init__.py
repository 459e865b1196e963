"""Tokens and tensors: the inference engine. It knows no users, no HTTP and no audit.

Reading order: `request` (what is asked and what comes back), `batch` (what one forward pass computes), `kv` (pages and the
radix prefix cache), `scheduling` (who runs next; steps of good `step_sizes`), `engine` (the loop: schedule, launch,
collect), `weights`, `parallel` (ranks that share a model), `layers`, `models`, `attention`, `sampling`, `structured`
(grammars), `kernels` (ours, and how they are frozen), `draft_shape` and `speculative` (drafts that a pass verifies),
`deterministic` (what excludes what), `runner` (all of it as one forward pass); `training`, `evaluation`, `bench` beside the engine.

Imports: the standard library, numpy, torch, msgspec, safetensors; never `security`, `audit`, `compliance`, `appliance`.
This package itself and `request`, `identifiers`, `errors`, `settings` import no torch, so that the gateway may use them.
"""
