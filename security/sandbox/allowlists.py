"""Which system calls each role may make once it has imported what it needs.

Recorded with strace while the end-to-end tests ran, then widened by their siblings (`pread64` brings `preadv2`), so that
another libc, interpreter or torch does not fail on a call that gives no more power. What is not named is refused: with
ENOSYS where libc asks whether something new exists and has another way, with EPERM otherwise.

Left out on purpose, for everybody: executing, new processes (but the compiler forks), ptrace and process_vm_*, pidfd_*, bpf, perf,
keyctl, io_uring, userfaultfd, mounts, namespaces, modules, kexec, chroot, every change of user, path-based chmod, chown, truncate
and xattr (which Landlock does not govern), System V IPC, message queues, and sockets but those that a role names.
"""

import os
import signal
import socket
from typing import NamedTuple

from security.sandbox.profiles import ConfinedRole, Network

ALL_BITS = 0xFFFF_FFFF


class Match(NamedTuple):
    """True if the low 32 bits of an argument, under a mask, have a value. The kernel reads these arguments as 32 bits."""

    argument: int
    value: int
    mask: int = ALL_BITS


class Rule(NamedTuple):
    """A system call that is allowed: always, or if one of the alternatives holds in full and nothing refused does."""

    alternatives: tuple[tuple[Match, ...], ...] = ((),)
    refused: tuple[Match, ...] = ()


_MEMORY = "brk mmap munmap mprotect mremap madvise mincore msync mlock mlock2 munlock munlockall membarrier"
_FILES = """read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 open openat openat2 close close_range
    lseek fstat stat lstat newfstatat statx statfs fstatfs access faccessat faccessat2 readlink readlinkat getdents getdents64
    getcwd flock dup dup2 dup3 fcntl fadvise64 readahead sendfile copy_file_range splice fsync fdatasync sync_file_range umask
    chdir fchdir"""
_WAITING = """poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd
    eventfd2 timerfd_create timerfd_settime timerfd_gettime signalfd signalfd4 pipe pipe2 pause"""
_TIME = """clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time times getitimer setitimer alarm timer_create
    timer_settime timer_gettime timer_delete timer_getoverrun"""
_THREADS = """futex futex_waitv set_robust_list get_robust_list rseq set_tid_address exit exit_group sched_yield
    sched_getaffinity sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min
    sched_getattr getpriority restart_syscall wait4 waitid"""
_SIGNALS = "rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigsuspend rt_sigtimedwait sigaltstack"
_FACTS = """getpid gettid getppid getuid geteuid getgid getegid getgroups getresuid getresgid getpgrp getpgid getsid getrlimit
    getrusage sysinfo uname getrandom getcpu capget arch_prctl get_mempolicy"""
_LINKS = "sendmsg recvmsg sendmmsg recvmmsg sendto recvfrom getsockopt setsockopt getsockname getpeername shutdown"
_EVERYBODY = f"{_MEMORY} {_FILES} {_WAITING} {_TIME} {_THREADS} {_SIGNALS} {_FACTS} {_LINKS}"

_WRITING = "ftruncate fallocate rename renameat renameat2 link linkat unlink unlinkat mkdir mkdirat rmdir utimensat"
_ACCEPTING = "accept accept4 listen"
_COMPUTING = "mbind set_mempolicy memfd_create"
_STARTING_CUDA = "socket bind connect mkdir mkdirat unlink unlinkat symlink symlinkat"
"""What CUDA 13's driver was recorded to call when it starts, and does not start without: it listens on a Unix socket, looks for
its daemons, and renews links below /dev. The network is empty then, and Landlock refuses the changes of files; what is left
is that such an engine can dial a Unix socket that lies on a path."""

