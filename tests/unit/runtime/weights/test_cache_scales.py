"""Scales of keys and values: from checkpoints by all their names, and from files; what is missing or bad is named."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from runtime.errors import CheckpointRejected
from runtime.weights.cache_scales_file import LayerScales, encode_cache_scales, load_cache_scales, parse_cache_scales
from runtime.weights.config import ModelConfig, load_model_config, parse_model_config
from runtime.weights.loading import LoadedWeights, load_weights
from tests.support.quantized_checkpoints import (
    CACHE_SCHEME,
    CONFIG,
    FORMATS,
    cache_scale_tensors,
    compressed,
    plain_tensors,
    quantized_tensors,
    write_checkpoint,
)

NAMES = {
    "compressed-tensors": ("k_scale", "v_scale"),
    "ModelOpt": ("k_proj.k_scale", "v_proj.v_scale"),
    "output scales": ("k_proj.output_scale", "v_proj.output_scale"),
}
CHANNEL = FORMATS["compressed-tensors, channel, dynamic"]
DECLARED = compressed("channel", dynamic=True, kv_cache_scheme=CACHE_SCHEME)
MODEL: ModelConfig = parse_model_config(CONFIG, {})
FIRST = "model.layers.0.self_attn"


def load(folder: Path) -> LoadedWeights:
    config = load_model_config(folder)
    return load_weights(folder, config, device=torch.device("cpu"), dtype=torch.float32)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("declared", [DECLARED, CHANNEL.declared], ids=["declared", "not declared"])
def test_scales_are_found_by_every_name(name: str, declared: dict[str, Any], tmp_path: Path) -> None:
    """Whether config.json says that they are there or not; the model itself is loaded as before."""
    tensors = quantized_tensors(CHANNEL) | cache_scale_tensors(*NAMES[name])
    loaded = load(write_checkpoint(tmp_path, tensors, declared))
    assert loaded.cache_scales is not None
    assert loaded.cache_scales.tolist() == [[0.5, 0.25], [1.5, 0.75]]
    plain = load(write_checkpoint(tmp_path, quantized_tensors(CHANNEL), CHANNEL.declared))
    assert plain.cache_scales is None
    assert loaded.parameters.keys() == plain.parameters.keys()


def test_one_scale_serves_both_where_a_checkpoint_has_one(tmp_path: Path) -> None:
    """AutoFP8's `kv_scale`, and how its config.json declares it."""
    form = FORMATS["fp8, tensor, static"]
    tensors = quantized_tensors(form) | {f"model.layers.{i}.self_attn.kv_scale": torch.tensor(0.5 + i) for i in (0, 1)}
    loaded = load(write_checkpoint(tmp_path, tensors, {**form.declared, "kv_cache_scheme": "static"}))
    assert loaded.cache_scales is not None
    assert loaded.cache_scales.tolist() == [[0.5, 0.5], [1.5, 1.5]]


def test_a_checkpoint_in_bf16_may_have_them(tmp_path: Path) -> None:
    """Nothing else needs to be quantized."""
    loaded = load(write_checkpoint(tmp_path, plain_tensors() | cache_scale_tensors("k_scale", "v_scale"), None))
    assert loaded.cache_scales is not None


def spoiled(**changes: Tensor | None) -> dict[str, Tensor]:
    tensors = quantized_tensors(CHANNEL) | cache_scale_tensors("k_scale", "v_scale")
    for name, value in changes.items():
        if value is None:
            del tensors[f"{FIRST}.{name}"]
        else:
            tensors[f"{FIRST}.{name}"] = value
    return tensors


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (quantized_tensors(CHANNEL), "lacks scales of the KV cache for the keys of layer 0 and 3 others: config.json"),
        (spoiled(v_scale=None), "lacks scales of the KV cache for the values of layer 0"),
        (spoiled(kv_scale=torch.tensor(1.0)), "two scales for the keys of layer 0"),
        (spoiled(k_scale=torch.tensor(0.0)), "self_attn.k_scale': expected scales that are finite and positive"),
        (spoiled(k_scale=torch.tensor(-1.0)), "self_attn.k_scale'"),
        (spoiled(v_scale=torch.tensor(torch.nan)), "self_attn.v_scale'"),
        (spoiled(v_scale=torch.tensor(torch.inf)), "self_attn.v_scale'"),
        (spoiled(v_scale=torch.ones(4)), "expected shape"),
        (spoiled(q_scale=torch.tensor(1.0)), "q_scale': unexpected"),
    ],
    ids=["none", "one missing", "two", "zero", "negative", "nan", "infinite", "per head", "of queries"],
)
def test_scales_that_do_not_hold_are_named(tensors: dict[str, Tensor], message: str, tmp_path: Path) -> None:
    """Missing, doubled, not positive, of another shape, or for something that we do not quantize."""
    with pytest.raises(CheckpointRejected, match=message):
        load(write_checkpoint(tmp_path, tensors, DECLARED))


