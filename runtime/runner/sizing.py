"""Finds out by trial what steps and graphs need, before the KV cache takes the rest of the GPU's memory.

The trial is a runner over a small cache: it captures its largest graphs and runs the largest step there can be, a full
prefill chunk beside as many decodes as may run, all of them sampled in the way that takes the most memory.
"""

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from runtime.batch import SamplingBatch, SpeculationBatch, StepBatch, TreeBatch
from runtime.draft_shape import NO_DRAFTS, DraftShape
from runtime.identifiers import PAGE_SIZE
from runtime.runner.device_runner import DeviceRunner
from runtime.runner.step_buffers import RunnerLimits
from runtime.runner.step_inputs import EMPTY_STEP


def measure_step_bytes(
    build: Callable[[int], DeviceRunner], limits: RunnerLimits, shape: DraftShape = NO_DRAFTS
) -> int:
    """Bytes of the GPU that a runner takes beyond its cache and the weights, which are loaded already.

    Args:
        build: makes a runner over a cache of so many pages.
        shape: of the drafts that it makes and verifies.
    """
    chunk = limits.max_rows - limits.max_samples
    torch.cuda.empty_cache()
    free_before, _ = torch.cuda.mem_get_info()
    runner = build(-(-chunk // PAGE_SIZE) + 1)
    runner.capture_graphs(largest_only=True)
    step = largest_step(chunk, limits.max_sequences, runner.vocab_size)
    if shape.num_steps:
        step = replace(step, speculation=_speculating(step, shape))
    for _ in range(2):
        runner.launch(step).result()
    torch.cuda.synchronize()
    free_after, _ = torch.cuda.mem_get_info()
    cache_bytes = runner.pages.numel() * runner.pages.element_size()
    del runner
    gc.collect()
    torch.cuda.empty_cache()
    return max(0, free_before - free_after - cache_bytes)


def largest_step(chunk: int, num_sequences: int, vocab_size: int) -> StepBatch:
    """A prefill of `chunk` tokens beside `num_sequences - 1` decodes, all sampled with top-p."""
    num_decodes = num_sequences - 1
    num_rows = num_decodes + chunk
    lengths = np.array([1] * num_decodes + [chunk], np.int32)
    tables = np.zeros((num_sequences, -(-chunk // PAGE_SIZE)), np.int32)
    tables[-1] = np.arange(1, tables.shape[1] + 1)
    positions = np.concatenate((np.zeros(num_decodes, np.int64), np.arange(chunk)))
    slots = np.concatenate((np.zeros(num_decodes, np.int64), np.arange(chunk) + PAGE_SIZE))
    starts = np.concatenate((np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)))
    return StepBatch(
        token_ids=np.arange(num_rows, dtype=np.int64) % vocab_size,
        previous_rows=np.full(num_rows, -1, np.int32),
        positions=positions,
        slots=slots,
        query_starts=starts,
        context_lengths=lengths,
        page_tables=tables,
        sample_rows=starts[1:] - 1,
        sampling=_top_p(num_sequences),
        page_copies=EMPTY_STEP.page_copies,
    )


def _speculating(step: StepBatch, shape: DraftShape) -> SpeculationBatch:
    """Every decode verifies drafts, as far as the runner is concerned, and all make new ones."""
    count = len(step.context_lengths)
    none = np.zeros(count, np.int32)
    return SpeculationBatch(
        num_decodes=count - 1,
        num_pages=-(-step.context_lengths // PAGE_SIZE),
        chain_starts=np.arange(count + 1, dtype=np.int32),
        continued=none - 1,
        num_drafts=none,
        next_ids=np.append(step.token_ids[1:], -1),
        num_steps=shape.num_steps,
        drafts=np.ones(count, np.bool_),
        tree=TreeBatch(np.zeros_like(step.previous_rows), shape.topk, shape.num_drafts) if shape.is_tree else None,
    )


def _top_p(count: int) -> SamplingBatch:
    def full(value: float, dtype: Any) -> Any:
        return np.full(count, value, dtype)

    none = EMPTY_STEP.sampling
    return SamplingBatch(
        temperature=full(1, np.float32), top_p=full(0.9, np.float32), top_k=full(0, np.int32),
        min_p=full(0, np.float32), seed=full(0, np.int64), position=full(0, np.int64),
        frequency_penalty=full(0, np.float32), presence_penalty=full(0, np.float32),
        repetition_penalty=full(1, np.float32), num_logprobs=full(-1, np.int32),
        bias_rows=none.bias_rows, bias_ids=none.bias_ids, bias_values=none.bias_values,
        seen_rows=none.seen_rows, seen_ids=none.seen_ids,
        seen_prompt_counts=none.seen_prompt_counts, seen_output_counts=none.seen_output_counts,
        banned_rows=none.banned_rows, banned_ids=none.banned_ids,
    )  # fmt: skip
