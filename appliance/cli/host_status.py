"""What `casemate status` says: both slots, which of them is the current one, and what can be done next.

It looks at the host's folder alone and changes nothing. Whether the service answers is for `/ready` and the site's own service
manager to say.
"""

import fcntl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from appliance.errors import CommandFailed
from security.bundles.slots import INCOMING, SLOTS, Host, SlotContent, SlotName
from security.bundles.switching import Transition, read_transition


@dataclass(frozen=True, slots=True)
class HostStatus:
    """What lies in a host's folder."""

    current: SlotName | None
    contents: Mapping[SlotName, SlotContent | None]
    transition: Transition | None
    """The record of a switch, which is interrupted unless a command is at work."""
    is_busy: bool
    has_copy: bool
    """Whether a part of a release was copied and is in no slot."""

    @property
    def is_interrupted(self) -> bool:
        """Whether a switch ended midway."""
        return self.transition is not None and not self.is_busy


def read_status(host: Host) -> HostStatus:
    """Look at a host. Raises: CommandFailed if there is none; BundleRejected for records that are none."""
    if not (host.path / "slots").is_dir():
        raise CommandFailed(
            f"{host.path}: no release was ever installed here: `casemate bundle install` does, --host names the folder"
        )
    contents = {name: host.content_of(name) for name in SLOTS}
    return HostStatus(host.current_slot(), contents, read_transition(host), _is_busy(host), _has_copy(host))


def describe_status(status: HostStatus) -> Iterator[str]:
    """In words, with the command that comes next."""
    for name, found in status.contents.items():
        mark = "current" if name == status.current else ""
        digest = f"sha256:{found.digest[:16]}…" if found else ""
        yield f"slot {name}     {found.name if found else 'empty':<12} {mark:<8} {digest}".rstrip()
    if status.is_busy:
        yield "busy       another command works on this host"
    elif status.transition is not None:
        what = f"the {status.transition.direction} to slot {status.transition.target}"
        yield f"broken off {what}: `casemate recover` takes it back"
    elif status.current is not None and status.contents[status.current] is None:
        yield f"broken     the current slot {status.current} is empty: install the release again"
    else:
        yield from _describe_next(status)
    if status.has_copy and not status.is_busy:
        yield "copied     a part of a release: `casemate bundle install` goes on with it"


def _describe_next(status: HostStatus) -> Iterator[str]:
    current = status.contents[status.current] if status.current is not None else None
    others = [found for name, found in status.contents.items() if found is not None and name != status.current]
    if current is None and not others:
        yield "next       `casemate bundle install` fills a slot"
    for other in others:
        if current is not None and other.version < current.version:
            yield f"back       `casemate rollback` goes back to {other.name}, by leave of two operators"
        else:
            yield f"next       `casemate upgrade` changes to {other.name}"


def _is_busy(host: Host) -> bool:
    try:
        with (host.path / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # Never locked, or not for whoever asks.
        return False
    return False


def _has_copy(host: Host) -> bool:
    try:
        return any((host.path / INCOMING).iterdir())
    except OSError:
        return False
