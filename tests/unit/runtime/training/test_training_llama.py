"""The training form of Llama, its decoding, and its checkpoint, against each other and against transformers."""

from pathlib import Path

import pytest
import torch

from runtime.training.checkpoint import load_llama, save_llama
from runtime.training.decode import decode_greedily
from runtime.training.llama import KVCache, Llama, LlamaShape

SHAPE = LlamaShape(
    vocab_size=97,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
)


def lively(seed: int = 1) -> Llama:
    """A model whose every weight matters, unlike a fresh one."""
    model = Llama(SHAPE, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def test_same_seed_gives_the_same_weights() -> None:
    """The first weights follow from the seed alone."""
    torch.manual_seed(5)
    first = Llama(SHAPE, 3).state_dict()
    torch.manual_seed(6)
    second = Llama(SHAPE, 3).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_cached_decoding_equals_the_full_pass() -> None:
    """Hidden states column by column through the cache are those of one pass over the row."""
    model = lively()
    tokens = torch.randint(0, SHAPE.vocab_size, (3, 11), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        full = model.model(tokens)
        cache = KVCache(SHAPE, num_rows=3, capacity=12, device=torch.device("cpu"))
        parts = []
        for first, end in ((0, 4), *((i, i + 1) for i in range(4, 11))):
            parts.append(model.model(tokens[:, first:end], cache))
            cache.lengths += end - first
    torch.testing.assert_close(torch.cat(parts, dim=1), full, atol=1e-5, rtol=1e-5)


def test_padding_does_not_reach_what_is_learnt() -> None:
    """The loss of rows of different length is the sum of their losses alone."""
    model = lively()
    short, long = torch.tensor([[5, 6, 7]]), torch.tensor([[8, 9, 10, 11, 12]])
    targets_short, targets_long = torch.tensor([[-1, 7, 1]]), torch.tensor([[-1, -1, 11, 12, 2]])
    alone = model.loss(short, targets_short) + model.loss(long, targets_long)
    tokens = torch.zeros((2, 5), dtype=torch.int64)
    targets = torch.full((2, 5), -1)
    tokens[0, :3], tokens[1], targets[0, :3], targets[1] = short, long, targets_short, targets_long
    torch.testing.assert_close(model.loss(tokens, targets), alone, atol=1e-4, rtol=1e-5)


def test_decoding_a_batch_equals_decoding_alone() -> None:
    """Prompts of several lengths, rows that end early: each answer is as if decoded by itself."""
    model = lively(4)
    prompts = [[1, 2, 3], [4, 5, 6, 7, 8], [7, 8], [9, 10, 11], [12], [13, 14, 15]]
    ends = frozenset(range(0, 97, 5))
    together = decode_greedily(model, prompts, ends=ends, max_new_tokens=12, batch_size=4)
    alone = [decode_greedily(model, [prompt], ends=ends, max_new_tokens=12)[0] for prompt in prompts]
    assert together == alone
    assert not any(token in ends for answer in together for token in answer)


def test_checkpoint_comes_back_in_bfloat16_precision(tmp_path: Path) -> None:
    """What is stored is the rounded weights, and loading gives exactly these."""
    model = lively()
    size = save_llama(model, tmp_path, bos=0, ends=[2, 0], pad=0)
    assert size == (tmp_path / "model.safetensors").stat().st_size
    loaded = load_llama(tmp_path)
    for name, parameter in model.named_parameters():
        assert torch.equal(loaded.get_parameter(name), parameter.detach().bfloat16().float())


def test_transformers_agrees(tmp_path: Path) -> None:
    """transformers, as an outside judge, reads the folder and computes the same logits."""
    transformers = pytest.importorskip("transformers")
    save_llama(lively(), tmp_path, bos=0, ends=[2, 0], pad=0)
    judge = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ours = load_llama(tmp_path)
    tokens = torch.randint(0, SHAPE.vocab_size, (2, 17), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        torch.testing.assert_close(ours.logits(ours.model(tokens)), judge(tokens).logits, atol=1e-4, rtol=1e-4)
