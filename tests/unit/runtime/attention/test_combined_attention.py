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

    def __init__(self, name: str, noted: list[str]) -> None:
        self._name, self._noted = name, noted

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
