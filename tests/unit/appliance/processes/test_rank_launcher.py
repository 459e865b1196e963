"""The ranks of an engine are started as its children, with the sockets between them and nothing else."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.ipc.rank_sockets import all_descriptors, descriptors_of, take_channel
from runtime.weights.shares import Share

PROGRAM = """
import json, os, sys
from appliance.ipc.rank_sockets import take_channel
from runtime.weights.shares import Share

control, (rank, size) = int(sys.argv[1]), map(int, sys.argv[3].split("/"))
channel = take_channel(Share(rank, size), control)
opened = [name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")]
said = {"rank": rank, "pid": os.getpid(), "parent": os.getppid(), "num_sockets": 0, "has_control": str(control) in opened}
said["num_sockets"] = sum(os.readlink(f"/proc/self/fd/{name}").startswith("socket:") for name in opened)
told = channel.exchange(json.dumps(said).encode(), b"\\n".join)
if rank == 0:
    print(told.decode())
"""


def test_every_rank_runs_the_command_with_its_own_sockets() -> None:
    """The first keeps the control socket and has two to each other rank; the others are its children, and have two each."""
    ours, theirs = socket.socketpair()
    control = theirs.fileno()
    with ours, theirs:
        done = subprocess.run(
            [
                sys.executable, "-m", "appliance.processes.ranks", "3", str(control), "--",
                sys.executable, "-c", PROGRAM, str(control),
            ],
            capture_output=True, text=True, timeout=60, check=False, pass_fds=(control,),
            cwd=Path(__file__).parents[4], env=os.environ,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, *others = map(json.loads, done.stdout.splitlines())
    assert [rank["rank"] for rank in (first, *others)] == [0, 1, 2]
    assert (first["has_control"], first["num_sockets"]) == (True, 5)
    assert [(rank["has_control"], rank["num_sockets"], rank["parent"]) for rank in others] == [
        (False, 2, first["pid"])
    ] * 2


def test_descriptors_follow_from_the_control_socket() -> None:
    """What some rank has inherited is all that a launcher keeps open."""
    first, other = descriptors_of(Share(0, 4), 9), descriptors_of(Share(2, 4), 9)
    assert (first.steps, first.sums) == ((10, 11, 12), (13, 14, 15))
    assert (other.steps, other.sums) == ((10,), (11,))
    assert all_descriptors(4, 9) == (9, 10, 11, 12, 13, 14, 15)
    assert all_descriptors(1, 9) == (9,)
    assert take_channel(Share(0, 1), 9) is None


def test_a_command_that_cannot_be_executed_is_said() -> None:
    """And the launcher fails."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(
            [
                sys.executable, "-m", "appliance.processes.ranks", "2", str(theirs.fileno()), "--",
                "/nonexistent/program",
            ],
            capture_output=True, text=True, timeout=60, check=False, pass_fds=(theirs.fileno(),),
            cwd=Path(__file__).parents[4],
        )  # fmt: skip
    assert done.returncode != 0
    assert "/nonexistent/program cannot be executed" in done.stderr


@pytest.mark.parametrize("words", [[], ["2", "9", "PROGRAM"]])
def test_a_command_line_that_is_none_is_refused(words: list[str]) -> None:
    """It is not for people."""
    done = subprocess.run(
        [sys.executable, "-m", "appliance.processes.ranks", *words],
        capture_output=True, text=True, timeout=60, check=False, cwd=Path(__file__).parents[4],
    )  # fmt: skip
    assert done.returncode != 0
    assert "usage" in done.stderr
