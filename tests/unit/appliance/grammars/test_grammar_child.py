"""A structure compiles in a process of its own: whatever it does there, the parent gets a grammar or a word, in time."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest

from appliance.grammars.child import CompileFault, CompileLimits, compile_apart
from runtime.errors import RequestRejected
from runtime.structured.vocabulary import GrammarVocabulary
from runtime.structured.walking import Walker
from tests.support.waiting import until


def children() -> set[int]:
    return {process.pid for process in psutil.Process().children()}


LIMITS = CompileLimits(timeout_s=20.0, memory_bytes=256 << 20, max_grammar_bytes=1 << 20)
HASTY = CompileLimits(timeout_s=0.3, memory_bytes=256 << 20, max_grammar_bytes=1 << 20)


def spin() -> bytes:
    while True:
        pass


def sleep() -> bytes:
    time.sleep(3600)
    return b""


def stubborn() -> bytes:
    """Code that holds on to everything Python would let go of."""
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    return spin()


def eat_memory() -> bytes:
    return b"x" * (1 << 30)


def die() -> bytes:
    os.kill(os.getpid(), signal.SIGSEGV)
    return b""


def reject() -> bytes:
    raise RequestRejected("invalid_grammar", "brackets do not match")


def find_slow() -> bytes:
    raise RequestRejected("grammar_too_slow", "a token takes long")


def exceed_budget() -> bytes:
    os.write(2, b"[12:00:00] /x/y.cc:12: Warning: The character budget (max_chars) of a rule was exceeded\n")
    return b"grammar"


def warn() -> bytes:
    os.write(2, b"[12:00:00] /x/y.cc:12: Warning: lookahead is ignored\n")
    return b"grammar"


def say_much() -> bytes:
    for _ in range(64):
        try:
            os.write(2, b"secret " * 4096)
        except BlockingIOError:
            break
    return b"grammar"


def large() -> bytes:
    return b"x" * ((1 << 20) + 1)


def endless() -> bytes:
    return b"x" * (64 << 20)


def fault() -> bytes:
    raise RuntimeError("a bug of ours")


async def test_a_grammar_comes_back_whole() -> None:
    """More than a pipe holds, byte for byte."""
    content = bytes(range(256)) * 2048
    assert await compile_apart(lambda: content, LIMITS) == content


@pytest.mark.parametrize(
    ("work", "limits", "code"),
    [
        (spin, HASTY, "grammar_timeout"),
        (sleep, HASTY, "grammar_timeout"),
        (eat_memory, LIMITS, "grammar_too_large"),
        (die, LIMITS, "grammar_too_large"),
        (large, LIMITS, "grammar_too_large"),
        (endless, LIMITS, "grammar_too_large"),
        (fault, LIMITS, "grammar_too_large"),
        (reject, LIMITS, "invalid_grammar"),
        (find_slow, LIMITS, "grammar_too_slow"),
        (warn, LIMITS, "invalid_grammar"),
    ],
)
async def test_whatever_a_child_does_is_one_word(work: Callable[[], bytes], limits: CompileLimits, code: str) -> None:
    """Time, memory, crashes, refusals: the sender is told, the parent lives and has no child left."""
    before = children()
    with pytest.raises(CompileFault) as refused:
        await compile_apart(work, limits)
    assert refused.value.code == code
    assert children() <= before


async def test_who_ignores_the_alarm_ends_by_processor_time() -> None:
    """A signal may be ignored, a hard limit of processor time may not."""
    limits = CompileLimits(timeout_s=0.5, memory_bytes=256 << 20, max_grammar_bytes=1 << 20)
    with pytest.raises(CompileFault) as refused:
        await compile_apart(stubborn, limits)
    assert refused.value.code == "grammar_timeout"


async def test_what_a_child_says_is_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    """The library prints parts of structures, which are a client's words, and more of them than a pipe holds."""
    assert await compile_apart(say_much, LIMITS) == b"grammar"
    assert "secret" not in capfd.readouterr().err


async def test_reasons_of_refusals_come_through() -> None:
    """In the words of whoever refused."""
    with pytest.raises(CompileFault, match="brackets do not match"):
        await compile_apart(reject, LIMITS)
    with pytest.raises(CompileFault, match="lookahead is ignored"):
        await compile_apart(warn, LIMITS)


async def test_what_a_walk_says_of_budgets_is_no_refusal() -> None:
    """A client's own rule may be longer than its budget; nothing of the structure was ignored."""
    assert await compile_apart(exceed_budget, LIMITS) == b"grammar"


async def test_a_text_of_two_lengths_is_no_refusal() -> None:
    """The library warns of it while a walk follows the grammar, as it does in an engine."""
    schema = {"anyOf": [{"type": "string", "maxLength": 40}, {"type": "string", "maxLength": 60}]}
    form = {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": 16}
    structure = json.dumps({"type": "structural_tag", "format": form})
    vocabulary = GrammarVocabulary([*(bytes([byte]) for byte in range(256)), b""], [256], vocab_size=257)
    work = partial(Walker(vocabulary).compile, structure, LIMITS.max_grammar_bytes)
    assert (await compile_apart(work, LIMITS)).startswith(vocabulary.digest)


async def test_descriptors_of_the_parent_are_closed_in_the_child() -> None:
    """Links to gateways are not for what a hostile structure may make of the process."""
    reading, writing = os.pipe()
    names = await compile_apart(lambda: ",".join(os.listdir("/proc/self/fd")).encode(), LIMITS)
    os.close(reading)
    os.close(writing)
    assert len(names.split(b",")) <= 5


async def test_several_run_at_a_time_and_the_loop_goes_on(tmp_path: Path) -> None:
    """Four children, each of which ends when it has seen the three others and what the loop does meanwhile."""
    expected = {"0", "1", "2", "3", "loop"}

    def meet(name: str) -> bytes:
        (tmp_path / name).touch()
        while set(os.listdir(tmp_path)) != expected:
            time.sleep(0.005)
        return b"met"

    async def go_on() -> None:
        await until(lambda: set(os.listdir(tmp_path)) == expected - {"loop"})
        (tmp_path / "loop").touch()

    children = [compile_apart(partial(meet, str(number)), LIMITS) for number in range(4)]
    assert await asyncio.gather(*children, go_on()) == [b"met"] * 4 + [None]
