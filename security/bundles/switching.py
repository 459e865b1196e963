"""Switching between slots: an upgrade that takes itself back unless the new release proves itself, and a deliberate rollback.

    (1) transition.json: from where to where    (2) the service drains and stops    (3) its state is copied aside
    (4) `current` leads to the new slot         (5) the service starts              (6) it must become ready in time
    (7) transition.json goes: done

Until (7) the old release is what counts: if the new one does not become ready, or the power fails at any step, the way back is
taken: stop, link, state, start. What state is copied is the caller's to say; the log, and what the host believes, are never
part of it: history does not go back. A rollback takes the same way, and puts back the state of before the upgrade.

An older release than the one that runs needs the signatures of two operators, see `downgrade`.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from security.bundles.medium import sync_folder
from security.bundles.slots import BACKUPS, SLOTS, TRANSITION, Host, SlotContent, SlotName
from security.errors import BundleRejected, MalformedDocument, SwitchFailed
from security.json_object import parse_json_object
from security.keys import write_replacing

_KEPT_BACKUPS = 2
_NAMES = "names.json"
"""In a copy of the state: what it is a copy of, as a name that is missing in it was missing in the state."""
Direction = Literal["upgrade", "rollback"]


class Service(Protocol):
    """What switching needs of whatever runs the appliance."""

    def stop(self) -> None:
        """Let open requests finish, then end. Raises: SwitchFailed."""

    def start(self) -> None:
        """Start what `current` leads to. Raises: SwitchFailed."""

    def wait_ready(self) -> None:
        """Return when it serves. Raises: SwitchFailed when that takes too long."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A switch in progress."""

    direction: Direction
    source: SlotName | None
    target: SlotName
    backup: str
    """Name of the copy of the state as it was before."""


@dataclass(frozen=True, slots=True)
class State:
    """The state folder, and the names in it that go back with a release."""

    path: Path
    names: Sequence[str]


def upgrade(host: Host, service: Service, state: State) -> SlotContent:
    """Switch to the other slot; see the module for the steps.

    Raises: SwitchFailed when the new release did not become ready: the old one runs again. BundleRejected.
    """
    target = host.content_of(host.other_slot())
    if target is None:
        raise BundleRejected("the other slot is empty: `casemate bundle install` fills it")
    backup = f"before-{target.name}-{target.digest[:12]}"
    _switch(host, service, state, Transition("upgrade", host.current_slot(), target.slot, backup))
    _forget_old_backups(host, backup)
    return target


def roll_back(host: Host, service: Service, state: State) -> SlotContent:
    """Switch to the other slot and put back the state as it was before the upgrade from it.

    The caller MUST have verified that this is allowed (`downgrade`).
    Raises: SwitchFailed, BundleRejected.
    """
    running, target = host.current(), host.content_of(host.other_slot())
    if running is None or target is None:
        raise BundleRejected("the other slot is empty: there is nothing to go back to")
    _switch(host, service, state, Transition("rollback", running.slot, target.slot, f"undone-{running.digest[:12]}"))
    return target


def recover(host: Host, service: Service | None, state: State) -> Transition | None:
    """Take back a switch that a power cut interrupted. To be called before anything starts.

    Returns: what was taken back; None if there was nothing.
    """
    transition = read_transition(host)
    if transition is not None:
        _go_back(host, service, state, transition)
    return transition


def read_transition(host: Host) -> Transition | None:
    """The switch in progress, if there is one. Raises: BundleRejected for a record that is none."""
    try:
        document = parse_json_object((host.path / TRANSITION).read_bytes())
        transition = Transition(**document)
    except FileNotFoundError:
        return None
    except (MalformedDocument, TypeError):
        raise BundleRejected(f"{host.path / TRANSITION}: not the record of a switch") from None
    is_known = transition.source in (None, *SLOTS) and transition.target in SLOTS
    if not is_known or transition.direction not in ("upgrade", "rollback") or "/" in transition.backup:
        raise BundleRejected(f"{host.path / TRANSITION}: not the record of a switch")
    return transition


