"""Runs inside a confined process and tries what a captured one would. Prints one JSON object: attack → what came of it.

"done" means that it worked; otherwise the name of the errno. Which should be which is the business of `test_sandbox_attacks`.
"""

import argparse
import ctypes
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from security.sandbox.launch import Confined
from security.sandbox.platform import assume_platform
from security.sandbox.seccomp import confine_self

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

NUMBERS = {
    "x86_64": {
        "ptrace": 101, "setuid": 105, "personality": 135, "chroot": 161, "mount": 165, "init_module": 175, "add_key": 248,
        "request_key": 249, "keyctl": 250, "unshare": 272, "perf_event_open": 298, "setns": 308, "process_vm_readv": 310,
        "process_vm_writev": 311, "finit_module": 313, "kexec_load": 246, "bpf": 321, "userfaultfd": 323, "execveat": 322,
        "io_uring_setup": 425, "io_uring_enter": 426, "open_tree": 428, "pidfd_open": 434, "clone3": 435, "pidfd_getfd": 438,
        "name_to_handle_at": 303, "open_by_handle_at": 304, "swapon": 167, "reboot": 169, "sethostname": 170, "acct": 163,
        "shmget": 29, "mq_open": 240, "fork": 57, "vfork": 58, "tkill": 200, "rt_sigqueueinfo": 129, "fanotify_init": 300,
        "listen": 50, "accept4": 288, "memfd_create": 319, "seccomp": 317, "mknod": 133, "symlink": 88, "modify_ldt": 154,
        "kcmp": 312, "later": 5000,
    },
}  # fmt: skip


def call(name: str, *arguments: Any) -> None:
    """A raw system call by name; raises OSError."""
    number = NUMBERS[os.uname().machine][name]
    converted = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    if libc.syscall(ctypes.c_long(number), *converted) < 0:
        raise OSError(ctypes.get_errno(), name)


def read(path: str) -> None:
    with open(path, "rb") as file:
        file.read(1)


def write(path: str) -> None:
    with open(path, "wb") as file:
        file.write(b"x")


def connect(port: int) -> None:
    socket.create_connection(("127.0.0.1", port), 2).close()


def connect_abstract(kind: int, name: str) -> None:
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.connect(f"\0{name}")


def repoint_pair(name: str) -> None:
    one, _other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.connect(f"\0{name}")


def run_thread() -> None:
    threads = [threading.Thread(target=lambda: None) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def spawn() -> None:
    subprocess.run(["/bin/true"], check=True, close_fds=True)


def execute(path: str) -> None:
    """In place, so that it is exec itself that is refused."""
    os.execv(path, [path, "-c", "print('{\"executed\": true}')"])


def attach(pid: int) -> None:
    if libc.ptrace(16, pid, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")


def make_dumpable() -> None:
    if libc.prctl(4, 1, 0, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "prctl")


def limit_other(pid: int) -> None:
    import resource

    resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))


def type_into_terminal() -> None:
    import fcntl

    fcntl.ioctl(0, 0x5412, b"x")


def own_signals_to(pid: int) -> None:
    import fcntl

    fcntl.fcntl(0, fcntl.F_SETOWN, pid)


def names_in(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError as error:
        return [errno.errorcode[error.errno or 0]]


def remount(path: str) -> None:
    """Make the root writable again."""
    if libc.mount(b"none", path.encode(), b"none", 32, b"") < 0:
        raise OSError(ctypes.get_errno(), "mount")


def execute_in_child(path: str) -> None:
    """A file that may be executed as far as its mode goes, and is no program."""
    pid = os.posix_spawn(path, [path], {})
    os.waitpid(pid, 0)


def make_and_execute(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o700))
    execute_in_child(path)


