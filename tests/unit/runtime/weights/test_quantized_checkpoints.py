"""FP8 checkpoints: every format loads without loss, and what contradicts itself is refused by name."""

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from runtime.errors import CheckpointRejected
from runtime.layers.quantized import QuantizedLinear, dequantize_rows, quantize_rows
from runtime.models.parts import build_linear
from runtime.weights.config import ModelConfig, load_model_config
from runtime.weights.loading import load_weights
from runtime.weights.quantization import AT_LOAD, Quantization
from tests.support.quantized_checkpoints import (
    CONFIG,
    FORMATS,
    compressed,
    dequantize_stored,
    plain_tensors,
    quantized_tensors,
    write_checkpoint,
)

CPU = torch.device("cpu")
CHANNEL = FORMATS["compressed-tensors, channel, dynamic"]
QUERY = "model.layers.0.self_attn.q_proj"


def load(folder: Path) -> tuple[ModelConfig, Mapping[str, Tensor]]:
    config = load_model_config(folder)
    return config, load_weights(folder, config, device=CPU, dtype=torch.float32).parameters


@pytest.mark.parametrize("name", FORMATS)
def test_fused_matrices_keep_every_shards_scales(name: str, tmp_path: Path) -> None:
    """Queries, keys and values, whose scales differ by 8, are to the bit what each of them was stored as."""
    form = FORMATS[name]
    stored = quantized_tensors(form)
    config, parameters = load(write_checkpoint(tmp_path, stored, form.declared))
    for layer in range(2):
        prefix = f"model.layers.{layer}"
        for ours, modules in (
            ("qkv", [f"self_attn.{part}_proj" for part in "qkv"]),
            ("output", ["self_attn.o_proj"]),
            ("gate_up", ["mlp.gate_proj", "mlp.up_proj"]),
            ("down", ["mlp.down_proj"]),
        ):
            linear = build_linear(config, parameters, f"layers.{layer}.{ours}")
            assert isinstance(linear, QuantizedLinear)
            expected = torch.cat([dequantize_stored(stored, f"{prefix}.{module}") for module in modules])
            assert torch.equal(linear.dequantized(), expected)
    assert parameters["head.weight"].dtype == torch.float32
    assert torch.equal(parameters["head.weight"], stored["lm_head.weight"].float())


@pytest.mark.parametrize("name", FORMATS)
def test_inputs_are_scaled_as_the_format_says(name: str, tmp_path: Path) -> None:
    """The largest scale of what is fused where it is static, by group beside blocks, fbgemm's bound."""
    form = FORMATS[name]
    config, parameters = load(write_checkpoint(tmp_path, quantized_tensors(form), form.declared))
    linear = build_linear(config, parameters, "layers.0.gate_up")
    assert isinstance(linear, QuantizedLinear)
    assert (linear.inputs.static is not None) == ("static" in name)
    if linear.inputs.static is not None:
        assert linear.inputs.static.item() == pytest.approx(0.05 * (1 + 256 / 128))
    assert linear.inputs.by_group == ("block" in name)
    assert linear.inputs.bound == (1200.0 if name == "fbgemm_fp8" else None)


@pytest.mark.parametrize("method", ["compressed-tensors", "fp8"])
def test_dynamic_inputs_have_a_scale_for_each_row_though_a_checkpoint_says_one_for_all(
    method: str, tmp_path: Path
) -> None:
    """So what a row gives does not depend on a larger one beside it."""
    declared: dict[str, Any] = {"quant_method": "fp8", "activation_scheme": "dynamic", "ignored_layers": ["lm_head"]}
    if method == "compressed-tensors":
        declared = copy.deepcopy(compressed("tensor", dynamic=True))
        declared["config_groups"]["group_0"]["input_activations"]["strategy"] = "tensor"
    stored = quantized_tensors(FORMATS["compressed-tensors, tensor, dynamic"])
    config, parameters = load(write_checkpoint(tmp_path, stored, declared))
    linear = build_linear(config, parameters, "layers.0.qkv")
    assert isinstance(linear, QuantizedLinear)
    rows = torch.randn(2, 128, generator=torch.Generator().manual_seed(1)) * torch.tensor([[1.0], [1e6]])
    together, alone = (dequantize_rows(quantize_rows(given, linear.inputs))[0] for given in (rows, rows[:1]))
    assert torch.equal(together, alone)
    assert (together - rows[0]).norm() < 0.05 * rows[0].norm()