_CLONE_THREAD = 0x0001_0000
_CLONE_NAMESPACES = 0x7E02_0080
"""CLONE_NEWNS and all its siblings; a thread cannot take one, but the rule says so by itself."""
_CLONE_VM = 0x0000_0100
_FORK = (Match(0, signal.SIGCHLD, 0xFF | _CLONE_VM | _CLONE_THREAD | _CLONE_NAMESPACES),)
"""What libc's fork() asks for: a copy that ends with SIGCHLD, and shares nothing."""
_TIOCSTI, _TIOCLINUX, _TIOCSETD = 0x5412, 0x541C, 0x5423
"""Typing into the operator's terminal, which standard error may be."""
_FIOSETOWN, _SIOCSPGRP = 0x8901, 0x8902
_F_SETOWN, _F_SETSIG, _F_SETOWN_EX = 8, 10, 15
"""Having the kernel send SIGIO, or worse, to another process of the same user."""
_REFUSED_IOCTLS = (_TIOCSTI, _TIOCLINUX, _TIOCSETD, _FIOSETOWN, _SIOCSPGRP)
_PRCTLS = (1, 2, 3, 15, 16, 21, 23, 25, 27, 38, 39, 41, 42, 0x53564D41)
"""Names, getters, the death signal, timers, memory names. Not PR_SET_DUMPABLE, PR_SET_PTRACER or PR_SET_MM."""
_PRIVATE = 0o077

PRETENDED_MISSING = ("clone3", "set_mempolicy_home_node")
"""Answered with ENOSYS: libc has another way. The flags of clone3 lie in memory, where no filter can see them."""


def build_rules(
    role: ConfinedRole, network: Network, *, uses_gpu: bool = False, connects: bool = False
) -> dict[str, Rule]:
    """The rules for a process of `role`, by the call's name. Names that an architecture lacks are passed over later."""
    own_process = (Match(0, os.getpid()),)
    rules = dict.fromkeys(_EVERYBODY.split(), Rule())
    rules["clone"] = Rule(((Match(0, _CLONE_THREAD, _CLONE_THREAD | _CLONE_NAMESPACES),),))
    rules["ioctl"] = Rule(refused=tuple(Match(1, request) for request in _REFUSED_IOCTLS))
    rules["fcntl"] = Rule(refused=tuple(Match(1, command) for command in (_F_SETOWN, _F_SETSIG, _F_SETOWN_EX)))
    rules["prctl"] = Rule(tuple((Match(0, option),) for option in _PRCTLS))
    rules["prlimit64"] = Rule(((Match(0, 0),), own_process))
    rules["sched_setaffinity"] = Rule(((Match(0, 0),), own_process))
    rules["kill"] = rules["tgkill"] = Rule((own_process,))
    rules["landlock_create_ruleset"] = Rule(((Match(2, 1),),))
    if role in ("gateway", "policy", "auditor", "authority", "reader"):
        rules |= dict.fromkeys(_WRITING.split(), Rule())
        rules["fchmod"] = Rule(((Match(1, 0, _PRIVATE),),))
    if role == "compiler":  # A child for each grammar; it inherits the filter, and nothing can be executed
        rules["clone"] = Rule((*rules["clone"].alternatives, _FORK))
    if role in (
        "gateway",
        "policy",
        "authority",
        "compiler",
        "reader",
        "courier",
        "console",
    ):  # asyncio wakes its loop through a pair
        rules["socketpair"] = _socket_rule((socket.AF_UNIX,))
    if role in ("gateway", "policy", "authority", "console"):
        rules |= dict.fromkeys(_ACCEPTING.split(), Rule())
    is_sent_out = (role == "policy" and network == "host") or (role == "authority" and connects)
    if (
        role in ("gateway", "courier", "console") or is_sent_out
    ):  # to a database server, to the people's identity provider
        rules["socket"] = _socket_rule((socket.AF_INET, socket.AF_INET6))
        rules["connect"] = Rule()
    if role == "engine":
        rules |= dict.fromkeys(_COMPUTING.split(), Rule())
    if uses_gpu:
        rules |= dict.fromkeys(f"{_STARTING_CUDA} {_ACCEPTING}".split(), Rule())
    return rules


def _socket_rule(families: tuple[int, ...]) -> Rule:
    """Streams only: a datagram socket could be pointed elsewhere later, and needs no connection to send."""
    kinds = Match(1, socket.SOCK_STREAM, 0xF)
    return Rule(tuple((Match(0, family), kinds) for family in families))
