"""Training on site: the demo model, and draft heads for speculation.

In reading order: `llama` (the Llama architecture in a form that autograd can follow), `documents` (token sequences with
the positions that are to be learnt, and steps of similar-length rows), `gradients` (of one step), `muon` (the
optimizer), `schedule` (the learning rate), `loop` (steps, checkpoints, resumption), `decode` (greedy decoding for
evaluation), `checkpoint` (the Hugging Face layout), `storing` (files, whole or not at all), `draft` (EAGLE-3 heads, a
package of its own).

It may import torch, safetensors and the standard library; nothing of the serving engine, so that what trains a model and
what serves it stay independent judges of each other; `draft` is the exception, as it learns from what is served. Nothing
here reads the environment or the network. What always holds: the same seed, data, versions and hardware give the same
weights; no file is ever decoded with pickle.
"""
