"""Attention on a device by plain torch, one sequence after the other: the judge of `DeviceAttention`s, and their stand-in."""

from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch
from torch import Tensor

from runtime.attention.beside import Beside, OneByOne
from runtime.attention.device import DeviceTables, SequenceTables
from runtime.attention.shared_prefixes import MEMBERS, SharedPrefixes, find_shared_prefixes
from runtime.attention.verifying import TreeRows
from runtime.batch import Int32
from runtime.identifiers import PAGE_SIZE


@dataclass
class PlainPlan:
    """Attends by the tables of the host, as they were last refreshed."""

    pages: Tensor
    windows: tuple[int | None, ...]
    scales: Tensor | None = None
    tables: SequenceTables | None = None
    num_refreshed: int = 0

    def attend(self, layer: int, query: Tensor, out: Tensor) -> None:
        """See `DevicePlan.attend`."""
        assert self.tables is not None
        tables = self.tables
        for index, length in enumerate(tables.context_lengths.tolist()):
            rows = slice(int(tables.query_starts[index]), int(tables.query_starts[index + 1]))
            ids = tables.page_ids[tables.page_starts[index] : tables.page_starts[index + 1]]
            out[rows] = attend_sequence(
                query[rows],
                self.pages[layer],
                torch.from_numpy(ids).to(query.device),
                length,
                self.windows[layer],
                None if self.scales is None else self.scales[layer],
            )


@dataclass
class PlainAttention:
    """See `DeviceAttention`."""

    pages: Tensor
    windows: tuple[int | None, ...]
    scales: Tensor | None = None
    plans: list[PlainPlan] = field(default_factory=list)

    def plan(self, host: SequenceTables, device: DeviceTables) -> PlainPlan:
        """See `DeviceAttention.plan`."""
        return PlainPlan(self.pages, self.windows, self.scales, host)

    def plan_capture(self, device: DeviceTables, num_sequences: int) -> PlainPlan:
        """See `DeviceAttention.plan_capture`."""
        self.plans.append(PlainPlan(self.pages, self.windows, self.scales))
        return self.plans[-1]

    def share(self, page_tables: Int32, context_lengths: Int32) -> None:
        """See `DeviceAttention.share`."""

    def plan_shared(self, device: DeviceTables, num_sequences: int) -> None:
        """See `DeviceAttention.plan_shared`."""

    def refresh(self, plan: PlainPlan, host: SequenceTables) -> None:
        """See `DeviceAttention.refresh`."""
        plan.tables = host
        plan.num_refreshed += 1


