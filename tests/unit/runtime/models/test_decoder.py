"""The decoder against one written out in float64, matrix by matrix, with every optional part switched on."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from runtime.models.decoder import Decoder
from runtime.weights.config import GenerationDefaults, ModelConfig
from runtime.weights.layout import parameter_shapes
from runtime.weights.rope import RopeConfig

LENGTH = 9
CONFIG = ModelConfig(
    architecture="Qwen3ForCausalLM", vocab_size=23, hidden_size=12, intermediate_size=20, num_layers=2, num_heads=4,
    num_kv_heads=2, head_dim=6, max_position=32, rms_norm_eps=1e-5, rope=RopeConfig(100.0), tie_word_embeddings=False,
    qkv_bias=True, output_bias=True, mlp_bias=True, qk_norm=True, layer_windows=(None, None), dtype=None,
    bos_token_id=None, eos_token_ids=(), generation=GenerationDefaults(),
)  # fmt: skip


class TogetherRows:
    """All rows in one call."""

    def apply(self, stage: Callable[..., tuple[Tensor, ...]], *rows: Tensor) -> tuple[Tensor, ...]:
        return stage(*rows)


def random_parameters() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        name: torch.randn(parameter.shape, generator=generator) * 0.4
        for name, parameter in parameter_shapes(CONFIG).items()
    }


def attend_within_batch(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The whole batch is one sequence from position 0; no cache."""
    key, value = (tensor.repeat_interleave(CONFIG.num_heads // CONFIG.num_kv_heads, dim=1) for tensor in (key, value))
    scores = torch.einsum("qhd,khd->hqk", query, key) / math.sqrt(CONFIG.head_dim)
    mask = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
    return torch.einsum("hqk,khd->qhd", torch.softmax(scores.masked_fill(mask, -math.inf), -1), value)


def written_out(parameters: dict[str, Tensor], token_ids: Tensor) -> Tensor:
    p = {name: tensor.double() for name, tensor in parameters.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + CONFIG.rms_norm_eps) * p[name]

    def turn(x: Tensor) -> Tensor:
        half = CONFIG.head_dim // 2
        angles = torch.arange(LENGTH)[:, None, None] * 100.0 ** (-torch.arange(half).double() / half)
        turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angles), angles)
        return torch.cat((turned.real, turned.imag), -1)

    hidden = p["embedding.weight"][token_ids]
    for layer in range(CONFIG.num_layers):
        at = f"layers.{layer}."
        qkv = norm(hidden, at + "attention_norm.weight") @ p[at + "qkv.weight"].T + p[at + "qkv.bias"]
        query, key, value = (part.unflatten(1, (-1, 6)) for part in qkv.split((24, 12, 12), dim=1))
        query, key = turn(norm(query, at + "query_norm.weight")), turn(norm(key, at + "key_norm.weight"))
        attended = attend_within_batch(layer, query, key, value).flatten(1)
        hidden = hidden + attended @ p[at + "output.weight"].T + p[at + "output.bias"]
        gate_up = norm(hidden, at + "mlp_norm.weight") @ p[at + "gate_up.weight"].T + p[at + "gate_up.bias"]
        gate, up = gate_up.chunk(2, dim=1)
        hidden = hidden + (gate * torch.sigmoid(gate) * up) @ p[at + "down.weight"].T + p[at + "down.bias"]
    return norm(hidden, "norm.weight") @ p["head.weight"].T


def test_the_decoder_is_the_one_written_out() -> None:
    """Logits of all positions agree within 1e-4 with biases, per-head norms, grouped heads and an untied head."""
    parameters = random_parameters()
    model = Decoder(CONFIG, parameters, num_positions=32)
    token_ids = torch.randint(0, 23, (LENGTH,), generator=torch.Generator().manual_seed(1))
    hidden = model.hidden_states(token_ids, torch.arange(LENGTH), attend_within_batch, TogetherRows())
    (logits,) = model.logits(hidden)
    torch.testing.assert_close(logits.double(), written_out(parameters, token_ids), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", sorted(parameter_shapes(CONFIG)))
def test_every_part_counts(name: str) -> None:
    """Changing any weight changes the logits: none is silently left out."""
    parameters = random_parameters()
    token_ids = torch.arange(LENGTH)

    def logits() -> Tensor:
        model = Decoder(CONFIG, parameters, num_positions=32)
        hidden = model.hidden_states(token_ids, torch.arange(LENGTH), attend_within_batch, TogetherRows())
        return model.logits(hidden)[0]

    before = logits()
    parameters[name] = parameters[name] + 0.1
    assert not torch.equal(logits(), before)
