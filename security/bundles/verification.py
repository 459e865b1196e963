"""A bundle against what this host believes: TUF's client workflow, done by python-tuf's client over the medium.

(1) The clock is not below what this host has seen. (2) Root chain, timestamp, snapshot, targets: thresholds, expiry, versions that
never go back, digests that fit together (TUF specification, section 5). (3) Every target path is a plain name with one SHA-256.
(4) Nothing else lies on the medium. (5) `release.json` is read and is of the right owner.

Looking at a bundle must not change what the host remembers, so that is done on a copy; an installation works on the original, which
then never goes back, whether the installation succeeds or not. The content of the other targets is verified where it is
copied: what was read once is not what is read a second time.
"""

import datetime
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tuf.api.exceptions import DownloadError, RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.ngclient import Updater, UpdaterConfig

from security.bundles.medium import (
    MAX_BUNDLE_FILES,
    MAX_METADATA_BYTES,
    METADATA,
    METADATA_URL,
    Medium,
    MediumFetcher,
    digest_of,
    name_on_medium,
)
from security.bundles.refusals import BUILT_APART, explain_refusal, explain_unwritable
from security.bundles.release import MAX_RELEASE_BYTES, RELEASE_FILE, Release, parse_release
from security.bundles.trust import LAST_TIME, HostTrust, Owner
from security.errors import BundleRejected, SecurityFault
from security.model_signing.names import problem_of_name, show_name

SignedRole = TypeVar("SignedRole", Root, Snapshot, Targets)

