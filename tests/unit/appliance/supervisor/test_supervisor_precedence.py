"""The place of the processes that requests wait for is what the configuration says, or the start is refused."""

import os
import subprocess
import sys

import pytest

from appliance.errors import StartRefused
from appliance.supervisor.precedence import set_niceness, verify_niceness


def test_a_start_is_refused_where_the_kernel_will_not_allow_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing starts with another place than the one that was asked for, and the words say what is missing."""

    def refuse(*_arguments: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)
    with pytest.raises(StartRefused, match=r"foreground_niceness: .* LimitNICE=-20"):
        verify_niceness(-20)


def test_a_supervisor_that_is_nice_starts_where_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under `nice`, or `Nice=` of a unit, which no process without privileges leaves."""
    monkeypatch.setattr(os, "getpriority", lambda _which, _who: 10)
    monkeypatch.setattr(os, "setpriority", lambda *_arguments: pytest.fail("it was asked for"))
    verify_niceness(0)


def test_asking_leaves_the_supervisor_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the place for a moment only, and not at all where it could not come back."""
    taken: list[int] = []
    monkeypatch.setattr(os, "setpriority", lambda _which, _who, niceness: taken.append(niceness))
    monkeypatch.setattr(os, "getpriority", lambda _which, _who: -5)
    verify_niceness(-10)
    verify_niceness(0)
    assert taken == [-10, -5]


def test_a_process_gets_its_place_and_one_that_is_gone_disturbs_nobody() -> None:
    """By the kernel's own word; a higher one is allowed to everybody."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        set_niceness(process.pid, 19)
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == 19
        process.communicate(b"\n")
    set_niceness(process.pid, 19)
