"""FlashInfer's functions acted out in torch on a CPU, with a device that runs behind the host.

Whatever a real function enqueues waits in a queue here, copies out of staging memory included, until somebody waits for
an event or drains the queue. So an argument in the wrong place gives wrong results, and staging memory that is written
too early gives those of another step.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from runtime.errors import KernelMissing
from runtime.kernels.launching import POINTER_ALIGNMENT, Argument, Constant, Options

_TABLES = 3
_TILE_TOKENS = 128


class FakeEvent:
    """An event of a `FakeDevice`."""

    def __init__(self, device: "FakeDevice") -> None:
        self._device = device
        self._has_run = True

    def record(self) -> None:
        self._has_run = False
        self._device.enqueue(self._mark)

    def synchronize(self) -> None:
        while not self._has_run:
            self._device.run_one()

    def _mark(self) -> None:
        self._has_run = True


class FakeDevice:
    """A stream of work that runs when it is waited for."""

    def __init__(self) -> None:
        self._queue: deque[Callable[[], None]] = deque()

    def enqueue(self, work: Callable[[], None]) -> None:
        self._queue.append(work)

    def run_one(self) -> None:
        self._queue.popleft()()

    def drain(self) -> None:
        while self._queue:
            self.run_one()

    def new_event(self) -> FakeEvent:
        return FakeEvent(self)


class FakeLibraries:
    """FlashInfer's libraries; `names` are those asked for, `missing` those that do not exist."""

    def __init__(self, device: FakeDevice, *, missing: str = "") -> None:
        self.names: list[str] = []
        self.descriptions: list[list[int]] = []
        """What `plan` gives next, one list a call; by default one that follows from the number of sequences."""
        self.planned_starts: list[list[int]] = []
        """Where contexts begin, of each plan: pages, or tokens of gathered contexts."""
        self._device = device
        self._missing = missing

    def function(self, library: str, name: str) -> Callable[..., Any]:
        if library == self._missing:
            raise KernelMissing(library)
        self.names.append(library)
        algorithm = library.split("_")[0]
        functions: dict[tuple[str, str], Callable[..., Any]] = {
            ("fa2", "plan"): self._plan_fa2,
            ("fa3", "plan"): self._plan_fa3,
            ("fa2", "paged_run"): self._run_fa2,
            ("fa3", "paged_run"): self._run_fa3,
            ("fa3", "ragged_run"): self._run_gathered,
            ("xqa", "xqa_wrapper"): self._run_xqa,
        }
        return functions[algorithm, name]

    def _plan_fa2(self, *args: Any) -> list[int]:
        *shared, split_size, disable_split, num_colocated = args
        assert (split_size, disable_split, num_colocated) == (-1, False, 0)
        return self._plan_fa3(*shared)

    def _plan_fa3(
        self, partial: Tensor, device_buffer: Tensor, staging: Tensor, query_starts: Tensor, page_starts: Tensor,
        context_lengths: Tensor, num_rows: int, num_sequences: int, num_heads: int, num_kv_heads: int, page_size: int,
        captured: bool, head_dim: int, head_dim_v: int, causal: bool, window_left: int,
    ) -> list[int]:  # fmt: skip
        assert len(context_lengths) == num_sequences == len(query_starts) - 1 == len(page_starts) - 1
        assert num_rows == int(query_starts[-1] - query_starts[0])
        assert page_size == 16
        assert head_dim == head_dim_v
        self.planned_starts.append(page_starts.tolist())
        words = torch.cat((torch.tensor([num_sequences]), query_starts, page_starts, context_lengths)).int()
        staging.view(torch.int32)[: len(words)] = words
        self._device.enqueue(lambda: device_buffer[: 4 * len(words)].copy_(staging[: 4 * len(words)]))
        if self.descriptions:
            return self.descriptions.pop(0)
        return [num_sequences, num_heads // num_kv_heads, int(captured), int(causal), window_left]

    def _run_fa2(self, *args: Any) -> None:
        assert args[16:] == (*[None] * 8, 0.0, args[3].shape[2] ** -0.5, 1.0, 1e-4, 0)
        self._run_paged(*args[:16], from_plan=False)

    def _run_fa3(self, *args: Any) -> None:
        assert args[16:] == (*[None] * 4, 0.0, args[3].shape[2] ** -0.5, 1.0, 0)
        self._run_paged(*args[:16], from_plan=True)

    def _run_paged(
        self, partial: Tensor, device_buffer: Tensor, description: list[int], query: Tensor, keys: Tensor,
        values: Tensor, query_starts: Tensor, page_starts: Tensor, page_ids: Tensor, last_page_lengths: Tensor,
        out: Tensor, lse: None, mask: int, layout: int, window_left: int, pdl: bool, *, from_plan: bool,
    ) -> None:  # fmt: skip
        count, group, _, causal, planned_window = description
        assert (mask, layout, window_left) == (causal, 0, planned_window)
        assert group == query.shape[1] // keys.shape[2]

        def run() -> None:
            words = device_buffer.view(torch.int32)
            assert int(words[0]) == count, "the plan was overwritten"
            planned = words[1 : 3 + _TABLES * count].split((count + 1, count + 1, count))
            lengths = (page_starts.diff() - 1) * 16 + last_page_lengths
            if not from_plan:  # FA2 reads the tables; its plan must be of the same sequences, with rows from 0
                assert int(query_starts[0]) == 0
                assert all(map(torch.equal, planned, (query_starts, page_starts, lengths)))
            rows, pages, contexts = planned
            for i in range(count):
                table = page_ids[int(pages[i]) : int(pages[i + 1])]
                where = slice(int(rows[i]), int(rows[i + 1]))
                attend_one(query[where], keys, values, table, int(contexts[i]), window_left, out[where])

        self._device.enqueue(run)

    def _run_gathered(
        self, partial: Tensor, device_buffer: Tensor, description: list[int], query: Tensor, keys: Tensor,
        values: Tensor, query_starts: Tensor, unread: Tensor, out: Tensor, lse: None, mask: int, layout: int,
        window_left: int, pdl: bool, *tail: Any,
    ) -> None:  # fmt: skip
        assert tail == (*[None] * 4, 0.0, query.shape[2] ** -0.5, 1.0, 0)
        count, group, _, causal, planned_window = description
        assert (mask, layout, window_left) == (causal, 0, planned_window)
        assert group == query.shape[1] // keys.shape[1]

        def run() -> None:
            words = device_buffer.view(torch.int32)
            assert int(words[0]) == count, "the plan was overwritten"
            rows, starts, contexts = words[1 : 3 + _TABLES * count].split((count + 1, count + 1, count))
            for i in range(count):
                where = slice(int(rows[i]), int(rows[i + 1]))
                tiles = -(-int(contexts[i]) // _TILE_TOKENS) * _TILE_TOKENS
                run = slice(int(starts[i]), int(starts[i]) + tiles)
                whole = [x[run].unflatten(0, (-1, 16)) for x in (keys, values)]
                assert all(bool(x.isfinite().all()) for x in whole), "a tile that is read holds what is not finite"
                table = torch.arange(tiles // 16)
                attend_one(query[where], *whole, table, int(contexts[i]), window_left, out[where])

        self._device.enqueue(run)

    def _run_xqa(self, *args: Any) -> None:
        (fp8, _num_sms, num_kv_heads, window, q_scale, q_scales, out, out_scale, query, sinks, keys, values, k_scales,
         v_scales, block_tables, max_length, lengths, count, kv_scale, kv_scales, num_queries, mask, semaphores, _scratch,
         _pdl) = args  # fmt: skip
        assert (fp8, q_scale, out_scale, kv_scale, num_queries) == (False, 1.0, 1.0, 1.0, 1)
        assert (q_scales, sinks, k_scales, v_scales, kv_scales, mask) == (None,) * 6
        assert max_length == 16 * block_tables.shape[1]
        assert block_tables.is_contiguous()
        assert count == len(query) == len(block_tables) == len(lengths)
        assert num_kv_heads == keys.shape[2]
        assert len(semaphores) >= count * num_kv_heads

        def run() -> None:
            for i in range(count):
                context = int(lengths[i])
                table = block_tables[i, : -(-context // 16)]
                attend_one(query[i : i + 1], keys, values, table, context, window - 1, out[i : i + 1])

        self._device.enqueue(run)


class FakeLauncher:
    """A launcher whose only kernel gathers contexts, in torch."""

    def __init__(self, device: FakeDevice) -> None:
        self._device = device

    def launch(
        self, kernel: str, grid: tuple[int, int, int], arguments: Sequence[Argument], constants: Mapping[str, Constant],
        options: Options,
    ) -> None:  # fmt: skip
        """See `Launcher.launch`."""
        assert kernel == "contexts.gather"
        assert not any(x.data_ptr() % POINTER_ALIGNMENT for x in arguments if isinstance(x, Tensor)), "not aligned"
        self._device.enqueue(
            lambda: gather(grid[0], *arguments, gap_pages=constants["GAP_PAGES"], scaled=constants["SCALED"])
        )


def gather(num_pages: int, *arguments: Any, gap_pages: Any, scaled: Any = False) -> None:
    """What `runtime.kernels.triton.contexts.gather` does."""
    key_pages, value_pages, scales, lengths, starts, ids, keys, values, first, count = arguments
    for place, (pages, run) in enumerate(((key_pages, keys), (value_pages, values))):
        run[: 16 * num_pages] = 0
        for i in range(first, first + count):
            begin = 16 * (int(starts[i] - starts[first]) + (i - first) * gap_pages)
            table = ids[int(starts[i]) : int(starts[i + 1])].long()
            found = pages[table].flatten(0, 1)[: int(lengths[i])]
            run[begin : begin + int(lengths[i])] = found.float() * scales[place] if scaled else found


def attend_one(
    query: Tensor, keys: Tensor, values: Tensor, table: Tensor, context: int, window_left: int, out: Tensor
) -> None:
    """Causal attention of one sequence's last rows, written out."""
    pages = table.long()
    key = keys[pages].flatten(0, 1)[:context].repeat_interleave(query.shape[1] // keys.shape[2], dim=1)
    value = values[pages].flatten(0, 1)[:context].repeat_interleave(query.shape[1] // keys.shape[2], dim=1)
    scores = torch.einsum("qhd,khd->hqk", query.float(), key.float()) * query.shape[2] ** -0.5
    position = torch.arange(context - len(query), context)[:, None]
    distance = position - torch.arange(context)[None, :]
    hidden = (distance < 0) | (
        (distance > window_left) if window_left >= 0 else torch.zeros_like(distance, dtype=torch.bool)
    )
    weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
    out.copy_(torch.einsum("hqk,khd->qhd", weights, value.float()))