def bind_unix(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(path)


def ask_device() -> None:
    """How much entropy there is, which any user may ask of this device."""
    import fcntl

    with open("/dev/urandom", "rb") as device:
        fcntl.ioctl(device, 0x80045200, bytearray(4))


def make_readable(path: str) -> None:
    """A file of one's own, open to everybody."""
    with open(path, "wb") as file:
        os.fchmod(file.fileno(), 0o644)


def control_descriptor(request: int, argument: int) -> None:
    import fcntl

    fcntl.fcntl(0, request, argument)


def control_device(request: int) -> None:
    import fcntl

    fcntl.ioctl(0, request, 0)


class EarlyThread:
    """A thread that was there before the filter, as libraries start them, and makes a call that is refused after it."""

    def __init__(self) -> None:
        self._may_go = threading.Event()
        self._failed = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def go(self) -> None:
        """Let it try; raises what it got."""
        self._may_go.set()
        self._thread.join()
        if self._failed:
            raise OSError(self._failed, "personality")

    def _run(self) -> None:
        self._may_go.wait()
        try:
            call("personality", 0xFFFF_FFFF)
        except OSError as error:
            self._failed = error.errno or 0


def make_special_files(folder: str, name: str) -> dict[str, Callable[[], None]]:
    """What a folder holds besides regular files and folders."""
    return {
        f"symlink {name}": lambda: os.symlink("/etc/shadow", f"{folder}/a-link"),
        f"fifo {name}": lambda: os.mkfifo(f"{folder}/a-fifo"),
        # Of number 0, 0, which takes no capability to make.
        f"device {name}": lambda: os.mknod(f"{folder}/a-device", 0o600 | 0o020000, os.makedev(0, 0)),
        f"unix socket {name}": lambda: bind_unix(f"{folder}/a-socket"),
    }


def late_import() -> None:
    import decimal
    import sqlite3
    import xml.dom.minidom

    assert all((decimal, sqlite3, xml))


def expect(is_so: bool) -> None:
    if not is_so:
        raise OSError(errno.ENOTRECOVERABLE, "another value")


def attacks(targets: dict[str, Any]) -> dict[str, Callable[[], None]]:
    """Everything that is tried, in an order that leaves the process alive."""
    sibling, state = targets["sibling"], targets["state"]
    tried: dict[str, Callable[[], None]] = {f"read {path}": lambda path=path: read(path) for path in targets["reads"]}
    tried |= {f"write {path}": lambda path=path: write(path) for path in targets["writes"]}
    tried |= {f"connect {name}": lambda port=port: connect(port) for name, port in targets["ports"].items()}
    tried |= {
        "thread": run_thread,
        "late import": late_import,
        "list state": lambda: os.listdir(f"{state}/tls"),
        "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close(),
        "raw": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close(),
        "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
        "vsock": lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close(),
        "unix": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).close(),
        "tcp": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM).close(),
        "bind": lambda: socket.create_server(("127.0.0.1", 0)).close(),
        "abstract": lambda: connect_abstract(socket.SOCK_STREAM, targets["abstract"]),
        "datagram pair": lambda: repoint_pair(targets["abstract_datagram"]),
        "spawn": spawn,
        "fork": lambda: call("fork"),
        "attach": lambda: attach(sibling),
        "sibling's memory": lambda: read(f"/proc/{sibling}/mem"),
        "sibling's environment": lambda: read(f"/proc/{sibling}/environ"),
        "signal": lambda: os.kill(sibling, 0),
        "signal supervisor": lambda: os.kill(os.getppid(), 0),
        "signal own": lambda: os.kill(os.getpid(), 0),
        "tkill": lambda: call("tkill", sibling, 0),
        "limits of sibling": lambda: limit_other(sibling),
        "affinity of sibling": lambda: os.sched_setaffinity(sibling, {0}),
        "signals by F_SETOWN": lambda: own_signals_to(sibling),
        "chmod": lambda: os.chmod(f"{state}/tls/server.key", 0o644),
        "chown": lambda: os.chown(f"{state}/tls/server.key", os.getuid(), -1),
        "truncate": lambda: os.truncate(f"{state}/lock", 0),
        "setxattr": lambda: os.setxattr(f"{state}/lock", "user.x", b"1"),
        "symlink": lambda: os.symlink("/", f"{state}/link"),
        "become root": lambda: os.setresuid(0, 0, 0),
        "become another": lambda: os.setresuid(targets["other_uid"], targets["other_uid"], targets["other_uid"]),
        "join a group": lambda: os.setgroups([targets["other_uid"]]),
        "kill": lambda: os.kill(sibling, signal.SIGURG),
        "dumpable": make_dumpable,
        "remount": lambda: remount("/"),
        "terminal": type_into_terminal,
        "device ioctl": ask_device,
        "fork by libc": lambda: None if os.fork() else os._exit(0),
        "behind the root": lambda: read(f"/..{state}/tls/ca.key"),
        "F_SETSIG": lambda: control_descriptor(10, signal.SIGKILL),
        "F_SETOWN_EX": lambda: control_descriptor(15, 0),
        "unlink": lambda: os.unlink(f"{state}/victims/unlinked"),
        "rmdir": lambda: os.rmdir(f"{state}/victims/folder"),
        "rename": lambda: os.rename(f"{state}/victims/renamed", f"{state}/victims/other"),
        "link": lambda: os.link(f"{state}/victims/linked", f"{state}/victims/second"),
        "mkdir": lambda: os.mkdir(f"{state}/victims/made"),
        "execute other": lambda: execute_in_child(f"{state}/victims/linked"),
        "securebits": lambda: expect(libc.prctl(27, 0, 0, 0, 0) == 0xEF),
        "hidden": lambda: expect(libc.prctl(3, 0, 0, 0, 0) == 0),
    }
    for request in ("TIOCLINUX 541C", "TIOCSETD 5423", "FIOSETOWN 8901", "SIOCSPGRP 8902"):
        tried[request] = lambda number=int(request.split()[1], 16): control_device(number)
    tried |= make_special_files(f"{state}/victims", "elsewhere")
    for path in targets["executes"]:
        tried[f"execute {path}"] = lambda path=path: execute_in_child(path)
    for folder in targets["own"]:
        tried |= make_special_files(folder, f"in {folder}")
        tried[f"execute made in {folder}"] = lambda folder=folder: make_and_execute(f"{folder}/a-program")
        tried[f"open up in {folder}"] = lambda folder=folder: make_readable(f"{folder}/a-file")
        tried[f"link into {folder}"] = lambda folder=folder: os.link(f"{state}/victims/linked", f"{folder}/a-copy")
        tried[f"move into {folder}"] = lambda folder=folder: os.rename(f"{state}/victims/moved", f"{folder}/a-victim")
    for name in NUMBERS[os.uname().machine] if targets["filtered"] else ():  # Some would end an unfiltered process.
        if name not in ("fork", "tkill", "symlink"):
            arguments = (
                (2, 0)
                if name == "seccomp"
                else (sibling, 0)
                if name in ("ptrace", "pidfd_open", "process_vm_readv", "kcmp")
                else (0, 0)
            )
            tried[name] = lambda name=name, arguments=arguments: call(name, *arguments, 0, 0, 0, 0)
    return tried


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--control-fd", type=int)
    parser.add_argument("--targets", type=json.loads)
    parser.add_argument("--confinement", type=Confined.decode)
    arguments = parser.parse_args()
    confined: Confined = arguments.confinement
    targets = arguments.targets
    assume_platform(confined.platform)
    early = EarlyThread()
    if targets["filtered"]:
        confine_self(confined.role, confined.network, uses_gpu=confined.uses_gpu, connects=confined.connects)
    outcomes: dict[str, Any] = {"applied": confined.applied, "failed": confined.failed}
    with open("/proc/self/status") as status:
        outcomes["status"] = dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)
    with open("/proc/self/limits") as limits:
        outcomes["limits"] = {line[:25].strip(): line[26:].split()[:2] for line in limits}
    outcomes["descriptors"] = sorted(
        int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")
    )
    outcomes["network"] = os.readlink("/proc/self/ns/net")
    outcomes["list /proc"] = [name for name in names_in("/proc") if name.isdigit() and name != str(os.getpid())]
    outcomes |= {f"list {path}": names_in(path) for path in ("/tmp", "/run")}
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for name, attack in ({"early thread": early.go} | attacks(targets)).items():
        pid = os.getpid()
        try:
            attack()
            outcomes[name] = "done"
        except OSError as error:
            outcomes[name] = errno.errorcode.get(error.errno or 0, str(error))
        except Exception as error:
            outcomes[name] = type(error).__name__
        if os.getpid() != pid:  # A fork that should not have worked: the child must not go on.
            os._exit(0)
    print(json.dumps(outcomes), flush=True)
    for path in ("/bin/true", sys.executable):  # last: if it works, this process is no more
        try:
            execute(path)
        except OSError as error:
            print(json.dumps({"exec " + path: errno.errorcode[error.errno or 0]}), flush=True)


if __name__ == "__main__":
    main()
