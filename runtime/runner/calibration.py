"""How large keys and values of each layer get over given prompts: the scales of a KV cache in e4m3.

A runner computes the prompts as it serves them, and what it wrote to its pages is looked at: whatever device, kernels, head norms
and rotation it has. The scale brings the largest magnitude seen, or a percentile of all, to e4m3's largest number; beyond it
serving cuts off.

What always holds: the runner's pages are not e4m3, and nobody else uses it. Magnitudes are counted by their 15 bits in bfloat16, so
a percentile is exact to its 8 bits of mantissa; the largest is exact.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from runtime.batch import ModelRunner, StepBatch
from runtime.errors import EngineMisconfigured
from runtime.identifiers import PAGE_SIZE
from runtime.layers.quantized import E4M3, E4M3_MAX
from runtime.runner.step_inputs import EMPTY_STEP
from runtime.weights.cache_scales_file import LayerScales

NUM_MAGNITUDES = 1 << 15
"""Of bfloat16, its sign apart."""
_FIRST_NOT_FINITE = 0x7F80


class PagedRunner(ModelRunner, Protocol):
    """A runner whose cache can be looked at."""

    pages: Tensor
    """[num_layers, num_pages, 2, PAGE_SIZE, num_kv_heads, head_dim]."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was found."""

    layers: tuple[LayerScales, ...]
    num_tokens: int


class Magnitudes:
    """Of keys and values by layer, counted."""

    def __init__(self, num_layers: int) -> None:
        self._counts = torch.zeros(num_layers, 2, NUM_MAGNITUDES, dtype=torch.int64)
        self._peaks = torch.zeros(num_layers, 2)

    def add(self, layer: int, part: int, values: Tensor) -> None:
        """Count values of any shape; `part` 0 is keys, 1 values."""
        sizes = values.float().abs()
        bits = sizes.to(torch.bfloat16).view(torch.int16).flatten().long() & (NUM_MAGNITUDES - 1)
        self._counts[layer, part] += torch.bincount(bits, minlength=NUM_MAGNITUDES).cpu()
        self._peaks[layer, part] = max(float(self._peaks[layer, part]), float(sizes.max()))

    def scales(self, percentile: float) -> tuple[LayerScales, ...]:
        """
        Args:
            percentile: above 0, at most 100, which is the largest.
        Raises: EngineMisconfigured if a layer has nothing but zeros, or what is not finite.
        """
        return tuple(
            LayerScales(*(self._size(layer, part, percentile) / E4M3_MAX for part in (0, 1)))
            for layer in range(len(self._peaks))
        )

    def _size(self, layer: int, part: int, percentile: float) -> float:
        name = f"{('keys', 'values')[part]} of layer {layer}"
        counts = self._counts[layer, part]
        if int(counts[_FIRST_NOT_FINITE:].sum()):
            raise EngineMisconfigured(f"calibration: {name} are not all finite")
        size = float(self._peaks[layer, part])
        if percentile < 100:
            wanted = percentile / 100 * int(counts.sum())
            place = int(torch.searchsorted(counts.cumsum(0), torch.tensor(wanted), side="left"))
            size = float(torch.tensor(place, dtype=torch.int16).view(torch.bfloat16))
        if not size > 0:
            raise EngineMisconfigured(f"calibration: {name} are zero up to the {percentile:g}th percentile")
        return size


def calibrate(
    runner: PagedRunner,
    prompts: Sequence[Sequence[int]],
    *,
    chunk: int,
    percentile: float = 100.0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Calibration:
    """Compute prompts, and measure what they leave in the cache.

    Args:
        prompts: token ids, each of at least one and at most the cache's tokens.
        chunk: most tokens in one step.
        on_progress: called with (prompts done, prompts in all).
    Raises: EngineMisconfigured for pages in e4m3, and as `Magnitudes.scales`.
    """
    if runner.pages.dtype == E4M3:
        raise EngineMisconfigured(
            "calibration: the cache is e4m3 already, and holds no larger numbers than its scales allow"
        )
    magnitudes, num_tokens = Magnitudes(runner.pages.shape[0]), 0
    for index, prompt in enumerate(prompts):
        for start in range(0, len(prompt), chunk):
            runner.launch(prompt_step(prompt[start : start + chunk], start)).result()
        _count(magnitudes, runner.pages, len(prompt))
        num_tokens += len(prompt)
        on_progress(index + 1, len(prompts))
    return Calibration(magnitudes.scales(percentile), num_tokens)


def prompt_step(token_ids: Sequence[int], start: int) -> StepBatch:
    """Some tokens of one prompt, whose pages are the first ones; nothing is sampled."""
    positions = np.arange(start, start + len(token_ids))
    num_pages = -(-(start + len(token_ids)) // PAGE_SIZE)
    return StepBatch(
        token_ids=np.asarray(token_ids, np.int64),
        previous_rows=np.full(len(token_ids), -1, np.int32),
        positions=positions,
        slots=positions + PAGE_SIZE,
        query_starts=np.array([0, len(token_ids)], np.int32),
        context_lengths=np.array([start + len(token_ids)], np.int32),
        page_tables=np.arange(1, num_pages + 1, dtype=np.int32)[None, :],
        sample_rows=EMPTY_STEP.sample_rows,
        sampling=EMPTY_STEP.sampling,
        page_copies=EMPTY_STEP.page_copies,
    )


@torch.inference_mode()
def _count(magnitudes: Magnitudes, pages: Tensor, num_tokens: int) -> None:
    num_pages = -(-num_tokens // PAGE_SIZE)
    for layer, layer_pages in enumerate(pages[:, 1 : num_pages + 1]):
        for part in (0, 1):
            magnitudes.add(layer, part, layer_pages[:, part].flatten(0, 1)[:num_tokens])
