"""Sums over ranks and logits put together, by kernels that read the other ranks' memory. See `runtime.kernels.triton.ranks`."""

from dataclasses import dataclass

from torch import Tensor

from runtime.kernels.launching import Launcher, Options

MAX_PROGRAMS = 128
"""Fewer than an H100's multiprocessors: all of them wait at the same time."""
_SMALL_BLOCK, _BLOCK = 1024, 4096
_UNIT = 8
"""Elements that a thread reads at once: 16 bytes."""

_SLICED_FROM = 1 << 19
"""Elements from which reading less is worth a second meeting; with two ranks it never is."""


@dataclass(frozen=True, slots=True)
class Meeting:
    """Where the programs of all ranks meet."""

    flags: Tensor
    """[ranks] int64: addresses of each rank's [MAX_PROGRAMS, ranks] int32."""
    counts: Tensor
    """[MAX_PROGRAMS] int32: of this rank's meetings."""
    rank: int

    @property
    def num_ranks(self) -> int:
        """How many meet."""
        return len(self.flags)


def add_sum(hidden: Tensor, parts: Tensor, meeting: Meeting, *, launcher: Launcher, pdl: bool = False) -> None:
    """hidden += the sum of all ranks' parts, in float32 and rounded once; the same bits on every rank.

    Args:
        hidden: [rows, dim], contiguous, bf16 or fp16; dim a multiple of 8.
        parts: [ranks] int64: addresses of as much, of the same dtype; 16-byte aligned.
    Capture-safe.
    """
    size, kernel = hidden.numel(), "ranks.add_sum"
    assert size % _UNIT == 0
    assert size < 1 << 31
    if meeting.num_ranks > 2 and size >= _SLICED_FROM and size % (_UNIT * meeting.num_ranks) == 0:
        size, kernel = size // meeting.num_ranks, "ranks.add_sum_by_slices"
    block = _SMALL_BLOCK if size <= MAX_PROGRAMS * _SMALL_BLOCK else _BLOCK
    launcher.launch(
        kernel,
        (min(MAX_PROGRAMS, -(-size // block)), 1, 1),
        (hidden, parts, meeting.flags, meeting.counts, meeting.rank, size // _UNIT),
        {"UNIT": _UNIT, "RANKS": meeting.num_ranks, "BLOCK": block, "PDL": pdl},
        Options(num_warps=block // 256 if block == _SMALL_BLOCK else 8, launch_pdl=pdl),
    )


def join(out: Tensor, parts: Tensor, meeting: Meeting, *, launcher: Launcher, pdl: bool = False) -> None:
    """out = all ranks' parts side by side.

    Args:
        out: [rows, ranks * width], contiguous; width a multiple of 8.
        parts: [ranks] int64: addresses of [rows, width] of the same dtype; 16-byte aligned.
    Capture-safe.
    """
    rows, columns = out.shape
    width = columns // meeting.num_ranks
    assert width % _UNIT == 0
    assert out.numel() < 1 << 31
    launcher.launch(
        "ranks.join",
        (min(MAX_PROGRAMS, rows * -(-width // _BLOCK)), 1, 1),
        (out, parts, meeting.flags, meeting.counts, meeting.rank, rows),
        {"WIDTH": width, "RANKS": meeting.num_ranks, "BLOCK": _BLOCK, "PDL": pdl},
        Options(num_warps=8, launch_pdl=pdl),
    )