def test_a_plain_checkpoint_is_rounded_as_it_is_read(tmp_path: Path) -> None:
    """By channel: half a step of e4m3 from what it was; embedding and head stay."""
    tensors = plain_tensors()
    folder = write_checkpoint(tmp_path, tensors, None)
    config = replace(load_model_config(folder), quantization=AT_LOAD)
    parameters = load_weights(folder, config, device=CPU, dtype=torch.bfloat16).parameters
    linear = build_linear(config, parameters, "layers.1.qkv")
    assert isinstance(linear, QuantizedLinear)
    plain = torch.cat([tensors[f"model.layers.1.self_attn.{part}_proj.weight"].float() for part in "qkv"])
    assert (
        (linear.dequantized() - plain).abs() <= plain.abs() / 16 + plain.abs().amax(1, keepdim=True) / 448 / 512
    ).all()
    assert torch.equal(parameters["head.weight"], tensors["lm_head.weight"])


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize(
    "name", ["compressed-tensors, tensor, static", "compressed-tensors, channel, dynamic", "fp8, block"]
)
def test_scales_must_be_positive(name: str, value: float, tmp_path: Path) -> None:
    """One bad number is enough, and its tensor is named."""
    form = FORMATS[name]
    stored = quantized_tensors(form)
    end = "weight_scale_inv" if name == "fp8, block" else "weight_scale"
    stored[f"{QUERY}.{end}"].view(-1)[0] = value
    with pytest.raises(CheckpointRejected, match=rf"{QUERY}\.{end}.*finite and positive"):
        load(write_checkpoint(tmp_path, stored, form.declared))


def test_scales_of_inputs_must_be_positive(tmp_path: Path) -> None:
    """Static ones are checked like the weights'."""
    form = FORMATS["fp8, tensor, static"]
    stored = quantized_tensors(form) | {f"{QUERY}.input_scale": torch.tensor(0.0)}
    with pytest.raises(CheckpointRejected, match=r"input_scale.*finite and positive"):
        load(write_checkpoint(tmp_path, stored, form.declared))


def test_a_missing_scale_is_named(tmp_path: Path) -> None:
    """Without it the weights mean nothing."""
    stored = quantized_tensors(CHANNEL)
    del stored[f"{QUERY}.weight_scale"]
    with pytest.raises(CheckpointRejected, match=rf"lacks 1 .*{QUERY}\.weight_scale"):
        load(write_checkpoint(tmp_path, stored, CHANNEL.declared))


def test_a_checkpoint_that_says_fp8_must_hold_it(tmp_path: Path) -> None:
    """One matrix in bf16 is refused, with what was expected."""
    stored = quantized_tensors(CHANNEL)
    stored[f"{QUERY}.weight"] = stored[f"{QUERY}.weight"].bfloat16()
    with pytest.raises(CheckpointRejected, match=rf"{QUERY}\.weight.*expected dtype F8_E4M3, found BF16"):
        load(write_checkpoint(tmp_path, stored, CHANNEL.declared))


def test_a_checkpoint_that_does_not_say_fp8_must_not_hold_it(tmp_path: Path) -> None:
    """Scales that nobody declared are not guessed at."""
    with pytest.raises(CheckpointRejected, match="unexpected"):
        load(write_checkpoint(tmp_path, quantized_tensors(CHANNEL), None))