@pytest.mark.parametrize(
    "change",
    [{"num_bits": 4}, {"type": "int"}, {"strategy": "channel"}, {"dynamic": True}, {"symmetric": False}],
    ids=str,
)
def test_other_schemes_are_refused(change: dict[str, Any]) -> None:
    """By the key that says so."""
    declared = compressed("channel", dynamic=True, kv_cache_scheme=CACHE_SCHEME | change)
    with pytest.raises(CheckpointRejected, match="kv_cache_scheme"):
        parse_model_config(CONFIG | {"quantization_config": declared}, {})


def document(**changes: Any) -> bytes:
    cache = {"dtype": "float8_e4m3fn", "k_scale": [0.5, 1.5], "v_scale": [0.25, 0.75]} | changes
    return json.dumps({"model_type": "llama", "kv_cache": {k: v for k, v in cache.items() if v is not None}}).encode()


def shared(scales: dict[str, Any], rank: str = "0") -> bytes:
    return document(k_scale=None, v_scale=None, scaling_factor={rank: scales})


def test_a_file_is_read(tmp_path: Path) -> None:
    """Keys and values apart, or SGLang's one number for both; its digest is told."""
    path = tmp_path / "scales.json"
    path.write_bytes(document())
    read = load_cache_scales(path, MODEL)
    assert read.layers == (LayerScales(0.5, 0.25), LayerScales(1.5, 0.75))
    assert len(read.sha256) == 64
    given = parse_cache_scales(shared({"0": 0.5, "1": 2}), MODEL, where="x")
    assert given == (LayerScales(0.5, 0.5), LayerScales(2.0, 2.0))


positive = st.floats(1e-6, 1e6)


@given(st.tuples(positive, positive), st.tuples(positive, positive))
def test_what_is_written_is_read(first: tuple[float, float], second: tuple[float, float]) -> None:
    """To the bit; and SGLang, which has one number for a layer, gets the larger."""
    layers = (LayerScales(*first), LayerScales(*second))
    content = encode_cache_scales(layers, MODEL, {"statistic": "amax"})
    assert parse_cache_scales(content, MODEL, where="x") == layers
    kept = json.loads(content)["kv_cache"]["scaling_factor"]
    assert parse_cache_scales(shared(kept["0"]), MODEL, where="x") == tuple(
        LayerScales(max(pair), max(pair)) for pair in (first, second)
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (document(k_scale=[0.5]), r"k_scale: expected a list of 2 numbers, one for each layer, found 1"),
        (document(v_scale=[0.5, 1.0, 2.0]), r"v_scale: expected a list of 2 numbers.*found 3"),
        (document(v_scale=None), r"v_scale: expected a list"),
        (document(k_scale=[0.5, 0]), r"k_scale\[1\]: expected a positive number, found 0"),
        (document(v_scale=[-0.5, 1]), r"v_scale\[0\]: expected a positive number, found -0.5"),
        (document(k_scale=[0.5, "1"]), r"k_scale\[1\]"),
        (document(k_scale=[True, 1]), r"k_scale\[0\]"),
        (document(k_scale=[float("nan"), 1.0]), "NaN is not JSON"),
        (document(k_scale=[float("inf"), 1.0]), "Infinity is not JSON"),
        (document(k_scale=[1e400, 1.0]).replace(b"Infinity", b"1e400"), r"k_scale\[0\]"),
        (document(dtype="float8_e5m2"), "dtype: expected 'float8_e4m3fn'"),
        (shared({"0": 0.5}), "lacks the scale of layer 1"),
        (shared({"0": 0.5, "1": 1, "2": 1}), "layer '2': the model has 2 layers"),
        (shared({"0": 0.5, "1": 0}), "1: expected a positive number"),
        (shared({"0": 0.5, "1": 1}, rank="1"), "scaling_factor: expected the scales of one GPU"),
        (document().replace(b"llama", b"qwen2"), "model_type: expected 'llama'"),
        (b"{}", "kv_cache: expected an object"),
        (b"[1]", "expected a JSON object"),
        (b"\xff", "not valid JSON"),
    ],
)
def test_a_file_that_does_not_hold_is_refused_by_name(content: bytes, message: str) -> None:
    """File, key and layer."""
    with pytest.raises(CheckpointRejected, match=message):
        parse_cache_scales(content, MODEL, where="scales.json")


@given(st.binary(max_size=200) | st.text(alphabet='{}[]":,0.5ekv_scalendtypi', max_size=80).map(str.encode))
def test_nothing_but_a_rejection_leaves(content: bytes) -> None:
    """Whatever the bytes."""
    with pytest.raises(CheckpointRejected):
        parse_cache_scales(content, MODEL, where="x")


def test_a_file_for_another_model_is_refused() -> None:
    """By the number of layers, too."""
    with pytest.raises(CheckpointRejected, match="expected a list of 3 numbers"):
        parse_cache_scales(document(), replace(MODEL, num_layers=3), where="x")
