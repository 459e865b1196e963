"""One structure, compiled in a forked process: what it takes and how it ends is nobody else's.

The child has the vocabularies by inheritance and needs no start. The kernel ends it: SIGALRM after the time, SIGXCPU and SIGKILL
after as much processor time, a failing allocation beyond the memory; no code of ours must run for that, and none may kill it,
as the filter allows no signals to others. What xgrammar says on standard error would be the client's own words in our log: it
is read and never shown, and a warning there is a refusal, since it says that a part of the structure was ignored.
"""

import asyncio
import contextlib
import gc
import os
import re
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from appliance.messages.grammar import CompileRefusal
from runtime.errors import RequestRejected

_GOOD, _BAD, _SLOW = b"+", b"-", b"~"
_MAX_SAID_BYTES = 64 << 10
_WARNING = re.compile(r"Warning: (?!The (?:character|token) budget|Multiple active grammar paths)(.{1,300})")
"""Of what a structure says, not of what a walk through its grammar meets: a client's own budget, two lengths of one text."""
_MOST_DESCRIPTORS = 4096
_REAP_INTERVAL_S = 0.005


class CompileFault(Exception):
    """A structure that gave no grammar. The message is for its sender."""

    def __init__(self, code: CompileRefusal, message: str) -> None:
        super().__init__(message)
        self.code: CompileRefusal = code


@dataclass(frozen=True)
class CompileLimits:
    """Of one structure."""

    timeout_s: float
    memory_bytes: int
    max_grammar_bytes: int


async def compile_apart(work: Callable[[], bytes], limits: CompileLimits) -> bytes:
    """Run `work`, which gives a grammar or raises RequestRejected, in a child.

    The process MUST have no other thread: a fork takes the calling one only.
    Raises: CompileFault.
    """
    address_space = _address_space() + limits.memory_bytes
    result, result_end = os.pipe()
    said, said_end = os.pipe()
    # A child that says more than a pipe holds goes on without being heard.
    os.set_blocking(said_end, False)
    pid = os.fork()
    if pid == 0:
        _run_child(work, limits, address_space, result_end, said_end)
    os.close(result_end)
    os.close(said_end)
    try:
        answer = await _read_to_end(result, limits.max_grammar_bytes + 1)
    finally:
        # A child that still writes finds nobody reading, and ends.
        os.close(result)
    try:
        return _judge(answer, await _end(pid), _read_said(said), limits)
    finally:
        os.close(said)


def _run_child(
    work: Callable[[], bytes], limits: CompileLimits, address_space: int, result: int, said: int
) -> NoReturn:
    """Never returns into the parent's code, whatever happens."""
    try:
        os.dup2(said, 2)
        # The parent's links are not for whatever a hostile structure may make of this process.
        os.closerange(3, result)
        os.closerange(result + 1, _MOST_DESCRIPTORS)
        _limit(limits, address_space)
        try:
            answer = _GOOD + work()
        except RequestRejected as rejected:
            answer = (_SLOW if rejected.code == "grammar_too_slow" else _BAD) + str(rejected).encode()
        view = memoryview(answer)
        while view:
            view = view[os.write(result, view) :]
        os._exit(0)
    finally:
        os._exit(1)


def _limit(limits: CompileLimits, address_space: int) -> None:
    gc.disable()
    for number in (signal.SIGALRM, signal.SIGXCPU, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    seconds = max(1, round(limits.timeout_s))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.setitimer(signal.ITIMER_REAL, limits.timeout_s)


def _address_space() -> int:
    """What this process has mapped, of which a child begins with a copy."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


async def _read_to_end(descriptor: int, limit: int) -> bytes:
    """All that comes, or a little more than `limit`."""
    loop = asyncio.get_running_loop()
    os.set_blocking(descriptor, False)
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    parts: list[bytes] = []
    size = 0
    try:
        while size <= limit:
            readable.clear()
            with contextlib.suppress(BlockingIOError):
                part = os.read(descriptor, 1 << 16)
                if not part:
                    break
                parts.append(part)
                size += len(part)
                continue
            await readable.wait()
    finally:
        loop.remove_reader(descriptor)
    return b"".join(parts)


async def _end(pid: int) -> int:
    """Wait for the child's end, which its limits bring."""
    while (status := _reap(pid)) is None:  # noqa: ASYNC110 - its pidfd is no call that the filter allows
        await asyncio.sleep(_REAP_INTERVAL_S)
    return status


def _reap(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return status if ended else None


def _read_said(descriptor: int) -> str:
    os.set_blocking(descriptor, False)
    try:
        return os.read(descriptor, _MAX_SAID_BYTES).decode("utf-8", "replace")
    except BlockingIOError:
        return ""


def _judge(answer: bytes, status: int, said: str, limits: CompileLimits) -> bytes:
    if len(answer) > limits.max_grammar_bytes:
        raise CompileFault(
            "grammar_too_large", f"it compiles to more than {limits.max_grammar_bytes} bytes: make it smaller"
        )
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGALRM, signal.SIGXCPU, signal.SIGKILL):
        raise CompileFault(
            "grammar_timeout",
            f"it takes longer than {limits.timeout_s:g} s to compile and to try: make it smaller, or repeat less",
        )
    if status != 0 or not answer:
        raise CompileFault("grammar_too_large", "it takes too much memory or depth to compile: make it smaller")
    if answer.startswith((_BAD, _SLOW)):
        raise CompileFault("grammar_too_slow" if answer.startswith(_SLOW) else "invalid_grammar", answer[1:].decode())
    warned = _WARNING.search(said)
    if warned is not None:
        raise CompileFault("invalid_grammar", f"a part of it would be ignored: {warned.group(1)}")
    return answer[1:]
