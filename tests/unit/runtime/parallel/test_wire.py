"""A step comes over the wire as it was, with everything that it may hold."""

from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

from runtime.batch import LateEntries, SpeculationBatch, StepBatch, TreeBatch
from runtime.parallel.wire import decode_step, encode_step
from runtime.runner.sizing import largest_step

STEP = replace(largest_step(40, 5, 1000), token_ids=np.arange(44))


def assert_same(given: Any, expected: Any) -> None:
    assert type(given) is type(expected)
    if is_dataclass(expected):
        for field in fields(expected):
            assert_same(getattr(given, field.name), getattr(expected, field.name))
    elif isinstance(expected, np.ndarray):
        assert (given.dtype, given.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(given, expected)
        assert given.flags.writeable
    else:
        assert given == expected


def speculation(**changes: Any) -> SpeculationBatch:
    count = len(STEP.context_lengths)
    numbers = np.arange(count, dtype=np.int32)
    return SpeculationBatch(
        num_decodes=count - 1,
        num_pages=numbers + 1,
        chain_starts=np.arange(count + 1, dtype=np.int32),
        continued=numbers - 1,
        num_drafts=numbers,
        next_ids=np.arange(len(STEP.token_ids)) - 1,
        num_steps=3,
        drafts=numbers % 2 == 0,
        **changes,
    )


def steps() -> list[StepBatch]:
    sampling = replace(
        STEP.sampling,
        seed=np.arange(5) << 40,
        allowed_rows=np.array([1, 3], np.int32),
        allowed_bits=np.arange(64, dtype=np.int32).reshape(2, 32),
    )
    late = LateEntries(np.array([7], np.int32), np.array([1 << 35]), np.array([160]))
    tree = TreeBatch(np.zeros(len(STEP.token_ids), np.int32), topk=4, num_drafts=6)
    return [
        STEP,
        replace(STEP, sampling=sampling, page_copies=np.array([[1, 2], [3, 4]], np.int32)),
        replace(STEP, speculation=speculation()),
        replace(STEP, speculation=speculation(tree=tree, late=late, deferred=np.full(44, -1, np.int32))),
        replace(STEP, speculation=speculation(first_pages=np.arange(5, dtype=np.int32))),
    ]


def test_a_step_is_the_same_on_the_other_side() -> None:
    """Types, shapes and values; the runner may write to what it gets."""
    for step in steps():
        assert_same(decode_step(encode_step(step)), step)
