"""Heads as they are published: what loads, what is refused and by which name, and what a head computes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor

from runtime.errors import CheckpointRejected
from runtime.speculative.config import load_head_config
from runtime.speculative.head import DraftHead
from runtime.speculative.source import HeadSource
from runtime.weights.config import ModelConfig, load_model_config
from runtime.weights.file_check import FileCheck
from tests.support.draft_heads import (
    CAPTURED,
    DRAFT_VOCAB_SIZE,
    HEAD_DIM,
    HEADS,
    HIDDEN,
    KV_HEADS,
    VOCAB_SIZE,
    Tensors,
    head_config,
    head_tensors,
    write_head,
    write_speculators_head,
    write_target,
)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    return load_model_config(write_target(tmp_path_factory.mktemp("target")))


def load(folder: Path, target: ModelConfig) -> DraftHead:
    embedding = torch.randn(target.vocab_size, target.hidden_size, generator=torch.Generator().manual_seed(1))
    return HeadSource(folder).load(target, embedding, num_positions=64).head


def test_a_published_head_loads(target: ModelConfig, tmp_path: Path) -> None:
    """Drafts stand for the target's ids as d2t says, and the layers are those that the folder names."""
    tensors = head_tensors()
    head = load(write_head(tmp_path, tensors), target)
    assert head.target_ids.tolist() == (tensors["d2t"] + np.arange(DRAFT_VOCAB_SIZE)).tolist()
    assert head.config.captured_layers == CAPTURED


