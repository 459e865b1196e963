"""Several load processes at once: a plan is dealt out, they begin together, their answers come back as one list."""

import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from appliance.bench.connection import Answer
from appliance.bench.load_process import Batch, Message, Order, Progress, Ready, Report
from appliance.bench.target import Target
from appliance.bench.workloads import Planned
from appliance.errors import CommandFailed
from appliance.ipc.frames import FrameDecoder

_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


@dataclass(frozen=True)
class Outcome:
    """What a fleet saw. Times are of `time.perf_counter`, which all processes of a machine share."""

    answers: list[Answer]
    began_at: float
    ended_at: float
    load_cpu_s: float
    """CPU time of the load processes together."""


class _Crew:
    """One process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.num_answers = 0
        self.num_errors = 0
        self.answers: list[Answer] = []
        self._frames = FrameDecoder()
        self._messages: list[Message] = []

    async def receive(self) -> Message:
        """The next message. Raises: CommandFailed when the process ends without its report."""
        assert self.process.stdout is not None
        while not self._messages:
            data = await self.process.stdout.read(1 << 20)
            if not data:
                raise CommandFailed(f"a load process ended with {await self.process.wait()}")
            self._messages = [_decoder.decode(frame) for frame in self._frames.feed(data)]
        return self._messages.pop(0)


async def run_fleet(
    target: Target,
    plan: Sequence[Planned],
    *,
    num_processes: int,
    concurrency: int,
    due_s: Sequence[float] | None = None,
    timeout_s: float = 300.0,
    opens_ahead: bool = False,
    on_progress: Callable[[int, int], None] = lambda _answers, _errors: None,
) -> Outcome:
    """Carry out a plan.

    Args:
        due_s: open loop: when each chain begins; None for the closed loop.
        opens_ahead: whether the connections for the concurrency are there before the first request.
        on_progress: told of answers and of errors so far.
    Raises: CommandFailed.
    """
    orders = [
        msgspec.structs.replace(order, timeout_s=timeout_s, opens_ahead=opens_ahead)
        for order in _deal(target, plan, num_processes, concurrency, due_s)
    ]
    crews = await asyncio.gather(*(_start(order) for order in orders))
    try:
        for crew in crews:
            if not isinstance(await crew.receive(), Ready):
                raise CommandFailed("a load process did not get ready")
        for crew in crews:
            assert crew.process.stdin is not None
            crew.process.stdin.write(b"\n")

        def tell() -> None:
            on_progress(sum(crew.num_answers for crew in crews), sum(crew.num_errors for crew in crews))

        reports = await asyncio.gather(*(_attend(crew, tell) for crew in crews))
    finally:
        for crew in crews:
            if crew.process.returncode is None:
                crew.process.kill()
            await crew.process.wait()
    return Outcome(
        answers=[answer for crew in crews for answer in crew.answers],
        began_at=min(report.began_at for report in reports),
        ended_at=max(report.ended_at for report in reports),
        load_cpu_s=sum(report.cpu_s for report in reports),
    )


def _deal(
    target: Target,
    plan: Sequence[Planned],
    num_processes: int,
    concurrency: int,
    due_s: Sequence[float] | None,
) -> list[Order]:
    """Every n-th chain to the n-th process, and the concurrency as evenly as it goes."""
    num_processes = max(1, min(num_processes, concurrency, len(plan)))
    return [
        Order(
            target=target,
            plan=list(plan[part::num_processes]),
            concurrency=concurrency // num_processes + (part < concurrency % num_processes),
            due_s=None if due_s is None else list(due_s[part::num_processes]),
        )
        for part in range(num_processes)
    ]


async def _start(order: Order) -> _Crew:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "appliance.bench.load_process",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    data = msgspec.msgpack.encode(order)
    process.stdin.write(len(data).to_bytes(4, "little") + data)
    return _Crew(process)


async def _attend(crew: _Crew, tell: Callable[[], None]) -> Report:
    while True:
        message = await crew.receive()
        if isinstance(message, Report):
            return message
        if isinstance(message, Batch):
            crew.answers += message.answers
        elif isinstance(message, Progress):
            crew.num_answers, crew.num_errors = message.num_answers, message.num_errors
            tell()
