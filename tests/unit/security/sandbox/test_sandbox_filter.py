"""The filter program, run by a small interpreter of classic BPF, for both processors: what each call would get."""

import errno
import os
import socket
import struct

import pytest

from security.sandbox.allowlists import ALL_BITS, PRETENDED_MISSING, Match, Rule, build_rules
from security.sandbox.bpf import KILL_PROCESS, assemble
from security.sandbox.profiles import CONFINED_ROLES, ConfinedRole
from security.sandbox.syscalls import NEWEST, Architecture, find_architecture

ALLOWED, NOT_PERMITTED, NO_SUCH_CALL = 0x7FFF_0000, 0x5_0000 | errno.EPERM, 0x5_0000 | errno.ENOSYS
MACHINES = ("x86_64", "aarch64")


def run(program: bytes, architecture: int, number: int, *arguments: int) -> int:
    """What the kernel's interpreter would return (seccomp(2): struct seccomp_data)."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("<IIQ6Q", number, architecture, 0, *(value & (1 << 64) - 1 for value in padded))
    instructions = list(struct.iter_unpack("<HBBI", program))
    accumulator, at = 0, 0
    while True:
        code, if_true, if_false, constant = instructions[at]
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, constant)
            case 0x54:
                accumulator &= constant
            case 0x15:
                at += if_true if accumulator == constant else if_false
            case 0x25:
                at += if_true if accumulator > constant else if_false
            case 0x06:
                return constant
            case _:
                raise AssertionError(f"unknown instruction {code:#x}")


def find(machine: str) -> Architecture:
    """Of a machine that must be known."""
    found = find_architecture(machine)
    assert found is not None
    return found


class Filter:
    """A role's filter; asked by the name of a call."""

    def __init__(self, role: ConfinedRole, machine: str, network: str = "none") -> None:
        self.architecture = find(machine)
        self.program = assemble(build_rules(role, network), PRETENDED_MISSING, self.architecture)  # type: ignore[arg-type]

    def ask(self, name: str, *arguments: int) -> int:
        return run(self.program, self.architecture.audit_id, self.architecture.numbers[name], *arguments)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("role", CONFINED_ROLES)
def test_every_path_of_a_filter_ends(role: ConfinedRole, machine: str) -> None:
    """Jumps stay inside, the kernel's limit of instructions is kept, and each number gets one of four answers."""
    made = Filter(role, machine)
    assert len(made.program) // 8 <= 4096
    answers = {run(made.program, made.architecture.audit_id, number) for number in range(NEWEST + 50)}
    assert answers == {ALLOWED, NOT_PERMITTED, NO_SUCH_CALL}


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_of_another_processor_kill(machine: str) -> None:
    """A call by the 32-bit entry has other numbers, and would pass for another call."""
    made = Filter("engine", machine)
    assert run(made.program, 0x4000_0003, 1) == KILL_PROCESS


def test_calls_of_the_x32_table_do_not_exist() -> None:
    """x32 numbers have bit 30 set and would bypass a list of numbers."""
    made = Filter("gateway", "x86_64")
    assert run(made.program, made.architecture.audit_id, 0x4000_0000 | 1) == NO_SUCH_CALL


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("role", CONFINED_ROLES)
def test_threads_yes_processes_and_namespaces_no(role: ConfinedRole, machine: str) -> None:
    """clone() makes threads only; clone3(), whose flags no filter sees, sends libc back to clone()."""
    made = Filter(role, machine)
    thread = 0x003D_0F00
    assert made.ask("clone", thread) == ALLOWED
    # The compiler forks for each grammar; nobody else makes processes, and vfork() shares memory.
    assert made.ask("clone", 0x0120_0011) == (ALLOWED if role == "compiler" else NOT_PERMITTED)
    assert made.ask("clone", 0x4100 | 17) == NOT_PERMITTED
    assert made.ask("clone", thread | 0x1000_0000) == NOT_PERMITTED
    assert made.ask("clone3", 0, 88) == NO_SUCH_CALL


@pytest.mark.parametrize(
    ("role", "families"),
    [
        ("gateway", {socket.AF_INET, socket.AF_INET6}),
        ("policy", set()),
        ("engine", set()),
        ("auditor", set()),
        ("authority", set()),
        ("compiler", set()),
        ("reader", set()),
        ("courier", {socket.AF_INET, socket.AF_INET6}),
        ("console", {socket.AF_INET, socket.AF_INET6}),
    ],
)
def test_sockets_by_role(role: ConfinedRole, families: set[int]) -> None:
    """Streams of the named families, whatever flags stand beside the kind; nothing else."""
    made = Filter(role, "x86_64")
    for family in range(46):
        expected = ALLOWED if family in families else NOT_PERMITTED
        assert made.ask("socket", family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) == expected
        assert made.ask("socket", family, socket.SOCK_DGRAM) == NOT_PERMITTED
        assert made.ask("socket", family, socket.SOCK_RAW) == NOT_PERMITTED


def test_an_authority_may_begin_connections_only_to_a_provider() -> None:
    """Without one, whatever it is talked into, it reaches nobody."""
    for connects, is_allowed in ((False, False), (True, True)):
        rules = build_rules("authority", "host", connects=connects)
        assert (("connect" in rules) and ("socket" in rules)) is is_allowed