@pytest.mark.parametrize("kind", ["model prefix", "vLLM's layer", "own embedding", "no t2d", "bfloat16"])
def test_spellings_of_other_publishers_load(kind: str, target: ModelConfig, tmp_path: Path) -> None:
    """They are the same head: its logits are equal, but for the rounding of its numbers."""
    tensors = head_tensors()
    expected = load(write_head(tmp_path / "plain", tensors), target)
    if kind == "model prefix":
        tensors = {name if name in ("d2t", "t2d") else f"model.{name}": tensor for name, tensor in tensors.items()}
    elif kind == "vLLM's layer":
        tensors = {name.replace("midlayer.", "layers.0."): tensor for name, tensor in tensors.items()}
    elif kind == "own embedding":
        tensors["embed_tokens.weight"] = np.zeros((VOCAB_SIZE, HIDDEN), np.float32)
    elif kind == "no t2d":
        del tensors["t2d"]
    else:
        tensors = {name: t.astype(np.float16) if t.dtype == np.float32 else t for name, t in tensors.items()}
    given = load(write_head(tmp_path / "other", tensors), target)
    hidden = torch.randn(5, HIDDEN, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(given.logits(hidden), expected.logits(hidden), atol=1e-2, rtol=1e-2)
    assert torch.equal(given.embedding, expected.embedding)
    assert torch.equal(given.target_ids, expected.target_ids)


@pytest.mark.parametrize("architecture", ["Eagle3Speculator", "Eagle3DraftModel"])
@pytest.mark.parametrize("norm_before_residual", [False, True])
def test_heads_of_the_library_speculators_load(
    architecture: str, target: ModelConfig, tmp_path: Path, *, norm_before_residual: bool
) -> None:
    """The layer's sizes are a level below, and hidden states are counted by layers passed: it is the same head, to the bit."""
    changes = {"architectures": [architecture], "norm_before_residual": norm_before_residual}
    given = load(write_speculators_head(tmp_path / "theirs", **changes), target)
    expected = load(write_head(tmp_path / "plain", norm_before_residual=norm_before_residual), target)
    assert replace(given.config, files=()) == replace(expected.config, files=(), may_differ_in_embedding=True)
    token_ids, hidden = torch.arange(5), torch.randn(5, HIDDEN, generator=torch.Generator().manual_seed(2))
    one, other = (head.forward(token_ids, hidden, token_ids, written_out_attention) for head in (given, expected))
    assert torch.equal(one, other)
    assert torch.equal(given.target_ids, expected.target_ids)


@pytest.mark.parametrize("names", ["speculators", "vLLM's", "SGLang's"])
def test_an_embedding_that_was_trained_is_used(names: str, target: ModelConfig, tmp_path: Path) -> None:
    """Where vLLM would: one that is the target's is its memory, and SGLang takes the target's whatever lies there."""
    own = np.full((VOCAB_SIZE, HIDDEN), 0.5, np.float32)
    architectures = {"architectures": ["Eagle3LlamaForCausalLM"]} if names == "vLLM's" else {}
    write = write_speculators_head if names == "speculators" else write_head
    embedding = torch.randn(target.vocab_size, target.hidden_size, generator=torch.Generator().manual_seed(1))
    trained = load(write(tmp_path / "own", head_tensors() | {"embed_tokens.weight": own}, **architectures), target)
    same = head_tensors() | {"embed_tokens.weight": embedding.numpy()}
    source = HeadSource(write(tmp_path / "same", same, **architectures))
    shared = source.load(target, embedding, num_positions=64).head
    assert torch.equal(trained.embedding, embedding if names == "SGLang's" else torch.from_numpy(own))
    assert shared.embedding.data_ptr() == embedding.data_ptr()
    assert trained.num_bytes - shared.num_bytes == (0 if names == "SGLang's" else own.nbytes)


def test_a_head_without_a_vocabulary_of_its_own_drafts_the_targets(target: ModelConfig, tmp_path: Path) -> None:
    """No draft_vocab_size, no d2t: draft ids are token ids."""
    tensors = head_tensors(draft_vocab_size=VOCAB_SIZE)
    del tensors["d2t"], tensors["t2d"]
    head = load(write_head(tmp_path, tensors, draft_vocab_size=None), target)
    assert head.target_ids.tolist() == list(range(VOCAB_SIZE))


@pytest.mark.parametrize(
    ("config", "layers"),
    [
        ({"eagle_config": {"eagle_aux_hidden_state_layer_ids": [0, 2, 4]}}, (1, 3, 5)),
        ({"eagle_config": None, "eagle_aux_hidden_state_layer_ids": [1, 3, 5]}, (1, 3, 5)),
        ({"eagle_config": {"eagle_aux_hidden_state_layer_ids": []}, "num_layers": 32}, (2, 16, 29)),
        ({"eagle_config": None, "num_layers": 8}, (2, 4, 5)),
        ({"eagle_config": {"eagle_aux_hidden_state_layer_ids": [0, 2, 5]}}, (1, 3, 6)),
    ],
)
def test_layers_are_counted_as_their_publisher_counts(
    config: dict[str, Any], layers: tuple[int, ...], tmp_path: Path, target: ModelConfig
) -> None:
    """SGLang's key names layers by index, vLLM's by how many were passed; with neither, after 2, n // 2 and n - 3."""
    fitting = replace(target, num_layers=config.pop("num_layers", target.num_layers))
    (tmp_path / "config.json").write_text(json.dumps(head_config(**config)))
    assert load_head_config(tmp_path, fitting).captured_layers == layers


BAD_CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"architectures": ["LlamaForCausalLM"]}, "architectures: expected one of LlamaForCausalLMEagle3"),
    ({"auto_map": {"AutoModel": "x.Y"}}, "auto_map names code to run"),
    ({"hidden_size": 64}, "hidden_size: expected the target's 48, found 64"),
    ({"target_hidden_size": 32}, "target_hidden_size: expected the target's 48, found 32"),
    ({"vocab_size": 132}, "vocab_size: expected the target's 131, found 132"),
    ({"draft_vocab_size": 132}, "draft_vocab_size: expected an integer in"),
    ({"num_key_value_heads": 3}, "num_key_value_heads: expected a divisor"),
    ({"num_hidden_layers": 2}, "num_hidden_layers: expected an integer in"),
    ({"head_dim": 13}, "head_dim: expected an even number"),
    ({"rms_norm_eps": 2.0}, "rms_norm_eps: expected a number"),
    ({"rope_scaling": {"rope_type": "longrope"}}, "rope type 'longrope'"),
    ({"attention_bias": True}, "attention_bias: expected false"),
    ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config: expected nothing"),
    ({"eagle_config": {"use_aux_hidden_state": False}}, "use_aux_hidden_state: expected true"),
    ({"eagle_config": {"eagle_aux_hidden_state_layer_ids": [0, 2]}}, "expected 3 different layers of the target's 6"),
    ({"eagle_config": {"eagle_aux_hidden_state_layer_ids": [0, 2, 6]}}, "expected token ids|expected layers"),
    ({"eagle_config": {"eagle_aux_hidden_state_layer_ids": [4, 2, 0]}}, "ascending"),
    ({"eagle_config": None}, r"the usual ones are \[2, 3, 3\]"),
]


