"""Which parts of a step go to whom, and which of them run beside each other."""

from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from runtime.attention.beside import OneByOne, Work
from runtime.attention.combined import CombinedAttention
from runtime.attention.device import DeviceTables, SequenceTables
from runtime.attention.flashinfer.attention import FlashInferAttention
from runtime.attention.triton import TritonAttention
from tests.support.attention_steps import device_tables, host_tables

CPU = torch.device("cpu")


class NotingPart:
    """Stands for either attention, and notes what it is asked for."""

    def __init__(self, name: str, noted: list[str], *, takes_chunks: bool = True) -> None:
        self._name, self._noted, self._takes_chunks = name, noted, takes_chunks

    def takes_chunks(self, host: SequenceTables) -> bool:
        return self._takes_chunks

    def plan(self, host: SequenceTables, device: DeviceTables) -> "NotingPart":
        return NotingPart(f"all by {self._name}", self._noted)

    def plan_decodes(self, host: SequenceTables, device: DeviceTables) -> "NotingPart":
        return self

    def plan_chunks(self, host: SequenceTables, device: DeviceTables) -> "NotingPart":
        return self

    def attend(self, layer: int, query: Tensor, out: Tensor) -> None:
        self._noted.append(f"{self._name} {layer}")


class NotingBeside(OneByOne):
    """Notes where two pieces of work begin that run beside each other."""

    def __init__(self, noted: list[str]) -> None:
        self._noted = noted

    def run(self, first: Work, second: Work) -> None:
        self._noted.append("beside")
        super().run(first, second)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([(7, 1), (3, 1)], ["decodes 2"]),
        ([(9, 9), (20, 4)], ["chunks 2"]),
        ([(7, 1), (9, 9)], ["beside", "chunks 2", "decodes 2"]),
    ],
    ids=["decodes", "chunks", "both"],
)
def test_only_a_step_with_both_runs_them_beside_each_other(lengths: list[tuple[int, int]], expected: list[str]) -> None:
    """Chunks first: they are few, and what is left of the device is enough for reading."""
    noted: list[str] = []
    attention = CombinedAttention(
        cast(TritonAttention, NotingPart("decodes", noted)),
        cast(FlashInferAttention, NotingPart("chunks", noted)),
        NotingBeside(noted),
    )
    plan = attention.plan(host_tables(lengths, np.arange(1, 20)), device_tables(4, 20, CPU))
    plan.attend(2, torch.empty(0), torch.empty(0))
    assert noted == expected


@pytest.mark.parametrize("lengths", [[(9, 9), (20, 4)], [(7, 1), (9, 9)]], ids=["chunks", "both"])
def test_a_step_whose_chunks_are_not_taken_is_our_own_kernels_as_a_whole(lengths: list[tuple[int, int]]) -> None:
    """And of a step that verifies drafts the chunks are."""
    noted: list[str] = []
    attention = CombinedAttention(
        cast(TritonAttention, NotingPart("decodes", noted)),
        cast(FlashInferAttention, NotingPart("chunks", noted, takes_chunks=False)),
        NotingBeside(noted),
    )
    step = host_tables(lengths, np.arange(1, 20)), device_tables(4, 20, CPU)
    attention.plan(*step).attend(2, torch.empty(0), torch.empty(0))
    attention.plan_chunks(*step).attend(3, torch.empty(0), torch.empty(0))
    assert noted == ["all by decodes 2", "decodes 3"]
