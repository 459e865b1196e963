"""A Llama of a few thousand random weights, as a target for draft heads."""

from pathlib import Path

import torch

from runtime.training.checkpoint import save_llama
from runtime.training.llama import Llama, LlamaShape

TINY = LlamaShape(
    vocab_size=48,
    hidden_size=32,
    intermediate_size=40,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=96,
)
TINY_LAYERS = (1, 2, 3)


def write_tiny_target(folder: Path, seed: int = 0, shape: LlamaShape = TINY) -> Llama:
    """Write its folder and return the model that was written, rounded as it was stored."""
    model = Llama(shape, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(std=0.3, generator=generator)
            parameter.copy_(parameter.bfloat16())
    save_llama(model, folder, bos=1, ends=[2], pad=0)
    return model