BAD_SPECULATORS: list[tuple[dict[str, Any], str]] = [
    ({"speculators_model_type": "peagle"}, "speculators_model_type: expected 'eagle3', found 'peagle'"),
    ({"architectures": ["EagleSpeculator"]}, "architectures: expected one of Eagle3Speculator"),
    ({"auto_map": {"": "config.Eagle3SpeculatorConfig"}}, "auto_map names code to run"),
    ({"transformer_layer_config": []}, "transformer_layer_config: expected an object"),
    ({"layer_model_type": "qwen3"}, "transformer_layer_config: model_type: expected 'llama'"),
    ({"layer_num_hidden_layers": 2}, "transformer_layer_config: num_hidden_layers: expected an integer in"),
    ({"layer_hidden_size": 64}, "transformer_layer_config: hidden_size: expected the target's 48, found 64"),
    ({"target_hidden_size": 32}, "config.json: target_hidden_size: expected the target's 48, found 32"),
    ({"norm_before_residual": None}, "norm_before_residual: expected true or false, found nothing"),
    ({"norm_before_fc": True}, "norm_before_fc: expected false"),
    ({"eagle_aux_hidden_state_layer_ids": [1, 3]}, "expected 3 different layers of the target's 6"),
]


@pytest.mark.parametrize(("changes", "named"), BAD_SPECULATORS)
def test_what_of_speculators_does_not_fit_is_refused(
    changes: dict[str, Any], named: str, tmp_path: Path, target: ModelConfig
) -> None:
    """Other algorithms, other layers, and norms that heads here do not have."""
    with pytest.raises(CheckpointRejected, match=named):
        load(write_speculators_head(tmp_path, **changes), target)


@pytest.mark.parametrize(("changes", "named"), BAD_CONFIGS)
def test_a_configuration_that_does_not_fit_is_refused(
    changes: dict[str, Any], named: str, tmp_path: Path, target: ModelConfig
) -> None:
    """At start, by the option's and the key's name, with what was expected."""
    with pytest.raises(CheckpointRejected, match=named) as refused:
        load(write_head(tmp_path, **changes), target)
    assert str(refused.value).startswith("speculative_draft_model_path: ")


def test_a_vocabulary_smaller_than_top_k_is_refused(tmp_path: Path, target: ModelConfig) -> None:
    """A tree could not have as many children as the options ask for."""
    source = HeadSource(write_head(tmp_path), topk=DRAFT_VOCAB_SIZE + 1)
    embedding = torch.zeros(target.vocab_size, target.hidden_size)
    with pytest.raises(
        CheckpointRejected, match=r"draft_vocab_size: expected at least speculative_eagle_topk \(41\), found 40"
    ):
        source.load(target, embedding, num_positions=64)


def without(name: str) -> Tensors:
    tensors = head_tensors()
    del tensors[name]
    return tensors


def with_offset(place: int, value: int) -> Tensors:
    tensors = head_tensors()
    tensors["d2t"][place] = value
    return tensors


BAD_TENSORS: list[tuple[Tensors, str]] = [
    (without("fc.weight"), "lacks tensor 'fc.weight'"),
    (without("d2t"), "lacks tensor 'd2t'"),
    (head_tensors() | {"surplus.weight": np.zeros(3, np.float32)}, "tensor 'surplus.weight': unexpected"),
    (head_tensors() | {"norm.weight": np.zeros(HIDDEN + 1, np.float32)}, r"expected shape \[48\], found \[49\]"),
    (head_tensors() | {"norm.weight": np.zeros(HIDDEN, np.int64)}, "expected dtype BF16 or F16 or F32, found I64"),
    (head_tensors() | {"d2t": np.zeros(DRAFT_VOCAB_SIZE, np.float32)}, "expected dtype I64 or I32, found F32"),
    (with_offset(-1, VOCAB_SIZE), r"'d2t': expected ids in \[0, 131\)"),
    (with_offset(0, -1), r"'d2t': expected ids in \[0, 131\), found -1 to"),
    (head_tensors() | {"d2t": -np.arange(DRAFT_VOCAB_SIZE)}, "two drafts stand for the same token"),
    (head_tensors() | {"t2d": np.zeros(VOCAB_SIZE, np.bool_)}, "'t2d': does not say the same tokens"),
    (head_tensors() | {"model.norm.weight": np.zeros(HIDDEN, np.float32)}, "is in the head twice"),
]


