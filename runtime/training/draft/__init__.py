"""Training of EAGLE-3 draft heads: a small layer that guesses what its target is going to say.

In reading order: `plan` (the terms), `head` (the layer in training form), `unrolling` (several steps of drafting at once, as
serving computes them), `target` (the model that is to be guessed, and which of its hidden states are read), `vocabulary` (what
can be drafted), `trainee` (loss and hits), `answers` (the target's own words, from our engine), `state` (what a resumed run
finds), `course` (a whole training), `acceptance` and `measuring` (what a draft is worth, beside a two-gram), `checkpoint` (the
published format), `memory` (of a device, given back).

It may import the models, weights and engine of `runtime`: the target is what is served. What always holds: hidden states and
logits of the target live for one block of texts and are never stored; the same prompts, seed, versions and hardware give the
same head, interrupted or not.
"""