_CLOCK_TOLERANCE = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class VerifiedBundle:
    """A bundle whose metadata is good. The content of its targets was not looked at yet, but for `release.json`."""

    medium: Medium
    release: Release
    targets: dict[str, TargetFile]
    """By path, `release.json` included."""
    snapshot_version: int

    @property
    def size_bytes(self) -> int:
        """Of all targets."""
        return sum(target.length for target in self.targets.values())

    @property
    def digest(self) -> str:
        """SHA-256, hexadecimal, that stands for the release: over lines `DIGEST  PATH` in the order of paths."""
        lines = "".join(f"{digest_of(target)}  {path}\n" for path, target in sorted(self.targets.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


@contextmanager
def open_bundle(
    path: Path, trust: HostTrust, owner: Owner, *, now: datetime.datetime, remember: bool
) -> Iterator[VerifiedBundle]:
    """Verify a bundle's metadata, and hold its folder open.

    Args:
        remember: whether the host's memory of versions advances: True for an installation.
    Raises: BundleRejected, BundleUnreadable, TrustUnusable.
    """
    verify_clock(trust, now)  # (1)
    pinned = trust.pinned_root(owner)
    with Medium(path) as medium, _memory(trust, owner, remember=remember) as memory:
        try:
            _refresh(medium, memory, pinned, owner, now)  # (2)
            if remember:
                trust.share()
                _sync_files(memory)
        except OSError as error:
            raise explain_unwritable(memory, error) from None
        root, snapshot, listed = _load(memory, Root), _load(memory, Snapshot), _load(memory, Targets)
        targets = dict(sorted(listed.targets.items()))
        _verify_paths(targets)  # (3)
        names = (f"{snapshot.version}.snapshot.json", f"{listed.version}.targets.json", "timestamp.json")
        medium.verify_listed(targets, root.version, names)  # (4)
        release = _read_release(medium, targets, owner)  # (5)
        yield VerifiedBundle(medium, release, targets, snapshot.version)


def verify_clock(trust: HostTrust, now: datetime.datetime) -> None:
    """Refuse to judge expiry by a clock that is behind what this host has seen.

    Raises: BundleRejected.
    """
    seen = trust.clock_floor()
    if seen is not None and now + _CLOCK_TOLERANCE < seen:
        raise BundleRejected(
            f"the clock says {now:%Y-%m-%d}, and this host was already used on {seen:%Y-%m-%d}: set the clock; "
            f"if it was ahead on that day and is right now, remove {trust.path / LAST_TIME}"
        )


def _refresh(medium: Medium, memory: Path, pinned: bytes, owner: Owner, now: datetime.datetime) -> None:
    config = UpdaterConfig(targets_max_length=MAX_METADATA_BYTES, snapshot_max_length=1 << 20, max_delegations=0)
    try:
        updater = Updater(str(memory), METADATA_URL, fetcher=MediumFetcher(medium), config=config, bootstrap=pinned)
        updater.refresh()
        _verify_seen_version(medium, memory)
    except (RepositoryError, DownloadError) as error:
        raise explain_refusal(error, medium, owner, now=now) from None
    except SecurityFault:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # What its parser lets through.
        raise BundleRejected(f"metadata: malformed: {type(error).__name__}: {error}") from None


def _verify_seen_version(medium: Medium, memory: Path) -> None:
    """Check that a bundle of a version that was seen before is that bundle, or the same files signed anew.

    The client takes what it remembers for any medium with a good timestamp of the same version, so that another bundle of that
    version would seem to hold strange files, or be taken for the one before.
    """
    kept = Metadata[Timestamp].from_file(str(memory / f"{Timestamp.type}.json")).signed
    found = (
        Metadata[Timestamp]
        .from_bytes(medium.read_bounded(f"{METADATA}/{Timestamp.type}.json", MAX_METADATA_BYTES))
        .signed
    )
    if found.version != kept.version or found.snapshot_meta == kept.snapshot_meta:
        return
    names = [name for name in medium.files if re.fullmatch(rf"{METADATA}/\d+\.{Targets.type}\.json", name)]
    listed = [
        Metadata[Targets].from_bytes(medium.read_bounded(name, MAX_METADATA_BYTES)).signed.targets for name in names
    ]
    if listed != [_load(memory, Targets).targets]:
        raise BundleRejected(
            f"{medium.path}: has the version {found.version} of another bundle that was here: {BUILT_APART}"
        )


@contextmanager
def _memory(trust: HostTrust, owner: Owner, *, remember: bool) -> Iterator[Path]:
    kept = trust.metadata_of(owner)
    if remember:
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="casemate-verify-", ignore_cleanup_errors=True) as folder:
        copy = Path(folder) / METADATA
        try:
            _copy_memory(kept, copy)
        except OSError as error:
            raise explain_unwritable(Path(folder).parent, error) from None
        yield copy


def _copy_memory(kept: Path, copy: Path) -> None:
    (copy / "root_history").mkdir(parents=True)
    for path in kept.rglob("*.json"):
        (copy / path.relative_to(kept)).write_bytes(path.read_bytes())


def _load(memory: Path, kind: type[SignedRole]) -> SignedRole:
    """What the client has just verified and kept."""
    signed = Metadata.from_file(str(memory / f"{kind.type}.json")).signed
    assert isinstance(signed, kind)
    return signed


def _sync_files(memory: Path) -> None:
    """The client renames without syncing: after a power cut the host must not have forgotten what it has seen."""
    for path in (memory, memory / "root_history", *memory.glob("*.json"), *memory.glob("root_history/*.json")):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _verify_paths(targets: dict[str, TargetFile]) -> None:
    if len(targets) > MAX_BUNDLE_FILES:
        raise BundleRejected(f"bundle lists {len(targets)} files: at most {MAX_BUNDLE_FILES}")
    for path, target in targets.items():
        if problem := problem_of_name(path):
            raise BundleRejected(f"bundle lists {show_name(path)}: {problem}")
        digest_of(target)
    folders = {"/".join(path.split("/")[:depth]) for path in targets for depth in range(1, path.count("/") + 1)}
    if both := sorted(folders & set(targets)):
        raise BundleRejected(f"bundle lists {show_name(both[0])} as a file and as a folder")


def _read_release(medium: Medium, targets: dict[str, TargetFile], owner: Owner) -> Release:
    target = targets.get(RELEASE_FILE)
    if target is None:
        raise BundleRejected(f"bundle lists no {RELEASE_FILE}")
    name = name_on_medium(RELEASE_FILE, target)
    if target.length > MAX_RELEASE_BYTES or name not in medium.files:
        raise BundleRejected(f"{name}: missing, or longer than {MAX_RELEASE_BYTES} bytes")
    data = b"".join(medium.read_chunks(name))
    if len(data) != target.length or hashlib.sha256(data).hexdigest() != digest_of(target):
        raise BundleRejected(f"{RELEASE_FILE}: other bytes than those signed")
    release = parse_release(data)
    if release.owner != owner:
        raise BundleRejected(f"{RELEASE_FILE}: is a {release.owner}'s release, signed under the {owner}'s root")
    return release
