"""From logits to tokens: a pure function of logits, parameters, seed and position.

Reading order: `noise` (the hash), `penalties` (what changes single logits), `masks` (which tokens stay), `sampler` (the
order of all of it, and the choice), `logprobs` (what the model thought before any of it).

Imports: torch, numpy, `runtime.batch`. No generator with a state anywhere: two engines, or one engine twice, in whatever
batch, choose the same token from the same logits.
"""
