"""The building blocks of a decoder, as plain objects around their weights: no registry, no modes, no training.

Reading order: `linear`, `norm`, `rotary`, `activation`, `quantized` (`linear` in FP8). Each treats the rows of its
input (one row a token) one by one: a row's result never depends on what the other rows hold.

Imports: torch and `runtime.weights.rope`.
"""
