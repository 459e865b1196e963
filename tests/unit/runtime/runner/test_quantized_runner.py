"""FP8 checkpoints served on a CPU, against transformers' model with the same numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from runtime.runner.building import build_runner
from tests.support.quantized_checkpoints import (
    CONFIG,
    FORMATS,
    dequantize_stored,
    plain_tensors,
    quantized_tensors,
    write_checkpoint,
)
from tests.support.step_batches import Chunk, sampling_batch, step_batch

PROMPT = [5, 80, 3, 17, 44, 9, 61, 2, 30, 11]
VOCABULARY = CONFIG["vocab_size"]
TOLERANCE = 0.03
"""Of log-probabilities: where a float32 sum differs in its last bit, another e4m3 value may be the nearest."""

Round = Callable[[Tensor], Tensor]


def served(folder: Path, quantization: str = "auto") -> dict[int, float]:
    """Log-probabilities of the 20 likeliest tokens after PROMPT."""
    runner = build_runner(folder, num_pages=3, quantization=quantization)
    batch = step_batch([Chunk(PROMPT, 0, [1])], sampling_batch(1, num_logprobs=20))
    given = runner.launch(batch).result().logprobs
    assert given is not None
    return dict(zip(given.top_ids[0].tolist(), given.top_values[0].tolist(), strict=True))


def rounding(name: str, stored: dict[str, Tensor]) -> Callable[[str], Round]:
    """How a module's inputs are rounded by definition: in rows, groups of 128, or by a scale from the file."""

    def of(module: str) -> Round:
        def apply(rows: Tensor) -> Tensor:
            grouped = rows.unflatten(-1, (-1, 128)) if "block" in name else rows.unsqueeze(-2)
            scale = stored.get(f"{module}.input_scale")
            if scale is None:
                scale = grouped.abs().amax(-1, keepdim=True) / 448
            rounded = (grouped / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale
            return rounded.flatten(-2)

        return apply

    return of


def judged(stored: dict[str, Tensor], of: Callable[[str], Round] | None) -> Tensor:
    """Log-probabilities by transformers' model, of the dequantized weights, its projections' inputs rounded by `of`."""
    transformers = pytest.importorskip("transformers")
    keys = ("architectures", "torch_dtype")
    config = transformers.LlamaConfig(**{key: value for key, value in CONFIG.items() if key not in keys})
    model: Any = transformers.LlamaForCausalLM(config).float().eval()
    plain = {name: tensor.float() for name, tensor in stored.items() if not name.endswith(("scale", "scale_inv"))}
    for name, module in model.named_modules():
        if name.endswith("_proj") and of is not None:
            plain[f"{name}.weight"] = dequantize_stored(stored, name)
            module.register_forward_pre_hook(lambda _module, given, apply=of(name): (apply(given[0]),))
    model.load_state_dict(plain)
    with torch.inference_mode():
        logits: Tensor = model(torch.tensor([PROMPT])).logits[0, -1]
    return logits.log_softmax(-1)


def assert_near(given: dict[int, float], expected: Tensor, tolerance: float) -> None:
    assert len(given) == 20
    for token, value in given.items():
        assert value == pytest.approx(float(expected[token]), abs=tolerance)


@pytest.mark.parametrize("name", FORMATS)
def test_the_runner_serves_what_transformers_computes(name: str, tmp_path: Path) -> None:
    """Weights by their scales, inputs rounded by theirs: the same next-token distribution."""
    form = FORMATS[name]
    stored = quantized_tensors(form)
    expected = judged(stored, rounding(name, stored))
    assert_near(served(write_checkpoint(tmp_path, stored, form.declared)), expected, TOLERANCE)
    assert float((expected - judged(plain_tensors(), None)).abs().max()) > 2 * TOLERANCE


def test_rounding_at_load_is_what_a_checkpoint_by_channel_says(tmp_path: Path) -> None:
    """`quantization = "fp8"` on a plain checkpoint; on one that is quantized it changes nothing."""
    folder = write_checkpoint(tmp_path, plain_tensors(), None)
    stored: dict[str, Tensor] = {}
    for name, tensor in plain_tensors().items():
        stored[name] = tensor
        if name.endswith("_proj.weight"):
            scale = tensor.float().abs().amax(1, keepdim=True) / 448
            stored |= {name: (tensor.float() / scale).to(torch.float8_e4m3fn), f"{name}_scale": scale}
    assert_near(served(folder, "fp8"), judged(stored, rounding("channel", stored)), TOLERANCE)
    form = FORMATS["fbgemm_fp8"]
    write_checkpoint(tmp_path, quantized_tensors(form), form.declared)
    assert served(folder, "fp8") == served(folder)


def test_transformers_own_loader_reads_blocks_as_we_do(tmp_path: Path) -> None:
    """The one format that it loads on a CPU, if accelerate is installed: its weights are ours, and, with inputs rounded, so is the
    distribution."""
    pytest.importorskip("accelerate")
    transformers = pytest.importorskip("transformers")
    form = FORMATS["fp8, block"]
    stored = quantized_tensors(form)
    folder = write_checkpoint(tmp_path, stored, form.declared)
    declared = transformers.FineGrainedFP8Config(dequantize=True)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, quantization_config=declared
    )
    of = rounding("fp8, block", stored)
    for name, module in model.named_modules():
        if name.endswith("_proj"):
            assert torch.equal(module.weight, dequantize_stored(stored, name))
            module.register_forward_pre_hook(lambda _module, given, apply=of(name): (apply(given[0]),))
    with torch.inference_mode():
        logits: Tensor = model(torch.tensor([PROMPT])).logits[0, -1]
    assert_near(served(folder), logits.log_softmax(-1), TOLERANCE)