@dataclass
class DeviceTablesPlan:
    """Attends by the tables of the device, as a kernel in a captured graph does."""

    attention: "DeviceTablesAttention"
    device: DeviceTables
    sequences: range
    first_row: int
    num_queries: int | None
    """Of each sequence; None: as the tables say."""

    def attend(self, layer: int, query: Tensor, out: Tensor) -> None:
        """See `DevicePlan.attend`."""
        given, first = self.attention, self.first_row
        scales = None if given.scales is None else given.scales[layer]
        for index in self.sequences:
            count = self.num_queries
            if count is None:
                count = int(self.device.query_starts[index + 1] - self.device.query_starts[index])
            length = int(self.device.context_lengths[index])
            start = int(self.device.page_starts[index])
            # Of a sequence that has ended more may be asked than it has pages for: the rest is not read.
            num_pages = -(-length // PAGE_SIZE)
            end = int(self.device.page_starts[index + 1]) if given.knows_ends else start + num_pages
            ids = torch.nn.functional.pad(self.device.page_ids[start : min(end, start + num_pages)], (0, num_pages))
            pages = given.pages[layer].index_select(0, ids.long())
            pages[max(0, end - start) :] = 0
            out[first : first + count] = attend_sequence(
                query[first : first + count], pages, torch.arange(len(ids)), length, given.windows[layer], scales
            )
            first += count


@dataclass
class GroupedPlan:
    """Attends for one row of each sequence, what a group has in common by the pages of its first member."""

    attention: "DeviceTablesAttention"
    device: DeviceTables
    num_sequences: int

    def attend(self, layer: int, query: Tensor, out: Tensor) -> None:
        """See `DevicePlan.attend`."""
        given, device, shared = self.attention, self.device, self.device.shared
        assert shared is not None
        own = [int(device.page_starts[index]) for index in range(self.num_sequences + 1)]
        tables = [device.page_ids[start:end].clone() for start, end in pairwise(own)]
        for group, tokens in enumerate(shared.group_tokens.tolist()):
            members = [each for each in shared.group_members[group * MEMBERS :][:MEMBERS].tolist() if each >= 0]
            assert bool(members) == bool(tokens)
            for member in members:
                assert int(shared.tokens[member]) == tokens < int(device.context_lengths[member])
                tables[member][: tokens // PAGE_SIZE] = tables[members[0]][: tokens // PAGE_SIZE]
        for index in range(self.num_sequences):
            length = int(device.context_lengths[index])
            out[index : index + 1] = attend_sequence(
                query[index : index + 1],
                given.pages[layer],
                tables[index][: -(-length // PAGE_SIZE)],
                length,
                given.windows[layer],
                None if given.scales is None else given.scales[layer],
            )
        given.num_grouped += 1


@dataclass
class TreeTablesPlan:
    """Attends over each row's own path, gathered token by token from the words of the device."""

    attention: "DeviceTablesAttention"
    device: DeviceTables
    tree: TreeRows
    num_sequences: int
    num_queries: int

    def attend(self, layer: int, query: Tensor, out: Tensor) -> None:
        """See `DevicePlan.attend`."""
        given, tree = self.attention, self.tree
        for row in range(self.num_sequences * self.num_queries):
            sequence = row // self.num_queries
            base, end = int(tree.bases[sequence]), int(tree.ends[sequence])
            words = tree.words[row].tolist()
            seen = [at for at in range(32 * len(words)) if words[at // 32] >> (at % 32) & 1]
            places = [*range(min(base, end)), *(base + at for at in seen if base + at < end)]
            if not places:
                out[row] = 0
                continue
            length = len(places)
            ids = self.device.page_ids[int(self.device.page_starts[sequence]) :][: -(-end // PAGE_SIZE)].long()
            own = given.pages[layer][ids].transpose(0, 1).flatten(1, 2)[:, places]
            padded = torch.zeros(2, -(-length // PAGE_SIZE) * PAGE_SIZE, *own.shape[2:], dtype=own.dtype)
            if own.dtype == torch.float8_e4m3fn:
                padded.view(torch.uint8)[:, :length] = own.view(torch.uint8)
            else:
                padded[:, :length] = own
            pages = padded.unflatten(1, (-1, PAGE_SIZE)).transpose(0, 1)
            scales = None if given.scales is None else given.scales[layer]
            path = attend_sequence(
                query[row : row + 1], pages, torch.arange(len(pages)), length, given.windows[layer], scales
            )
            out[row] = path[0]


@dataclass
class DeviceTablesAttention:
    """See `runtime.runner.speculation_parts.TargetAttention`, and `VerifyAttention`."""

    pages: Tensor
    windows: tuple[int | None, ...]
    scales: Tensor | None = None
    knows_ends: bool = True
    """Whether a sequence's pages end where the next one's begin; not so where chains pick their sequences."""
    beside: Beside = field(default_factory=OneByOne)
    shares: bool = False
    """Whether beginnings that several sequences have in common are read once."""
    num_grouped: int = 0
    """How often that was done, each layer counted."""

    def plan(
        self, device: DeviceTables, num_sequences: int, num_queries: int, tree: TreeRows | None = None
    ) -> "DeviceTablesPlan | TreeTablesPlan":
        """See `VerifyAttention.plan`."""
        if tree is not None:
            return TreeTablesPlan(self, device, tree, num_sequences, num_queries)
        return DeviceTablesPlan(self, device, range(num_sequences), 0, num_queries)

    def plan_capture(self, device: DeviceTables, num_sequences: int) -> DeviceTablesPlan:
        """See `DecodeAttention.plan_capture`."""
        return DeviceTablesPlan(replace(self, knows_ends=False), device, range(num_sequences), 0, 1)

    def share(self, page_tables: Int32, context_lengths: Int32) -> SharedPrefixes | None:
        """See `TargetAttention.share`."""
        return find_shared_prefixes(page_tables, context_lengths) if self.shares else None

    def plan_shared(self, device: DeviceTables, num_sequences: int) -> GroupedPlan | None:
        """See `TargetAttention.plan_shared`."""
        return GroupedPlan(self, device, num_sequences) if self.shares else None

    def plan_chunks(self, host: SequenceTables, device: DeviceTables) -> DeviceTablesPlan:
        """See `ChunkAttention.plan_chunks`."""
        sequences = range(host.num_decodes, len(host.context_lengths))
        return DeviceTablesPlan(self, device, sequences, int(host.query_starts[host.num_decodes]), None)


def attend_sequence(
    query: Tensor, layer_pages: Tensor, page_ids: Tensor, length: int, window: int | None, scales: Tensor | None = None
) -> Tensor:
    """One sequence's queries over its pages, in float32.

    Args:
        query: [n, num_heads, head_dim], at positions length - n … length - 1.
        layer_pages: [num_pages, 2, PAGE_SIZE, num_kv_heads, head_dim].
        scales: of keys and values, where pages are e4m3.
    """
    own = layer_pages[page_ids.long()]
    key, value = (own[:, part].reshape(-1, *own.shape[-2:])[:length].float() for part in (0, 1))
    if scales is not None:
        key, value = key * scales[0], value * scales[1]
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    scores = torch.einsum("qhd,khd->hqk", query.float(), key) * query.shape[-1] ** -0.5
    at = torch.arange(length - len(query), length, device=query.device)[:, None]
    seen = torch.arange(length, device=query.device)[None, :]
    hidden = seen > at
    if window is not None:
        hidden |= seen <= at - window
    probabilities = scores.masked_fill(hidden, -torch.inf).softmax(-1)
    assert len(page_ids) * PAGE_SIZE >= length
    return torch.einsum("hqk,khd->qhd", probabilities, value).to(query.dtype)