@pytest.mark.parametrize(("tensors", "named"), BAD_TENSORS, ids=[named for _, named in BAD_TENSORS])
def test_tensors_that_do_not_fit_are_refused(tensors: Tensors, named: str, tmp_path: Path, target: ModelConfig) -> None:
    """Missing, surplus, of another shape or type, and draft vocabularies that are none."""
    with pytest.raises(CheckpointRejected, match=named):
        load(write_head(tmp_path, tensors), target)


def test_digests_are_shown_before_the_head_is_used(target: ModelConfig, tmp_path: Path) -> None:
    """Whoever knows what the files should be may refuse them."""
    seen: dict[str, str] = {}
    embedding = torch.zeros(VOCAB_SIZE, HIDDEN)
    HeadSource(write_head(tmp_path), verify=FileCheck(seen.update)).load(target, embedding, num_positions=8)
    assert sorted(seen) == ["config.json", "model.safetensors"]


def test_pickles_in_the_folder_are_refused(target: ModelConfig, tmp_path: Path) -> None:
    """As in any model's folder."""
    (write_head(tmp_path) / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(CheckpointRejected, match="pickle"):
        load(tmp_path, target)


@pytest.mark.parametrize("norm_before_residual", [False, True])
def test_a_head_computes_what_the_paper_says(
    target: ModelConfig, tmp_path: Path, *, norm_before_residual: bool
) -> None:
    """Against a restatement that shares no code with it: no fused matrices, rotation by complex numbers, attention written out."""
    tensors = head_tensors()
    head = load(write_head(tmp_path, tensors, norm_before_residual=norm_before_residual), target)
    generator = torch.Generator().manual_seed(4)
    captured = torch.randn(9, 3 * HIDDEN, generator=generator)
    token_ids = torch.randint(VOCAB_SIZE, (9,), generator=generator)
    hidden = head.combine(captured)
    given = head.forward(token_ids, hidden, torch.arange(9), written_out_attention)
    weights = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
    expected = restated(weights, head.embedding[token_ids], captured, norm_before_residual=norm_before_residual)
    torch.testing.assert_close(given, expected, atol=1e-4, rtol=1e-4)
    logits = rms(expected, weights["norm.weight"]) @ weights["lm_head.weight"].T
    assert head.best(given).tolist() == (weights["d2t"][logits.argmax(-1)] + logits.argmax(-1)).tolist()


def rms(rows: Tensor, weight: Tensor) -> Tensor:
    return rows / (rows.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * weight


def turned(rows: Tensor) -> Tensor:
    """[length, heads, head_dim] rotated by position."""
    half = HEAD_DIM // 2
    angles = torch.arange(len(rows))[:, None] * 10_000.0 ** (-torch.arange(half) / half)
    turns = torch.polar(torch.ones_like(angles), angles)[:, None, :]
    mixed = torch.complex(rows[..., :half], rows[..., half:]) * turns
    return torch.cat((mixed.real, mixed.imag), dim=-1)


def written_out_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    out = torch.zeros_like(query)
    for place in range(len(query)):
        for number in range(HEADS):
            other = number // (HEADS // KV_HEADS)
            scores = key[: place + 1, other] @ query[place, number] / HEAD_DIM**0.5
            out[place, number] = scores.softmax(0) @ value[: place + 1, other]
    return out


def restated(weights: dict[str, Tensor], embedded: Tensor, captured: Tensor, *, norm_before_residual: bool) -> Tensor:
    def of(name: str) -> Tensor:
        return weights[f"midlayer.{name}.weight"]

    hidden = captured @ weights["fc.weight"].T
    normed = rms(hidden, of("hidden_norm"))
    joined = torch.cat((rms(embedded, of("input_layernorm")), normed), dim=-1)
    query, key, value = (
        (joined @ of(f"self_attn.{name}_proj").T).view(len(joined), -1, HEAD_DIM) for name in ("q", "k", "v")
    )
    attended = written_out_attention(turned(query), turned(key), value)
    hidden = (normed if norm_before_residual else hidden) + attended.flatten(1) @ of("self_attn.o_proj").T
    inner = rms(hidden, of("post_attention_layernorm"))
    gated = functional.silu(inner @ of("mlp.gate_proj").T) * (inner @ of("mlp.up_proj").T)
    return hidden + gated @ of("mlp.down_proj").T
