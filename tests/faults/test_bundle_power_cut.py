"""The power fails at each step of an installation and an upgrade: what ran before runs, and the next try succeeds.

A child installs and switches; at its N-th change of the disk it ends without another instruction, and what it had written
without syncing is cut to half, as after a loss of power. Then the host's own commands have to cope with what lies there.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from security.bundles.installing import install_bundle
from security.bundles.slots import Host
from security.bundles.switching import State, recover, upgrade
from security.bundles.trust import HostTrust
from security.bundles.verification import open_bundle
from tests.unit.security.bundles.conftest import NOW, Vendor, write_parts

_CHANGES = ("rename", "replace", "unlink", "mkdir", "symlink", "rmdir", "fsync")
_EXIT_CUT = 9


class PowerCut:
    """Counts changes of the disk in this process, and ends it before the N-th."""

    def __init__(self, at: int, roots: tuple[Path, ...]) -> None:
        self._at, self._roots = at, roots
        self.num_changes = 0
        self._durable = {self._inode(path.stat()) for path in self._files()}

    def arm(self) -> None:
        for name in _CHANGES:
            setattr(os, name, self._wrap(name, getattr(os, name)))

    def _wrap(self, name: str, change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*arguments: Any, **options: Any) -> Any:
            self.num_changes += 1
            if self.num_changes == self._at:
                self._lose()
            result = change(*arguments, **options)
            if name == "fsync":
                self._durable.add(self._inode(os.fstat(arguments[0])))
            return result

        return changed

    def _lose(self) -> None:
        for path in self._files():
            status = path.stat()
            if self._inode(status) not in self._durable:
                os.truncate(path, status.st_size // 2)
        os._exit(_EXIT_CUT)

    def _files(self) -> list[Path]:
        found = [path for root in self._roots for path in root.rglob("*")]
        return [path for path in found if path.is_file() and not path.is_symlink()]

    @staticmethod
    def _inode(status: os.stat_result) -> tuple[int, int]:
        return status.st_dev, status.st_ino


class Service:
    """A service that leaves a mark in its state, as a migration does."""

    def __init__(self, host: Host, state: Path) -> None:
        self._host, self._state = host, state

    def stop(self) -> None:
        """Nothing runs here."""

    def start(self) -> None:
        content = self._host.current()
        assert content is not None
        (self._state / "registry" / "db").write_text(content.name)

    def wait_ready(self) -> None:
        """It is."""


def work(place: Path, bundle: str) -> None:
    """Install and upgrade."""
    host, trust = Host(place / "host"), HostTrust(place / "state" / "trust")
    state = State(place / "state", ("registry",))
    with open_bundle(place.parent / bundle, trust, "vendor", now=NOW, remember=True) as opened:
        trust.note_time(NOW)
        install_bundle(host, opened)
    upgrade(host, Service(host, state.path), state)


def verify_running(host: Host, versions: tuple[str, ...]) -> str:
    """The current slot is whole, and of one of some versions; gives which."""
    content = host.current()
    assert content is not None
    assert content.name in versions
    folder = host.folder_of(content.slot)
    for path, digest in content.files.items():
        assert hashlib.sha256((folder / path).read_bytes()).hexdigest() == digest, path
    return content.name


def cut_and_verify(template: Path, at: int) -> bool:
    """One cut; gives False when the work was done before it."""
    place = template.with_name("place")
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(template, place, symlinks=True)
    pid = os.fork()
    if pid == 0:
        try:
            cut = PowerCut(at, (place / "host", place / "state"))
            cut.arm()
            work(place, "second")
            template.with_name("changes").write_text(str(cut.num_changes))
            os._exit(0)
        except BaseException:  # A child must never come back into the test's own frames.
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, _EXIT_CUT)
    host, state = Host(place / "host"), State(place / "state", ("registry",))
    verify_running(host, ("1.0.0", "1.1.0"))
    recover(host, None, state)
    version = verify_running(host, ("1.0.0", "1.1.0"))
    assert (state.path / "registry" / "db").read_text() == version
    if version == "1.0.0":
        work(place, "second")
    verify_running(host, ("1.1.0",))
    return status != 0


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A host that runs 1.0.0, beside the bundles `first` and `second`."""
    vendor, place = Vendor(), tmp_path / "template"
    vendor.build(tmp_path / "first", write_parts(tmp_path / "parts"))
    parts = write_parts(tmp_path / "parts-2", software__run_DOT_py=b"print('two')\n")
    vendor.build(tmp_path / "second", parts, "1.1.0", previous=tmp_path / "first")
    (place / "state" / "registry").mkdir(parents=True)
    HostTrust(place / "state" / "trust").pin_root(
        "vendor", vendor.roots[0], hashlib.sha256(vendor.roots[0]).hexdigest()
    )
    work(place, "first")
    return place


def count_changes(template: Path) -> int:
    """Changes of the disk when nothing cuts them short."""
    assert not cut_and_verify(template, 1 << 30)
    return int(template.with_name("changes").read_text())


def test_power_cut_at_some_changes_of_the_disk(template: Path) -> None:
    """A few of all, and the last ones: there the new release runs already. The long tier takes every one."""
    num_changes = count_changes(template)
    assert num_changes > 50
    for at in sorted({*range(1, num_changes, 25), *range(num_changes - 7, num_changes + 1)}):
        assert cut_and_verify(template, at)


@pytest.mark.long
def test_power_cut_at_each_change_of_the_disk(template: Path) -> None:
    """Every one of them, from the first folder that is made to the last file that goes."""
    for at in range(1, count_changes(template) + 1):
        assert cut_and_verify(template, at)
