"""`config.json` and `generation_config.json`, in the spellings of transformers 4 and 5, and what is refused in them."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import CheckpointRejected
from runtime.weights.config import GenerationDefaults, load_model_config, parse_model_config
from runtime.weights.rope import RopeConfig

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 1000,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
QWEN2 = LLAMA | {"architectures": ["Qwen2ForCausalLM"], "num_key_value_heads": 2}
MISTRAL = LLAMA | {"architectures": ["MistralForCausalLM"], "num_key_value_heads": 2}
SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def test_both_spellings_of_rope_and_dtype_mean_the_same() -> None:
    """transformers 4's rope_theta, rope_scaling and torch_dtype equal transformers 5's rope_parameters and dtype."""
    four = LLAMA | {"rope_theta": 5e5, "rope_scaling": SCALING, "torch_dtype": "bfloat16"}
    five = LLAMA | {"rope_parameters": SCALING | {"rope_theta": 5e5}, "dtype": "bfloat16"}
    assert parse_model_config(four, {}) == parse_model_config(five, {})
    assert parse_model_config(four, {}).rope == RopeConfig(5e5, "llama3", 8.0, 1.0, 4.0, 64)
    assert parse_model_config(four, {}).dtype == "bfloat16"


def test_defaults_are_those_of_transformers() -> None:
    """A configuration that says little means what transformers takes it to mean."""
    config = parse_model_config(LLAMA | {"rope_scaling": None, "head_dim": None}, {})
    assert (config.num_kv_heads, config.head_dim, config.rms_norm_eps) == (4, 16, 1e-6)
    assert config.rope == RopeConfig(10_000.0)
    assert not config.tie_word_embeddings
    assert config.dtype is None
    assert config.layer_windows == (None,) * 4
    qwen3 = parse_model_config(QWEN2 | {"architectures": ["Qwen3ForCausalLM"]}, {})
    assert (qwen3.head_dim, qwen3.qk_norm, qwen3.qkv_bias) == (128, True, False)


def test_end_of_sequence_ids_of_both_files_count_once() -> None:
    """One id, a list, and ids of generation_config.json are joined in order, without repetition."""
    config = parse_model_config(LLAMA | {"eos_token_id": 7}, {"eos_token_id": [9, 7, 8]})
    assert config.eos_token_ids == (7, 9, 8)
    assert parse_model_config(LLAMA | {"eos_token_id": [5, 6]}, {}).eos_token_ids == (5, 6)
    assert parse_model_config(LLAMA, {}).eos_token_ids == ()


@pytest.mark.parametrize(
    ("scaling", "expected", "num_positions"),
    [
        ({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}, (128, 1 + 0.1 * math.log(4)), 512),
        ({"rope_type": "yarn", "factor": 2.0}, (256, 1 + 0.1 * math.log(2)), 512),
        (
            {"rope_type": "yarn", "factor": 1.5, "original_max_position_embeddings": 64, "attention_factor": 1.0},
            (64, 1.0),
            256,
        ),
        ({"rope_type": "yarn", "factor": 8.0, "mscale": 1.0, "mscale_all_dim": 1.0}, (256, 1.0), 2048),
    ],
)
def test_yarn_stretches_the_context(scaling: dict[str, Any], expected: tuple[int, float], num_positions: int) -> None:
    """Of the original length, which is max_position_embeddings where nothing is said; never below that."""
    config = parse_model_config(LLAMA | {"rope_scaling": scaling}, {})
    assert (config.rope.original_max_position, config.rope.attention_factor) == pytest.approx(expected)
    assert config.max_position == num_positions


def test_generation_defaults_are_read() -> None:
    """Values that are there are taken, others are None; a top_k of -1 or 0 means no limit."""
    given = {
        "temperature": 0.6,
        "top_p": 0.95,
        "top_k": 20,
        "min_p": 0.1,
        "repetition_penalty": 1.05,
        "do_sample": True,
    }
    assert parse_model_config(LLAMA, given).generation == GenerationDefaults(0.6, 0.95, 20, 0.1, 1.05)
    assert parse_model_config(LLAMA, {}).generation == GenerationDefaults()
    assert parse_model_config(LLAMA, {"top_k": -1}).generation.top_k == 0


@pytest.mark.parametrize(
    ("given", "windows"),
    [
        (MISTRAL | {"sliding_window": 32}, (32, 32, 32, 32)),
        (MISTRAL | {"sliding_window": None}, (None,) * 4),
        (MISTRAL, (4096,) * 4),
        (QWEN2 | {"sliding_window": 32, "use_sliding_window": False}, (None,) * 4),
        (QWEN2 | {"sliding_window": 32, "use_sliding_window": True, "max_window_layers": 3}, (None, None, None, 32)),
        (QWEN2 | {"sliding_window": None, "use_sliding_window": True, "max_window_layers": 0}, (None,) * 4),
        (QWEN2 | {"use_sliding_window": True, "max_window_layers": 0}, (4096,) * 4),
        (
            QWEN2
            | {
                "sliding_window": 8,
                "use_sliding_window": True,
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
            },
            (8, None, 8, None),
        ),
    ],
)
def test_sliding_windows_are_known_for_each_layer(given: dict[str, Any], windows: tuple[int | None, ...]) -> None:
    """Mistral slides in all layers, Qwen2 in upper or listed ones if it is switched on."""
    assert parse_model_config(given, {}).layer_windows == windows


def test_biases_follow_architecture_and_configuration() -> None:
    """Qwen2 always has them on queries, keys and values; Llama where attention_bias and mlp_bias say so."""
    qwen2 = parse_model_config(QWEN2, {})
    assert (qwen2.qkv_bias, qwen2.output_bias, qwen2.mlp_bias) == (True, False, False)
    llama = parse_model_config(LLAMA | {"attention_bias": True, "mlp_bias": True}, {})
    assert (llama.qkv_bias, llama.output_bias, llama.mlp_bias) == (True, True, True)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"architectures": ["GemmaForCausalLM"]}, "GemmaForCausalLM"),
        ({"architectures": ["LlamaForCausalLM", "LlamaModel"]}, "architectures"),
        ({"architectures": None}, "architectures"),
        ({"model_type": "mixtral"}, "mixtral"),
        ({"quantization_config": {"quant_method": "gptq"}}, "gptq"),
        ({"auto_map": {"AutoModel": "modeling.Model"}}, "auto_map"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 4.0}}, "longrope"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "factor"),
        ({"rope_theta": 1.0, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_theta"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 1e6}}, "a context of at most"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 1, "beta_slow": 1}}, "beta_fast"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "attention_factor": -1.0}}, "attention_factor"),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "dynamic"),
        ({"rope_scaling": {"rope_type": "linear"}}, "factor"),
        ({"rope_scaling": SCALING | {"high_freq_factor": 1.0}}, "high_freq_factor"),
        ({"rope_parameters": {"rope_theta": 1e4}, "rope_theta": 2e4}, "rope_theta"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "rope_theta"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"torch_dtype": "float8_e4m3fn"}, "float8_e4m3fn"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"num_attention_heads": 5, "num_key_value_heads": 5}, "hidden_size"),
        ({"head_dim": 15}, "head_dim"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"vocab_size": True}, "vocab_size"),
        ({"vocab_size": "1000"}, "vocab_size"),
        ({"hidden_size": 64.0}, "hidden_size"),
        ({"num_hidden_layers": None}, "num_hidden_layers"),
        ({"max_position_embeddings": 1 << 40}, "max_position_embeddings"),
        ({"rms_norm_eps": "1e-6"}, "rms_norm_eps"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings"),
        ({"eos_token_id": 1000}, "eos_token_id"),
        ({"eos_token_id": [1, "2"]}, "eos_token_id"),
    ],
)
def test_what_we_cannot_run_is_refused_by_name(change: dict[str, Any], named: str) -> None:
    """The message names the key or the value that stands in the way."""
    with pytest.raises(CheckpointRejected, match=named):
        parse_model_config(LLAMA | change, {})


@pytest.mark.parametrize("change", [{"temperature": -1}, {"top_p": 0}, {"top_k": 1.5}, {"repetition_penalty": 0}])
def test_impossible_generation_defaults_are_refused(change: dict[str, Any]) -> None:
    """A default that no request may have is no default."""
    with pytest.raises(CheckpointRejected, match=next(iter(change))):
        parse_model_config(LLAMA, change)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b'{"a": NaN}', b'{"a": 1, "a": 1}', b'{"a": {"b": 1, "b": 2}}', b"\xff\xfe", b"[" * 100_000],
)
def test_files_that_are_not_one_json_object_are_refused(tmp_path: Path, content: bytes) -> None:
    """Broken, ambiguous and non-standard JSON is refused, naming the file."""
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointRejected, match=r"config\.json"):
        load_model_config(tmp_path)


def test_files_that_are_not_regular_are_refused(tmp_path: Path) -> None:
    """Nothing, a folder or a pipe in place of config.json is an error of ours, at once."""
    with pytest.raises(CheckpointRejected, match=r"config\.json"):
        load_model_config(tmp_path)
    (tmp_path / "config.json").mkdir()
    with pytest.raises(CheckpointRejected, match=r"config\.json: not a regular file"):
        load_model_config(tmp_path)
    (tmp_path / "config.json").rmdir()
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(CheckpointRejected, match=r"config\.json: not a regular file"):
        load_model_config(tmp_path)


def test_limits_and_defaults_are_read_without_torch(tmp_path: Path) -> None:
    """A process that reads a configuration imports neither torch nor numpy."""
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    program = (
        "import sys, pathlib; from runtime.weights.config import load_model_config;"
        "load_model_config(pathlib.Path(sys.argv[1]));"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    root = Path(__file__).parents[4]
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, cwd=root, timeout=60)