def test_ignored_layers_stay_as_they_are(tmp_path: Path) -> None:
    """A layer's feed-forward by name, by its first part, or by a pattern."""
    plain = plain_tensors()
    for entry in ("model.layers.1.mlp", r"re:model\.layers\.1\.mlp\..*"):
        stored = quantized_tensors(CHANNEL)
        for part in ("gate", "up", "down"):
            name = f"model.layers.1.mlp.{part}_proj.weight"
            del stored[f"{name}_scale"]
            stored[name] = plain[name]
        folder = tmp_path / str(len(entry))
        folder.mkdir()
        declared = CHANNEL.declared | {"ignore": ["lm_head", entry]}
        _, parameters = load(write_checkpoint(folder, stored, declared))
        assert torch.equal(parameters["layers.1.down.weight"], plain["model.layers.1.mlp.down_proj.weight"].float())
        assert parameters["layers.0.down.weight"].dtype == torch.float8_e4m3fn


def test_half_of_a_fused_matrix_cannot_be_ignored(tmp_path: Path) -> None:
    """Gate and up are one matrix here."""
    declared = CHANNEL.declared | {"ignore": ["lm_head", "model.layers.1.mlp.up_proj"]}
    with pytest.raises(CheckpointRejected, match="shares a matrix"):
        load(write_checkpoint(tmp_path, quantized_tensors(CHANNEL), declared))


def test_a_quantized_head_is_loaded_as_one(tmp_path: Path) -> None:
    """Where compressed-tensors does not ignore it."""
    stored = quantized_tensors(CHANNEL)
    head = stored.pop("lm_head.weight").float()
    stored |= {f"lm_head.{end}": part for end, part in CHANNEL.split(head).items()}
    config, parameters = load(write_checkpoint(tmp_path, stored, CHANNEL.declared | {"ignore": []}))
    assert isinstance(build_linear(config, parameters, "head"), QuantizedLinear)


@pytest.mark.parametrize(
    ("declared", "complaint"),
    [
        ({"quant_method": "gptq"}, "quant_method"),
        ({}, "quant_method"),
        ({"quant_method": "fp8", "weight_block_size": [64, 128]}, "weight_block_size"),
        ({"quant_method": "fp8", "fmt": "e5m2"}, "fmt"),
        ({"quant_method": "fp8", "scale_fmt": "ue8m0"}, "scale_fmt"),
        ({"quant_method": "fp8", "activation_scheme": "none"}, "activation_scheme"),
        ({"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": [128, 128]}, "activation_scheme"),
        ({"quant_method": "fbgemm_fp8", "activation_scale_ub": 0.0}, "activation_scale_ub"),
        ({"quant_method": "fbgemm_fp8", "modules_to_not_convert": ["re:("]}, "no pattern"),
        (compressed("group", dynamic=True), "strategy"),
        (compressed("tensor", dynamic=True, format="pack-quantized"), "format"),
        (compressed("tensor", dynamic=True, kv_cache_scheme={"num_bits": 8}), "kv_cache_scheme"),
        (compressed("tensor", dynamic=True, config_groups={}), "config_groups"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(declared: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    """Nothing is guessed, nothing corrected."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"quantization_config": declared}))
    with pytest.raises(CheckpointRejected, match=complaint):
        load_model_config(tmp_path)


@pytest.mark.parametrize(
    ("entry", "module", "matches"),
    [
        ("lm_head", "lm_head", True),
        ("model.layers.1", "model.layers.1.mlp.up_proj", True),
        ("model.layers.1", "model.layers.10.mlp.up_proj", False),
        ("up_proj", "model.layers.1.mlp.up_proj", True),
        ("proj", "model.layers.1.mlp.up_proj", False),
        ("re:.*up_proj", "model.layers.1.mlp.up_proj", True),
        ("re:up_proj", "model.layers.1.mlp.up_proj", False),
    ],
)
def test_ignored_names_match_whole_parts(entry: str, module: str, matches: bool) -> None:
    """Layer 1 is not layer 10."""
    assert Quantization("compressed-tensors", "channel", ignored=(entry,)).covers(module) != matches