def test_only_an_engine_with_a_gpu_gets_what_cuda_needs_to_start() -> None:
    """Sockets, in its empty network; processes and modes of files stay refused."""
    architecture = find("x86_64")
    program = assemble(build_rules("engine", "none", uses_gpu=True), PRETENDED_MISSING, architecture)

    def ask(name: str, *arguments: int) -> int:
        return run(program, architecture.audit_id, architecture.numbers[name], *arguments)

    for name in ("socket", "bind", "listen", "connect", "mkdir", "unlink", "symlink"):
        assert ask(name) == ALLOWED
        assert Filter("engine", "x86_64").ask(name) == NOT_PERMITTED
    assert (ask("clone", 17), ask("fchmod", 3, 0o600), ask("rename")) == (NOT_PERMITTED,) * 3


@pytest.mark.parametrize("role", CONFINED_ROLES)
def test_signals_and_limits_for_oneself_only(role: ConfinedRole) -> None:
    """The process's own number is part of its program."""
    made = Filter(role, "x86_64")
    for name in ("kill", "tgkill", "prlimit64", "sched_setaffinity"):
        assert made.ask(name, os.getpid()) == ALLOWED
        assert made.ask(name, os.getpid() + 1) == NOT_PERMITTED
    for everybody in (-1, 0):
        assert made.ask("kill", everybody) == NOT_PERMITTED


@pytest.mark.parametrize("role", CONFINED_ROLES)
def test_what_hides_a_process_cannot_be_undone(role: ConfinedRole) -> None:
    """PR_SET_DUMPABLE, PR_SET_PTRACER and PR_SET_MM are refused; naming a thread is not."""
    made = Filter(role, "x86_64")
    assert [made.ask("prctl", option, 1) for option in (4, 0x59616D61, 35)] == [NOT_PERMITTED] * 3
    assert made.ask("prctl", 15) == ALLOWED


@pytest.mark.parametrize("role", CONFINED_ROLES)
def test_landlock_is_asked_for_its_version_only(role: ConfinedRole) -> None:
    """As the platform is probed by; rules are put on before."""
    made = Filter(role, "x86_64")
    assert made.ask("landlock_create_ruleset", 0, 0, 1) == ALLOWED
    assert made.ask("landlock_create_ruleset", 0, 0, 0) == NOT_PERMITTED


@pytest.mark.parametrize("role", CONFINED_ROLES)
def test_only_those_who_write_can_change_files(role: ConfinedRole) -> None:
    """And a mode that others could read by is refused to them as well."""
    made = Filter(role, "x86_64")
    writes = role in ("gateway", "policy", "auditor", "authority", "reader")
    for name in ("rename", "unlinkat", "ftruncate", "mkdir"):
        assert made.ask(name) == (ALLOWED if writes else NOT_PERMITTED)
    assert made.ask("fchmod", 3, 0o600) == (ALLOWED if writes else NOT_PERMITTED)
    assert made.ask("fchmod", 3, 0o604) == NOT_PERMITTED


def test_a_rule_allows_if_one_alternative_holds_in_full() -> None:
    """Conditions of an alternative are joined by and, alternatives by or, and what is refused goes first."""
    architecture = find("x86_64")
    rule = Rule(((Match(0, 1), Match(1, 2)), (Match(0, 8, 8),)), refused=(Match(2, 9),))
    program = assemble({"read": rule}, (), architecture)

    def ask(*arguments: int) -> bool:
        return run(program, architecture.audit_id, architecture.numbers["read"], *arguments) == ALLOWED

    assert [ask(1, 2), ask(1, 3), ask(8, 0), ask(0xF, 0), ask(7, 2)] == [True, False, True, True, False]
    assert [ask(1, 2, 9), ask(8, 0, 9), ask(1 << 32 | 1, 2)] == [False, False, True]
    assert Match(0, 1).mask == ALL_BITS


def test_both_processors_have_numbers_for_what_matters() -> None:
    """A name that is missing from one table would be refused there without a word."""
    only_x86 = set(find("x86_64").numbers) - set(find("aarch64").numbers)
    assert only_x86 == set(
        """access alarm arch_prctl dup2 epoll_create epoll_wait eventfd getdents getpgrp link lstat mkdir open pause pipe poll
        readlink rename rmdir select signalfd stat symlink time unlink""".split()  # noqa: SIM905 - prose of old calls
    )
    assert set(find("aarch64").numbers) <= set(find("x86_64").numbers)
    rules = (build_rules(role, "host", uses_gpu=True, connects=True) for role in CONFINED_ROLES)
    named = {name for of_role in rules for name in of_role} | set(PRETENDED_MISSING)
    assert named <= set(find("x86_64").numbers)
    for machine in MACHINES:
        numbers = list(find(machine).numbers.values())
        assert len(numbers) == len(set(numbers))
        assert max(numbers) == NEWEST


def test_an_unknown_processor_has_no_filter() -> None:
    """So that it is reported as missing, and not filtered by another's numbers."""
    assert find_architecture("riscv64") is None
