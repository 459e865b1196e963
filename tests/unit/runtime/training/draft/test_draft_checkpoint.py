"""A head's folder: the published names, shapes and types, and what is read back is what was written."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from runtime.errors import TrainingStopped
from runtime.training.draft.checkpoint import load_head_tensors, save_head
from runtime.training.draft.head import DraftHead, HeadShape, shape_for
from runtime.training.draft.vocabulary import DraftVocabulary, choose_vocabulary
from runtime.training.storing import store_tensors
from runtime.weights.config import ModelConfig, load_model_config
from runtime.weights.fields import Fields
from runtime.weights.rope import RopeConfig, parse_rope
from tests.support.tiny_targets import TINY_LAYERS, write_tiny_target


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    """A target's configuration."""
    folder = tmp_path_factory.mktemp("target")
    write_tiny_target(folder)
    return load_model_config(folder)


@pytest.fixture
def shape(config: ModelConfig) -> HeadShape:
    """A head for it."""
    return shape_for(config, draft_vocab_size=20, intermediate_size=24, captured_layers=TINY_LAYERS)


VOCABULARY = choose_vocabulary([[40, 41, 41]], vocab_size=48, draft_vocab_size=20, always=[47])


def test_folder_is_as_engines_load_it(shape: HeadShape, config: ModelConfig, tmp_path: Path) -> None:
    """Names and shapes of EAGLE-3 heads, bfloat16, offsets in int64, a bool for each target id; readable by every process."""
    size = save_head(DraftHead(shape, 0), VOCABULARY, config, tmp_path / "head")
    path = tmp_path / "head" / "model.safetensors"
    tensors = load_file(path)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "fc.weight": (32, 96),
        "midlayer.hidden_norm.weight": (32,),
        "midlayer.input_layernorm.weight": (32,),
        "midlayer.post_attention_layernorm.weight": (32,),
        "midlayer.self_attn.q_proj.weight": (32, 64),
        "midlayer.self_attn.k_proj.weight": (16, 64),
        "midlayer.self_attn.v_proj.weight": (16, 64),
        "midlayer.self_attn.o_proj.weight": (32, 32),
        "midlayer.mlp.gate_proj.weight": (24, 32),
        "midlayer.mlp.up_proj.weight": (24, 32),
        "midlayer.mlp.down_proj.weight": (32, 24),
        "norm.weight": (32,),
        "lm_head.weight": (20, 32),
        "d2t": (20,),
        "t2d": (48,),
    }
    types = {name: tensor.dtype for name, tensor in tensors.items()}
    assert types.pop("d2t") == torch.int64
    assert types.pop("t2d") == torch.bool
    assert set(types.values()) == {torch.bfloat16}
    assert size == path.stat().st_size
    assert path.stat().st_mode & 0o777 == 0o644


def test_configuration_names_what_serving_needs(shape: HeadShape, config: ModelConfig, tmp_path: Path) -> None:
    """Architecture and sizes; the captured layers in the two ways in which engines count them."""
    save_head(DraftHead(shape, 0), VOCABULARY, config, tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    assert described["architectures"] == ["LlamaForCausalLMEagle3"]
    assert (described["vocab_size"], described["draft_vocab_size"], described["num_hidden_layers"]) == (48, 20, 1)
    assert described["eagle_aux_hidden_state_layer_ids"] == [1, 2, 3]
    assert described["eagle_config"] == {"use_aux_hidden_state": True, "eagle_aux_hidden_state_layer_ids": [0, 1, 2]}


@pytest.mark.parametrize(
    "rope",
    [
        RopeConfig(5e5),
        RopeConfig(1e4, "linear", factor=2.0),
        RopeConfig(5e5, "llama3", 8.0, 1.0, 4.0, 8192),
        RopeConfig(
            1e6,
            "yarn",
            4.0,
            original_max_position=512,
            beta_fast=16.0,
            beta_slow=2.0,
            truncates=False,
            attention_factor=1.2,
        ),
    ],
    ids=lambda rope: rope.kind,
)
def test_rotation_is_the_targets(rope: RopeConfig, shape: HeadShape, config: ModelConfig, tmp_path: Path) -> None:
    """What is written is parsed to the same again."""
    turned = HeadShape(**{name: getattr(shape, name) for name in HeadShape.__dataclass_fields__} | {"rope": rope})
    save_head(DraftHead(turned, 0), VOCABULARY, config, tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    assert parse_rope(Fields(described, "config.json")) == rope


def test_what_is_read_back_is_what_was_written(shape: HeadShape, config: ModelConfig, tmp_path: Path) -> None:
    """Weights to the rounding, the vocabulary exactly."""
    head, again = DraftHead(shape, 3), DraftHead(shape, 4)
    save_head(head, VOCABULARY, config, tmp_path)
    vocabulary = load_head_tensors(again, tmp_path)
    assert vocabulary.target_ids.tolist() == VOCABULARY.target_ids.tolist()
    assert vocabulary.vocab_size == 48
    for (name, written), (_, read) in zip(head.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(written.bfloat16().float(), read), name


def test_disk_that_takes_nothing_is_named(shape: HeadShape, config: ModelConfig) -> None:
    """The message says which file; nothing but the family leaves."""
    with pytest.raises(TrainingStopped, match=r"/dev/full/.*cannot be written"):
        save_head(DraftHead(shape, 0), VOCABULARY, config, Path("/dev/full/head"))


def test_vocabulary_is_the_most_frequent_and_the_ends() -> None:
    """Frequency first, then the lowest ids; ends of answers are always in; never more than the target has."""
    vocabulary = choose_vocabulary([[7, 7, 5, 9, 9, 9], [5, 7]], vocab_size=12, draft_vocab_size=4, always=[11])
    assert vocabulary.target_ids.tolist() == [5, 7, 9, 11]
    assert vocabulary.offsets.tolist() == [5, 6, 7, 8]
    assert vocabulary.is_drafted.nonzero().flatten().tolist() == [5, 7, 9, 11]
    assert choose_vocabulary([[7]], vocab_size=12, draft_vocab_size=3, always=[]).target_ids.tolist() == [0, 1, 7]
    assert len(choose_vocabulary([], vocab_size=12, draft_vocab_size=99, always=[])) == 12
    assert isinstance(vocabulary.to("cpu"), DraftVocabulary)


def test_file_of_before_is_left_when_a_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """safetensors fails by an error of its own; the old file stays, the half-written one does not."""
    path = tmp_path / "training.safetensors"
    store_tensors({"a": torch.ones(3)}, path, {})

    def fill(tensors: object, file: Path, metadata: object) -> None:
        file.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("runtime.training.storing.save_file", fill)
    with pytest.raises(TrainingStopped, match="No space left"):
        store_tensors({"a": torch.zeros(3)}, path, {})
    assert torch.equal(load_file(path)["a"], torch.ones(3))
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