def _switch(host: Host, service: Service, state: State, transition: Transition) -> None:
    if read_transition(host) is not None:
        raise BundleRejected("a switch was interrupted: `casemate recover` first")
    backup = host.path / BACKUPS / transition.backup
    shutil.rmtree(backup, ignore_errors=True)
    document = {name: getattr(transition, name) for name in Transition.__slots__}
    write_replacing(host.path / TRANSITION, json.dumps(document).encode())  # (1)
    try:
        service.stop()  # (2)
        _copy_state(state, backup)  # (3)
        if transition.direction == "rollback":
            _restore_before(host, state, transition)
        host.switch_to(transition.target)  # (4)
        service.start()  # (5)
        service.wait_ready()  # (6)
    except (SwitchFailed, OSError) as failure:  # A full disk as well: nobody else would start the service again.
        _go_back(host, service, state, transition)
        outcome = "nothing runs, as before" if transition.source is None else "the release of before runs again"
        raise SwitchFailed(f"{_reason(failure)}; {outcome}") from failure
    _forget_transition(host)  # (7)


def _reason(failure: Exception) -> str:
    if isinstance(failure, shutil.Error):  # All that `copytree` could not copy, of which the first says enough.
        source, _target, why = failure.args[0][0]
        return f"{source}: {why}"
    return str(failure)


def _go_back(host: Host, service: Service | None, state: State, transition: Transition) -> None:
    if service is not None:
        with contextlib.suppress(SwitchFailed):
            service.stop()
    host.switch_to(transition.source)
    _restore_state(state, host.path / BACKUPS / transition.backup)
    _forget_transition(host)
    if service is not None and transition.source is not None:
        service.start()


def _restore_before(host: Host, state: State, transition: Transition) -> None:
    """State as it was before the release that is left was put to use."""
    assert transition.source is not None
    left = host.content_of(transition.source)
    if left is not None:
        _restore_state(state, host.path / BACKUPS / f"before-{left.name}-{left.digest[:12]}")


def _copy_state(state: State, backup: Path) -> None:
    """Copied beside, made durable, and renamed: a backup that has its name is whole. Half a copy goes. Raises: OSError."""
    partial = backup.with_name(f".partial-{backup.name}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _copy_parts(state, partial)
        os.rename(partial, backup)
        sync_folder(backup.parent)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _copy_parts(state: State, partial: Path) -> None:
    partial.mkdir(mode=0o700, parents=True)
    (partial / _NAMES).write_text(json.dumps(list(state.names)))
    for name in state.names:
        source = state.path / name
        if source.is_dir():
            shutil.copytree(source, partial / name, symlinks=True)
        elif source.exists():
            shutil.copy2(source, partial / name)
        _match_owners(source, partial / name)
    _sync_tree(partial)


def _restore_state(state: State, backup: Path) -> None:
    """Put a copy back; the copy stays, so that a restoration that is interrupted can be done again.

    What goes back is what was copied: another release, with another list of names, may have done that.
    """
    if not backup.is_dir():
        return
    for name in json.loads((backup / _NAMES).read_bytes()):
        target, copy = state.path / name, backup / name
        fresh = state.path / f".restored-{name}"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.unlink(missing_ok=True)
        if copy.is_dir():
            shutil.copytree(copy, fresh, symlinks=True)
            _sync_tree(fresh)
        elif copy.exists():
            shutil.copy2(copy, fresh)
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
        if fresh.exists():
            _match_owners(copy, fresh)
            os.rename(fresh, target)
    sync_folder(state.path)


def _match_owners(source: Path, copy: Path) -> None:
    """Root copies what belongs to the user that serves: the copy must belong to that user, too."""
    if os.geteuid() != 0 or not source.exists():
        return
    for path in (source, *source.rglob("*")) if source.is_dir() else (source,):
        owner = path.lstat()
        os.chown(copy / path.relative_to(source), owner.st_uid, owner.st_gid, follow_symlinks=False)


def _forget_transition(host: Host) -> None:
    (host.path / TRANSITION).unlink(missing_ok=True)
    sync_folder(host.path)


def _forget_old_backups(host: Host, latest: str) -> None:
    backups = sorted((host.path / BACKUPS).iterdir(), key=lambda path: path.stat().st_mtime_ns)
    for path in [path for path in backups if path.name != latest][: -(_KEPT_BACKUPS - 1)]:
        shutil.rmtree(path)


def _sync_tree(path: Path) -> None:
    for parent, _, names in os.walk(path):
        for name in (*names, "."):
            if not os.path.islink(os.path.join(parent, name)):
                descriptor = os.open(os.path.join(parent, name), os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
