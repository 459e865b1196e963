"""Ranks of one engine as threads of a test: the first one's runner, whose steps the others compute as well."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from runtime.batch import ModelRunner
from runtime.parallel.channel import Channel, open_channels
from runtime.parallel.device_group import Sum
from runtime.parallel.following import follow
from runtime.parallel.host_group import HostGroup
from runtime.parallel.leading import LeadingRunner
from runtime.weights.config import ModelConfig


class HostDeviceGroup:
    """See `DeviceGroup`; on a CPU, by `HostGroup`. Parts are kept apart as on a GPU, where each has its place."""

    def __init__(self, channel: Channel, config: ModelConfig) -> None:
        self.share = channel.share
        self._group = HostGroup(channel)
        self._width = config.vocab_size // channel.share.size
        self._size = config.hidden_size
        self._parts: dict[Sum, Tensor] = {}
        self._logits = torch.empty(0)

    def part(self, which: Sum, num_rows: int) -> Tensor:
        assert which not in self._parts, "a part is added before the next one is written"
        self._parts[which] = torch.full((num_rows, self._size), torch.nan)
        return self._parts[which]

    def add_sum(self, which: Sum, hidden: Tensor) -> None:
        hidden.add_(self._group.sum(self._parts.pop(which)))

    def logits_part(self, num_rows: int) -> Tensor:
        self._logits = torch.full((num_rows, self._width), torch.nan)
        return self._logits

    def join_logits(self, out: Tensor) -> None:
        out.copy_(self._group.join(self._logits))


@dataclass
class Ranks:
    """A leading runner, and what went wrong elsewhere."""

    leading: LeadingRunner
    errors: list[BaseException] = field(default_factory=list)


@contextmanager
def started_ranks(size: int, build: Callable[[Channel], ModelRunner]) -> Iterator[Ranks]:
    """`build` makes the runner of each rank, all at the same time. At the end no other rank may have failed."""
    first, *others = open_channels(size)
    errors: list[BaseException] = []

    def run(channel: Channel) -> None:
        try:
            follow(build(channel), channel)
        except BaseException as error:
            errors.append(error)
        finally:
            channel.close()

    threads = [threading.Thread(target=run, args=(channel,)) for channel in others]
    for thread in threads:
        thread.start()
    try:
        yield Ranks(LeadingRunner(build(first), first), errors)
    finally:
        first.close()
        for thread in threads:
            thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads), "a rank goes on"
    assert not errors, errors
