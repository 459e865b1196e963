"""The first rank's runner: what it launches, the others launch as well.

Each of them answers a step with a digest of what it chose, which is compared when it is here, a step or two later. Nothing waits
for it: what leaves meanwhile is what this rank chose. Ranks that differ would drift into nonsense, and so the engine ends.
"""

import socket
import struct
import zlib
from collections import deque
from dataclasses import dataclass

import numpy as np

from runtime.batch import LaunchedStep, ModelRunner, StepBatch, StepResult
from runtime.parallel.channel import Channel, RankLost, send_message
from runtime.parallel.wire import encode_step
from runtime.step_sizes import MixedSizes

DIGEST = struct.Struct("<I")
_DONT_WAIT = socket.MSG_DONTWAIT


class RanksDisagree(RuntimeError):
    """Two ranks chose different tokens in the same step."""


def digest_of(result: StepResult) -> int:
    """CRC-32 of what a step chose. Tokens of rows that were not finite mean nothing, and are left out."""
    chosen = np.where(result.is_finite, result.token_ids, -1).astype(np.int64)
    digest = zlib.crc32(chosen.tobytes())
    return digest if result.chains is None else zlib.crc32(result.chains.num_tokens.tobytes(), digest)


class LeadingRunner:
    """See `runtime.batch.ModelRunner`."""

    def __init__(self, runner: ModelRunner, channel: Channel) -> None:
        self._runner = runner
        self._channel = channel
        self._own: list[deque[int]] = [deque() for _ in channel.steps]
        """Of steps whose digests have not been compared, for each other rank."""
        self._arrived = [bytearray() for _ in channel.steps]

    @property
    def vocab_size(self) -> int:
        """See `ModelRunner.vocab_size`."""
        return self._runner.vocab_size

    @property
    def num_pages(self) -> int:
        """See `ModelRunner.num_pages`."""
        return self._runner.num_pages

    @property
    def mixed_sizes(self) -> MixedSizes:
        """See `ModelRunner.mixed_sizes`."""
        return self._runner.mixed_sizes

    def launch(self, batch: StepBatch) -> LaunchedStep:
        """See `ModelRunner.launch`. Raises: RankLost."""
        message = encode_step(batch)
        for sock in self._channel.steps:
            send_message(sock, message)
        return _LeadingStep(self._runner.launch(batch), self)

    def compare(self, digest: int) -> None:
        """Note a step's digest, and compare those that have come. Raises: RankLost, RanksDisagree."""
        for rank, (own, sock, arrived) in enumerate(zip(self._own, self._channel.steps, self._arrived, strict=True), 1):
            own.append(digest)
            try:
                while content := sock.recv(1 << 12, _DONT_WAIT):
                    arrived += content
            except BlockingIOError:
                pass
            except OSError as error:
                raise RankLost(f"rank {rank} of the engine is gone: {error}") from error
            else:
                raise RankLost(f"rank {rank} of the engine has ended")
            while own and len(arrived) >= DIGEST.size:  # Another rank may have read a step before this one did.
                (other,) = DIGEST.unpack_from(arrived)
                del arrived[: DIGEST.size]
                if other != own.popleft():
                    raise RanksDisagree(f"rank {rank} chose other tokens than the first")


@dataclass(frozen=True, slots=True)
class _LeadingStep:
    """A step of all ranks."""

    own: LaunchedStep
    leader: LeadingRunner

    def result(self) -> StepResult:
        """See `LaunchedStep.result`."""
        result = self.own.result()
        self.leader.compare(digest_of(result))
        return result
