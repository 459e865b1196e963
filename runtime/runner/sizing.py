"""Finds out by trial what steps and graphs need, before the KV cache takes the rest of the GPU's memory.

The trial is a runner over a small cache: it captures its largest graphs and runs the largest step there can be, a full
prefill chunk beside as many decodes as may run, all of them sampled in the way that takes the most memory. Where a context may
not be as long as the chunk, it is of several prompts: nothing here is larger than what the runner was built for.
"""

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from runtime.batch import Int32, SamplingBatch, SpeculationBatch, StepBatch, TreeBatch
from runtime.draft_shape import NO_DRAFTS, DraftShape
from runtime.identifiers import PAGE_SIZE
from runtime.runner.device_runner import DeviceRunner
from runtime.runner.step_buffers import RunnerLimits
from runtime.runner.step_inputs import EMPTY_STEP


def measure_step_bytes(
    build: Callable[[int], DeviceRunner], limits: RunnerLimits, context_length: int, shape: DraftShape = NO_DRAFTS
) -> int:
    """Bytes of the GPU that a runner takes beyond its cache and the weights, which are loaded already.

    Args:
        build: makes a runner over a cache of so many pages.
        context_length: of the longest sequence.
        shape: of the drafts that it makes and verifies.
    """
    chunk = limits.max_rows - limits.max_samples
    step = largest_step(chunk, limits.max_sequences, context_length, shape)
    torch.cuda.empty_cache()
    free_before, _ = torch.cuda.mem_get_info()
    runner = build(int(step.page_tables.max()) + 1)
    runner.capture_graphs(largest_only=True)
    for _ in range(2):
        runner.launch(step).result()
    torch.cuda.synchronize()
    free_after, _ = torch.cuda.mem_get_info()
    cache_bytes = runner.pages.numel() * runner.pages.element_size()
    del runner
    gc.collect()
    torch.cuda.empty_cache()
    return max(0, free_before - free_after - cache_bytes)


def largest_step(chunk: int, num_sequences: int, context_length: int, shape: DraftShape = NO_DRAFTS) -> StepBatch:
    """A prefill of `chunk` tokens, of as few prompts as it takes, beside decodes, all sampled with top-p.

    Fewer tokens, where so many sequences hold no more. All tokens are 0; decodes have one, on page 0.
    """
    prompts = np.full(min(-(-chunk // context_length), num_sequences), context_length, np.int32)
    prompts[-1] = min(chunk - context_length * (len(prompts) - 1), context_length)
    num_decodes = num_sequences - len(prompts)
    lengths = np.concatenate((np.ones(num_decodes, np.int32), prompts))
    num_pages = -(-prompts // PAGE_SIZE)
    firsts = 1 + np.cumsum(num_pages) - num_pages
    tables = np.zeros((num_sequences, int(num_pages.max())), np.int32)
    for table, first, count in zip(tables[num_decodes:], firsts.tolist(), num_pages.tolist(), strict=True):
        table[:count] = np.arange(first, first + count)
    starts = np.concatenate((np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)))
    num_rows = int(starts[-1])
    positions = np.arange(num_rows, dtype=np.int64) - np.repeat(starts[:-1], lengths)
    pages = np.repeat(np.concatenate((np.zeros(num_decodes, np.int64), firsts)), lengths)
    return StepBatch(
        token_ids=np.zeros(num_rows, np.int64),
        previous_rows=np.full(num_rows, -1, np.int32),
        positions=positions,
        slots=pages * PAGE_SIZE + positions,
        query_starts=starts,
        context_lengths=lengths,
        page_tables=tables,
        sample_rows=starts[1:] - 1,
        sampling=_top_p(num_sequences),
        page_copies=EMPTY_STEP.page_copies,
        speculation=_speculating(num_decodes, lengths, shape) if shape.num_steps else None,
    )


def _speculating(num_decodes: int, lengths: Int32, shape: DraftShape) -> SpeculationBatch:
    """Every decode verifies drafts, as far as the runner is concerned, and all make new ones."""
    count, num_rows = len(lengths), int(lengths.sum())
    none = np.zeros(count, np.int32)
    return SpeculationBatch(
        num_decodes=num_decodes,
        num_pages=-(-lengths // PAGE_SIZE),
        chain_starts=np.arange(count + 1, dtype=np.int32),
        continued=none - 1,
        num_drafts=none,
        next_ids=np.zeros(num_rows, np.int64),
        num_steps=shape.num_steps,
        drafts=np.ones(count, np.bool_),
        tree=TreeBatch(np.zeros(num_rows, np.int32), shape.topk, shape.num_drafts) if shape.is_tree else None,
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
