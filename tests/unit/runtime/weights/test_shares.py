"""What ranks keep of a checkpoint: together all of it, each what it computes, whatever the format."""

from pathlib import Path

import pytest
import torch

from runtime.errors import CheckpointRejected
from runtime.layers.quantized import QuantizedLinear
from runtime.models.parts import build_linear
from runtime.runner.building import apply_quantization
from runtime.weights.config import ModelConfig, load_model_config
from runtime.weights.layout import parameter_shapes
from runtime.weights.loading import LoadedWeights, load_weights
from runtime.weights.shares import WHOLE, Share, cuts_head, share_config
from tests.support.quantized_checkpoints import FORMATS, plain_tensors, quantized_tensors, write_checkpoint

CPU = torch.device("cpu")
AT_LOAD = "rounded as it is read"
PLAIN = "not quantized"


def load(folder: Path, config: ModelConfig, share: Share = WHOLE) -> LoadedWeights:
    return load_weights(folder, config, device=CPU, dtype=torch.float32, share=share)


def write(name: str, folder: Path) -> ModelConfig:
    if name in FORMATS:
        write_checkpoint(folder, quantized_tensors(FORMATS[name]), FORMATS[name].declared)
        return load_model_config(folder)
    write_checkpoint(folder, plain_tensors(), None)
    return apply_quantization(load_model_config(folder), "fp8" if name == AT_LOAD else "auto")


def weight_of(config: ModelConfig, loaded: LoadedWeights, name: str) -> torch.Tensor:
    linear = build_linear(config, loaded.parameters, name)
    return linear.dequantized() if isinstance(linear, QuantizedLinear) else linear.weight


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("name", [PLAIN, AT_LOAD, *(name for name in FORMATS if "block" not in name)])
def test_ranks_have_the_whole_between_them(name: str, size: int, tmp_path: Path) -> None:
    """Matrices that feed heads and inner features are cut by rows, those behind them by columns: to the bit, with scales."""
    config = write(name, tmp_path)
    whole = load(tmp_path, config)
    ranks = [load(tmp_path, config, Share(rank, size)) for rank in range(size)]
    assert {rank.digest for rank in ranks} == {whole.digest}, "each reads, and hashes, all of it"
    for layer in ("layers.0.", "layers.1."):
        for matrix, sizes in (("qkv", (128, 128, 128)), ("gate_up", (256, 256))):
            expected = weight_of(config, whole, layer + matrix).split(sizes)
            parts = [weight_of(config, rank, layer + matrix).split([own // size for own in sizes]) for rank in ranks]
            for index, each in enumerate(expected):
                assert torch.equal(torch.cat([part[index] for part in parts]), each)
        for matrix in ("output", "down"):
            parts = [weight_of(config, rank, layer + matrix) for rank in ranks]
            assert torch.equal(torch.cat(parts, dim=1), weight_of(config, whole, layer + matrix))
    assert torch.equal(torch.cat([rank.parameters["head.weight"] for rank in ranks]), whole.parameters["head.weight"])
    for rank in ranks:
        for same in ("embedding.weight", "norm.weight", "layers.0.mlp_norm.weight"):
            assert torch.equal(rank.parameters[same], whole.parameters[same])


def test_shapes_are_those_that_are_loaded(tmp_path: Path) -> None:
    """What memory is planned by is what is taken."""
    config = write(AT_LOAD, tmp_path)
    share = Share(1, 4)
    shapes = parameter_shapes(config, share)
    loaded = load(tmp_path, config, share).parameters
    assert {name: tuple(tensor.shape) for name, tensor in loaded.items()} == {
        name: each.shape for name, each in shapes.items()
    }


def test_blocks_of_scales_are_cut_whole(tmp_path: Path) -> None:
    """Where a part would begin inside a block of 128 the model is refused by name, before anything is read."""
    config = write("fp8, block", tmp_path)
    with pytest.raises(CheckpointRejected) as refused:
        load(tmp_path, config, Share(0, 2))
    assert "tp_size cuts it into parts of 64, which are no whole blocks of 128" in str(refused.value)


def test_a_rank_computes_its_own_heads_and_features(tmp_path: Path) -> None:
    """The vocabulary stays whole, and its head is cut only where the parts are whole units."""
    config = write(PLAIN, tmp_path)
    own = share_config(config, Share(1, 2))
    assert (own.num_heads, own.num_kv_heads, own.intermediate_size) == (2, 2, 128)
    assert (own.vocab_size, own.hidden_size, own.head_dim) == (96, 128, 32)
    assert cuts_head(config, Share(1, 2))
    assert not cuts_head(config, Share(1, 16))
    assert not cuts_head(config, WHOLE)
