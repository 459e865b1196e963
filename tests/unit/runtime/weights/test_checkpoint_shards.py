"""A checkpoint as a whole: folder, index and shards, checked against each other and the configuration."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.errors import CheckpointRejected
from runtime.weights.checkpoint import open_checkpoint
from runtime.weights.config import load_model_config
from tests.unit.runtime.weights.conftest import Tensors, file_bytes, header_and_data, tiny_tensors

WriteFolder = Callable[..., Path]
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


def open_and_close(folder: Path) -> int:
    with open_checkpoint(folder, load_model_config(folder)) as checkpoint:
        return sum(len(shard.tensors) for shard in checkpoint.shards)


def assert_rejected(folder: Path, message: str) -> None:
    with pytest.raises(CheckpointRejected, match=message):
        open_and_close(folder)


def edit_index(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    index = json.loads((folder / INDEX).read_text())
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))


def without(tensors: Tensors, name: str) -> Tensors:
    return {key: value for key, value in tensors.items() if key != name}


def test_sound_folders_are_accepted(single_folder: Path) -> None:
    """One file with exactly the model's tensors opens."""
    assert open_and_close(single_folder) == 21


def test_sound_shards_are_accepted(sharded_folder: Path) -> None:
    """Two shards and their index open."""
    assert open_and_close(sharded_folder) == 21


def test_a_missing_shard_is_named(sharded_folder: Path) -> None:
    """A shard that the index lists and the folder lacks."""
    (sharded_folder / SECOND).unlink()
    assert_rejected(sharded_folder, f"{SECOND}: shard is missing")


def test_a_truncated_shard_is_named(sharded_folder: Path) -> None:
    """A shard whose last byte is gone, with the tensor that it hits."""
    content = (sharded_folder / SECOND).read_bytes()
    (sharded_folder / SECOND).write_bytes(content[:-1])
    assert_rejected(sharded_folder, rf"{SECOND}: truncated: tensor 'model\.layers\.1\.mlp\.down_proj\.weight'")


def test_a_tensor_in_two_shards_is_named(write_folder: WriteFolder) -> None:
    """Which of the two would be loaded is up to the reader, so it is refused."""
    tensors = tiny_tensors()
    folder = write_folder({FIRST: tensors, SECOND: {"model.norm.weight": tensors["model.norm.weight"]}})
    assert_rejected(folder, f"'model.norm.weight' is in {FIRST} and in {SECOND}")


def test_an_index_that_points_elsewhere_is_refused(sharded_folder: Path) -> None:
    """The index and the shards' headers say the same."""
    edit_index(sharded_folder, lambda names: names.update({"model.norm.weight": SECOND}))
    assert_rejected(sharded_folder, f"{SECOND}: tensor 'model.norm.weight' is not in it.*found in {FIRST}")


def test_a_tensor_that_the_index_does_not_list_is_refused(sharded_folder: Path) -> None:
    """A shard may hold nothing that was not announced."""
    edit_index(sharded_folder, lambda names: names.pop("model.norm.weight"))
    assert_rejected(sharded_folder, f"{FIRST}: tensor 'model.norm.weight': not listed")


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "model.bin", 3, ""])
def test_an_index_cannot_lead_out_of_the_folder(sharded_folder: Path, name: object) -> None:
    """Shards are plain file names with our suffix."""
    edit_index(sharded_folder, lambda names: names.update({"model.norm.weight": name}))
    assert_rejected(sharded_folder, "'model.norm.weight'.*not a shard's file name")


def test_a_file_beside_the_checkpoint_is_refused(single_folder: Path) -> None:
    """safetensors files that are not part of the checkpoint are not what was approved."""
    (single_folder / "consolidated.safetensors").write_bytes(file_bytes({}, b""))
    assert_rejected(single_folder, r"consolidated\.safetensors: not part of the checkpoint")


def test_a_folder_without_weights_is_refused(single_folder: Path) -> None:
    """Neither a single file nor an index."""
    (single_folder / "model.safetensors").unlink()
    assert_rejected(single_folder, r"holds neither model\.safetensors nor")


def test_missing_and_unexpected_tensors_are_named(write_folder: WriteFolder) -> None:
    """Exactly the tensors that the configuration asks for."""
    name = "model.layers.1.mlp.up_proj.weight"
    assert_rejected(write_folder({"model.safetensors": without(tiny_tensors(), name)}), f"lacks 1 .*{name}")
    more = tiny_tensors() | {"model.layers.2.input_layernorm.weight": np.ones(8, np.float32)}
    assert_rejected(write_folder({"model.safetensors": more}), "'model.layers.2.input_layernorm.weight': unexpected")


def test_a_wrong_shape_or_dtype_is_named(single_folder: Path, write_folder: WriteFolder) -> None:
    """Shape and dtype are those of the configuration."""
    transposed = tiny_tensors() | {"model.layers.0.mlp.down_proj.weight": np.ones((12, 8), np.float32)}
    message = r"model\.safetensors: tensor 'model\.layers\.0\.mlp\.down_proj\.weight': expected shape \[8, 12\]"
    assert_rejected(write_folder({"model.safetensors": transposed}), message)
    header, data = header_and_data(tiny_tensors())
    header["lm_head.weight"]["dtype"] = "I32"
    (single_folder / "model.safetensors").write_bytes(file_bytes(header, data))
    assert_rejected(single_folder, "'lm_head.weight': expected dtype F32, found I32")


def test_old_rotary_buffers_are_tolerated(write_folder: WriteFolder) -> None:
    """Checkpoints of old versions store frequencies that follow from the configuration."""
    more = tiny_tensors() | {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(1, np.float32)}
    assert open_and_close(write_folder({"model.safetensors": more})) == 22


def test_either_name_of_a_tied_matrix_is_enough(write_folder: WriteFolder) -> None:
    """A writer keeps one name of a shared tensor; both or either are fine, none is not."""
    tied = {"tie_word_embeddings": True}
    for dropped in ("lm_head.weight", "model.embed_tokens.weight"):
        folder = write_folder({"model.safetensors": without(tiny_tensors(), dropped)}, tied)
        assert open_and_close(folder) == 20
    neither = without(without(tiny_tensors(), "lm_head.weight"), "model.embed_tokens.weight")
    assert_rejected(write_folder({"model.safetensors": neither}, tied), "lacks 1 .*'model.embed_tokens.weight'")


@pytest.mark.parametrize(
    "name",
    ["pytorch_model.bin", "a.pt", "a.PTH", "original/consolidated.00.pth", "optimizer.pkl", "a.pickle.gz", "a.npy"],
)
def test_pickles_are_refused_wherever_they_lie(single_folder: Path, name: str) -> None:
    """Also in subfolders, and behind a second suffix."""
    path = single_folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\x80\x04.")
    assert_rejected(single_folder, f"{name}: a pickle format")


def test_code_is_refused(single_folder: Path) -> None:
    """Python files and configurations that name them."""
    (single_folder / "modeling_x.py").write_text("")
    assert_rejected(single_folder, r"modeling_x\.py: code")
    (single_folder / "modeling_x.py").unlink()
    (single_folder / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["x.Y", null]}}')
    assert_rejected(single_folder, r"tokenizer_config\.json: auto_map")


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path, single_folder: Path) -> None:
    """A missing folder and a file in its place."""
    config = load_model_config(single_folder)
    for path in (tmp_path / "absent", single_folder / "config.json"):
        with pytest.raises(CheckpointRejected, match="not a folder"):
            open_checkpoint(path, config)
