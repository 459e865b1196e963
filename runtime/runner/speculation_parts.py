"""What a runner on a device needs to speculate: the head over pages of its own, who attends where, and what is drafted."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from runtime.attention.beside import Beside
from runtime.attention.device import DevicePlan, DeviceTables, SequenceTables
from runtime.attention.shared_prefixes import SharedPrefixes
from runtime.attention.verifying import VerifyAttention
from runtime.batch import Int32
from runtime.draft_shape import DraftShape
from runtime.runner.chains import ChainArithmetic
from runtime.speculative.fused import FusedHead


class ChunkAttention(Protocol):
    """Attention of prompts' chunks beside sequences that verify."""

    @property
    def beside(self) -> Beside:
        """How chunks run beside those."""
        ...

    def plan_chunks(self, host: SequenceTables, device: DeviceTables) -> DevicePlan:
        """For the sequences from `host.num_decodes` on."""
        ...


class DecodeAttention(Protocol):
    """Attention of single rows."""

    def plan_capture(self, device: DeviceTables, num_sequences: int) -> DevicePlan:
        """For one row of each sequence, its lengths read on the device."""
        ...


class TargetAttention(DecodeAttention, Protocol):
    """The same of the target, whose sequences may begin alike; see `DeviceAttention`."""

    def share(self, page_tables: Int32, context_lengths: Int32) -> SharedPrefixes | None:
        """Groups of sequences, if it pays to read what they have in common once."""
        ...

    def plan_shared(self, device: DeviceTables, num_sequences: int) -> DevicePlan | None:
        """As `plan_capture`, for steps with groups. None: there are none with so many sequences."""
        ...


@dataclass(frozen=True, slots=True)
class SpeculationAttention:
    """Who attends where."""

    target_rows: VerifyAttention
    target_decodes: TargetAttention
    target_chunks: ChunkAttention
    head: DecodeAttention
    """Over the head's pages."""
    head_rows: VerifyAttention | None = None
    """The same of several rows a sequence, where drafts are trees."""


@dataclass(frozen=True, slots=True)
class SpeculationParts:
    """What a runner needs to speculate."""

    head: FusedHead
    head_pages: Tensor
    attention: SpeculationAttention
    chains: ChainArithmetic
    levels: tuple[int, ...]
    """Ascending, from 0."""
    shape: DraftShape
