"""Models: one family of decoders, told apart by `ModelConfig` alone (Llama, Mistral, Qwen2, Qwen3).

Reading order: `parts` (layers, put together from parameters), `decoder` (on any device), `operations` (what a decoder
on a GPU is made of, in plain torch), `fused` (the same model, cut into them).

Imports: torch, `runtime.layers`, `runtime.weights.config`. A model knows no pages, sequences or devices: attention and
the way rows are grouped are given to it as callables for each step.
"""
