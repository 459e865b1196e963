"""Training of small models on site: the demo model today, draft heads for speculation later.

In reading order: `llama` (the Llama architecture in a form that autograd can follow), `documents` (token sequences with
the positions that are to be learnt, and steps of similar-length rows), `muon` (the optimizer), `schedule` (the learning
rate), `loop` (steps, checkpoints, resumption), `decode` (greedy decoding for evaluation), `checkpoint` (the Hugging Face
layout).

It may import torch, safetensors and the standard library; nothing of the serving engine, so that what trains a model and
what serves it stay independent judges of each other. Nothing here reads the environment or the network. What always
holds: the same seed, data, versions and hardware give the same weights; no file is ever decoded with pickle.
"""
