"""A host with a real systemd for a test, made of namespaces on this machine; `booted_host.sh` says of what.

Needs root, Linux with overlayfs and cgroup2, and systemd installed; nothing is fetched. Everything is gone when it ends.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.waiting import wait_until

_SCRIPT = Path(__file__).with_suffix(".sh")
_SYSTEMD = Path("/lib/systemd/systemd")
_NAMESPACES = ("--mount", "--pid", "--fork", "--net", "--uts", "--ipc", "--cgroup", "--kill-child")
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_BOOT_S = 120.0


def why_not_bootable() -> str:
    """What this machine lacks; empty if a host can be tried."""
    if os.geteuid() != 0:
        return "booting a host needs root"
    for program in ("unshare", "nsenter", "systemctl", "runuser"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if not _SYSTEMD.exists():
        return "systemd is not installed"
    if _find_cgroup2() is None:
        return "there is no cgroup2 file system"
    if not Path(sys.executable).resolve().is_relative_to("/usr"):
        return "services do not see this interpreter, which is not below /usr"
    return ""


def _find_cgroup2() -> Path | None:
    with open("/proc/self/mounts") as lines:
        found = [line.split() for line in lines]
    return next((Path(one[1]) for one in found if one[2] == "cgroup2"), None)


class BootedHost:
    """Boots when it is made; `close` ends it with all its processes."""

    def __init__(self, base: Path, source: Path, carried: Path) -> None:
        """
        Args:
            base: an empty folder, for its mounts.
            source: seen as `/opt/source`.
            carried: seen as `/opt/carried`.
        Raises: OSError, where this machine does not allow it.
        """
        parent = _find_cgroup2()
        assert parent is not None
        self._cgroup = parent / f"casemate-test-{os.getpid()}"
        self._cgroup.mkdir()
        enter = 'echo $$ > "$0/cgroup.procs" && exec unshare "$@"'
        words = [*_NAMESPACES, "sh", str(_SCRIPT), str(base), str(source), str(carried)]
        self._said = (base.parent / "boot.log").open("w+b")
        self._process = subprocess.Popen(
            ["sh", "-c", enter, str(self._cgroup), *words],
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=self._said,
        )
        try:
            wait_until(self._is_up_or_gone, _BOOT_S)
            if self._process.poll() is not None:
                raise OSError(f"no host can be booted here: {Path(self._said.name).read_text()[-500:]}")
        except BaseException:
            self.close()
            raise

    def run(self, script: str, *, timeout_s: float = 180.0) -> subprocess.CompletedProcess[str]:
        """A shell's script, as root in the host."""
        words = ["nsenter", f"--target={self._first_process()}", "--all", "--", "bash", "-euc", script]
        environment = {"PATH": _PATH, "HOME": "/root", "LANG": "C.UTF-8"}
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False)

    def do(self, script: str, *, timeout_s: float = 180.0) -> str:
        """The same, for what must work; gives what it printed."""
        done = self.run(script, timeout_s=timeout_s)
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}\n{self.journal()}"
        return done.stdout

    def journal(self) -> str:
        """The last of what the services said."""
        return self.run("journalctl --no-pager --lines=60 --output=cat --unit='casemate*'").stdout

    def close(self) -> None:
        """End every process of it; the mounts end with the last one."""
        with contextlib.suppress(FileNotFoundError, StopIteration):
            os.kill(self._first_process(), 9)
        self._process.kill()
        self._process.wait()
        self._said.close()
        folders = [Path(where) for where, _, _ in os.walk(self._cgroup, topdown=False)]
        wait_until(lambda: all(map(_is_removed, folders)))

    def _first_process(self) -> int:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return int(next(iter(children)))

    def _is_up_or_gone(self) -> bool:
        if self._process.poll() is not None:
            return True
        try:
            state = self.run("systemctl is-system-running || true")
        except (FileNotFoundError, StopIteration):
            return False
        return state.stdout.strip() in ("running", "degraded")


def _is_removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:  # The kernel has not taken leave of its last process yet.
        return False
    return True
