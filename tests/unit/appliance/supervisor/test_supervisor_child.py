"""One process of the supervisor, and what it started itself: the other ranks of an engine."""

import asyncio
import os
import signal
from collections.abc import Iterator

import psutil
import pytest

from appliance.supervisor.child import Child
from security.sandbox import kernel
from tests.support.waiting import wait_until

PR_SET_CHILD_SUBREAPER = 36
SLEEPING = ("-c", "import signal; signal.pause()")
"""A rank that does not notice that the others end."""


@pytest.fixture
def as_first_process() -> Iterator[None]:
    """As in a container, orphans become ours. Elsewhere the kernel itself ends stopped ones, whose group is an orphan."""
    kernel.prctl(PR_SET_CHILD_SUBREAPER, 1)
    yield
    kernel.prctl(PR_SET_CHILD_SUBREAPER, 0)


async def started(num_ranks: int) -> tuple[Child, list[psutil.Process]]:
    child = Child("engine", 0, 60.0, 60.0, program=SLEEPING, num_ranks=num_ranks)
    await child.start()
    first = psutil.Process(child.pid)
    wait_until(lambda: len(first.children()) == num_ranks - 1)
    return child, first.children()


def is_left(process: psutil.Process) -> bool:
    """Dead ones whose status nobody has taken included."""
    return psutil.pid_exists(process.pid)


@pytest.mark.usefixtures("as_first_process")
def test_ranks_end_with_the_first_whatever_state_they_are_in() -> None:
    """One is stopped, one takes no notice: none is left when the engine is started again, not even as a zombie."""

    async def run() -> list[bool]:
        child, ranks = await started(3)
        os.kill(ranks[0].pid, signal.SIGSTOP)
        os.kill(child.pid, signal.SIGKILL)
        assert await child.wait() == -signal.SIGKILL
        await child.ranks_ended()
        return [is_left(rank) for rank in ranks]

    assert asyncio.run(run()) == [False, False]


@pytest.mark.usefixtures("as_first_process")
def test_ranks_that_ended_are_not_waited_for_where_nobody_takes_their_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose first process is neither we nor one that looks after orphans."""
    lefts: list[dict[str, object]] = []

    def not_ours(_pid: int, _options: int) -> tuple[int, int]:
        raise ChildProcessError

    async def run() -> list[psutil.Process]:
        child, ranks = await started(2)
        child.kill()
        await child.wait()
        with monkeypatch.context() as patch:
            patch.setattr("appliance.supervisor.child.os.waitpid", not_ours)
            patch.setattr("appliance.supervisor.child.log.error", lambda _event, **said: lefts.append(said))
            await child.ranks_ended()
        return ranks

    (rank,) = asyncio.run(run())
    assert rank.status() == psutil.STATUS_ZOMBIE
    assert lefts == []
    os.waitpid(rank.pid, 0)


@pytest.mark.usefixtures("as_first_process")
@pytest.mark.parametrize("num_ranks", [1, 2])
def test_killing_takes_nobodys_status(num_ranks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has just ended by itself is told as it ended, not as 255, which is what remains when somebody else asked first."""

    def asks(_process: object, _signal: int) -> None:
        raise AssertionError("the library asks for the status before it sends a signal")

    async def run() -> int:
        child, _ranks = await started(num_ranks)
        with monkeypatch.context() as patch:
            patch.setattr("subprocess.Popen.send_signal", asks)
            os.kill(child.pid, signal.SIGTERM)
            child.kill()
        status = await child.wait()
        await child.ranks_ended()
        return status

    assert asyncio.run(run()) in (-signal.SIGTERM, -signal.SIGKILL)


@pytest.mark.usefixtures("as_first_process")
def test_whoever_kills_an_engine_kills_its_ranks() -> None:
    """The watchdog, or a supervisor that ends: it does not wait for them to notice."""

    async def run() -> list[bool]:
        child, ranks = await started(2)
        child.kill()
        wait_until(lambda: all(rank.status() == psutil.STATUS_ZOMBIE for rank in ranks))
        status = await child.wait()
        await child.ranks_ended()
        child.kill()  # Of what has ended nothing is killed.
        return [status == -signal.SIGKILL, *(is_left(rank) for rank in ranks)]

    assert asyncio.run(run()) == [True, False]
