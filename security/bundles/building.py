"""Making a bundle: one TUF repository in a folder, from the parts of a release.

The same parts, versions and times give the same targets; metadata differ only in their signatures. A bundle that follows another
carries its root chain and higher versions; a delta leaves out the files that the earlier one already had.
Source: TUF specification 1.0, sections 4 and 6; consistent snapshots.
"""

import datetime
import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from security.bundles.medium import (
    MAX_BUNDLE_FILES,
    METADATA,
    SUMS,
    SUMS_SIGNATURE,
    TARGETS,
    digest_of,
    name_on_medium,
)
from security.bundles.release import RELEASE_FILE, Release, encode_release
from security.bundles.root_document import parse_root
from security.bundles.roots import TufSigner, tuf_key
from security.bundles.trust import Owner
from security.errors import BundleRejected, ModelFolderRejected, TrustUnusable
from security.model_signing.folder import ModelFolder
from security.model_signing.names import show_name
from security.model_signing.signer import ModelSigner

_EXECUTABLE_BITS = 0o111
_MEANS_SOMETHING_IN_URLS = frozenset("%?#")


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long metadata are good. A courier takes weeks: what expires first must outlive the journey."""

    targets: datetime.timedelta = datetime.timedelta(days=365)
    snapshot: datetime.timedelta = datetime.timedelta(days=120)


@dataclass(frozen=True, slots=True)
class Built:
    """What was made."""

    num_targets: int
    num_carried: int
    """Targets whose files lie in the bundle: fewer in a delta."""
    size_bytes: int
    version: int
    """Of snapshot and targets."""


def build_bundle(
    output: Path,
    roots: Sequence[bytes],
    release: Release,
    components: Mapping[str, Path],
    signers: Iterable[ModelSigner],
    *,
    now: datetime.datetime,
    lifetimes: Lifetimes = Lifetimes(),
    previous: Path | None = None,
    is_delta: bool = False,
) -> Built:
    """Write a bundle to a new folder.

    Args:
        roots: the root chain, from version 1 on.
        components: folders or files by the path that they get in the release.
        signers: each signs whatever the newest root lets it sign.
        previous: an earlier bundle of the same owner: versions go on from it.
        is_delta: leave out what `previous` lists.
    Raises: BundleRejected, TrustUnusable, KeyUnusable, FileExistsError.
    """
    root = _verify_chain(roots, release.owner)
    before = _load_previous(previous) if previous is not None else None
    skipped = {digest_of(target) for target in before.targets.values()} if before is not None and is_delta else set()
    found = _collect(components)
    output.mkdir(mode=0o755, parents=True)
    try:
        targets = _add_targets(output, release, found, skipped)
        version = before.version + 1 if before is not None else 1
        _write_signed(output, roots, root, targets, version, now, lifetimes, list(signers))
    except BaseException:
        # Half a bundle would only be in the way of the next try.
        shutil.rmtree(output, ignore_errors=True)
        raise
    carried = [target for path, target in targets.items() if (output / name_on_medium(path, target)).exists()]
    return Built(len(targets), len(carried), sum(target.length for target in carried), version)


def _add_targets(output: Path, release: Release, found: Mapping[str, Path], skipped: set[str]) -> dict[str, TargetFile]:
    (output / METADATA).mkdir()
    (output / TARGETS).mkdir()
    executables = tuple(path for path, file in found.items() if file.stat().st_mode & _EXECUTABLE_BITS)
    release = Release(release.owner, release.version, release.built_at, executables)
    targets = {path: _add_file(output, path, file, skipped) for path, file in found.items()}
    return {**targets, RELEASE_FILE: _add_bytes(output, RELEASE_FILE, encode_release(release))}


def _write_signed(
    output: Path,
    roots: Sequence[bytes],
    root: Root,
    targets: dict[str, TargetFile],
    version: int,
    now: datetime.datetime,
    lifetimes: Lifetimes,
    signers: list[ModelSigner],
) -> None:
    for number, data in enumerate(roots, start=1):
        (output / METADATA / f"{number}.root.json").write_bytes(data)
    _write_metadata(output, root, targets, version, now, lifetimes, signers)
    _write_sums(output, root, signers)


def _verify_chain(roots: Sequence[bytes], owner: Owner) -> Root:
    """Each root signed by itself and by the one before it, versions without a gap."""
    parsed = [parse_root(data, owner) for data in roots]
    if [root.version for root in parsed] != list(range(1, len(parsed) + 1)):
        raise TrustUnusable(f"{owner} root: expected the whole chain from version 1 on")
    for before, data in zip(parsed, roots[1:], strict=False):
        metadata = Metadata[Root].from_bytes(data)
        try:
            before.verify_delegate(Root.type, metadata.signed_bytes, metadata.signatures)
        except RepositoryError as error:
            raise TrustUnusable(f"{owner} root: {error}") from None
    return parsed[-1]


def _load_previous(path: Path) -> Targets:
    """The newest targets of an earlier bundle. It is our own: nothing is decided by it but numbers and what may be left out."""
    versions = sorted(int(file.name.split(".")[0]) for file in (path / METADATA).glob("*.targets.json"))
    if not versions:
        raise BundleRejected(f"{path}: is no bundle")
    signed = Metadata[Targets].from_file(str(path / METADATA / f"{versions[-1]}.targets.json")).signed
    assert isinstance(signed, Targets)
    return signed


def _collect(components: Mapping[str, Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name, source in components.items():
        if source.is_dir():
            try:
                with ModelFolder(source, max_files=MAX_BUNDLE_FILES) as folder:
                    found |= {f"{name}/{file.name}": source / file.name for file in folder.list_files()}
            except ModelFolderRejected as error:
                raise BundleRejected(str(error).replace("model folder", "bundle")) from None
        elif source.is_file():
            found[name] = source
        else:
            raise BundleRejected(f"{source}: there is no such file or folder")
    if RELEASE_FILE in found:
        raise BundleRejected(f"{RELEASE_FILE}: is made by the build")
    for path in found:
        if _MEANS_SOMETHING_IN_URLS & set(
            path
        ):  # TUF 4.5 recommends paths that are relative URLs, and clients join them as such.
            raise BundleRejected(
                f"{show_name(path)}: has %, ? or #, and a TUF client that fetches over HTTP would not find it"
            )
    return dict(sorted(found.items()))


def _add_file(output: Path, path: str, source: Path, skipped: set[str]) -> TargetFile:
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    target = TargetFile(source.stat().st_size, {"sha256": digest}, path)
    if digest not in skipped:
        place = output / name_on_medium(path, target)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)
        with place.open("rb") as copy:
            if hashlib.file_digest(copy, "sha256").hexdigest() != digest:
                raise BundleRejected(f"{source}: changed while it was copied")
    return target


def _add_bytes(output: Path, path: str, data: bytes) -> TargetFile:
    target = TargetFile(len(data), {"sha256": hashlib.sha256(data).hexdigest()}, path)
    (output / name_on_medium(path, target)).write_bytes(data)
    return target


def _write_metadata(
    output: Path,
    root: Root,
    targets: Mapping[str, TargetFile],
    version: int,
    now: datetime.datetime,
    lifetimes: Lifetimes,
    signers: Sequence[ModelSigner],
) -> None:
    now = now.replace(microsecond=0)
    listed = Targets(version=version, expires=now + lifetimes.targets, targets=dict(targets))
    data = _sign(listed, root, signers)
    (output / METADATA / f"{version}.targets.json").write_bytes(data)
    snapshot = Snapshot(version=version, expires=now + lifetimes.snapshot, meta={"targets.json": _meta(version, data)})
    data = _sign(snapshot, root, signers)
    (output / METADATA / f"{version}.snapshot.json").write_bytes(data)
    timestamp = Timestamp(version=version, expires=now + lifetimes.snapshot, snapshot_meta=_meta(version, data))
    (output / METADATA / "timestamp.json").write_bytes(_sign(timestamp, root, signers))


def _meta(version: int, data: bytes) -> MetaFile:
    return MetaFile(version, len(data), {"sha256": hashlib.sha256(data).hexdigest()})


def _sign(signed: Targets | Snapshot | Timestamp, root: Root, signers: Sequence[ModelSigner]) -> bytes:
    """Sign with every key that the root lets sign this role. Raises: TrustUnusable if these are too few."""
    metadata: Metadata[Any] = Metadata(signed)
    for signer in signers:
        if tuf_key(signer.public_key).keyid in root.roles[signed.type].keyids:
            metadata.sign(TufSigner(signer), append=True)
    try:
        root.verify_delegate(signed.type, metadata.signed_bytes, metadata.signatures)
    except RepositoryError:
        threshold = root.roles[signed.type].threshold
        raise TrustUnusable(
            f"{signed.type}: signed by {len(metadata.signatures)} of the root's keys, expected {threshold}: give more --key"
        ) from None
    data: bytes = metadata.to_bytes()
    return data


def _write_sums(output: Path, root: Root, signers: Sequence[ModelSigner]) -> None:
    """Digests of everything, as `sha256sum -c` reads them, signed as `openssl dgst -verify` verifies it."""
    files = sorted(path for path in output.rglob("*") if path.is_file())
    lines = []
    for path in files:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        lines.append(f"{digest}  {os.fspath(path.relative_to(output))}\n")
    sums = "".join(lines).encode()
    (output / SUMS).write_bytes(sums)
    for signer in signers:
        if tuf_key(signer.public_key).keyid in root.roles[Targets.type].keyids:
            (output / SUMS_SIGNATURE).write_bytes(signer.sign(sums))
            return
