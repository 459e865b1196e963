"""A bundle's folder on a disk, a stick or a share: what may lie there, and reading it with bounds.

    metadata/     N.root.json, timestamp.json, N.snapshot.json, N.targets.json
    targets/      SHA256.name, in the folders of the target paths
    SHA256SUMS, SHA256SUMS.sig      for the very first release: openssl alone can verify it

Nothing on it is believed. Links, devices, names that climb, and files that no metadata lists stop the verification.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from tuf.api.exceptions import DownloadError, DownloadHTTPError, DownloadLengthMismatchError
from tuf.api.metadata import TargetFile
from tuf.ngclient import FetcherInterface

from security.errors import BundleRejected, BundleUnreadable, MalformedDocument, ModelFolderRejected
from security.json_object import parse_json_object
from security.model_signing.folder import ModelFolder
from security.model_signing.names import problem_of_name, show_name

METADATA, TARGETS, SUMS, SUMS_SIGNATURE = "metadata", "targets", "SHA256SUMS", "SHA256SUMS.sig"
_SCHEME = "medium:///"
METADATA_URL = f"{_SCHEME}{METADATA}/"
CHUNK_BYTES = 1 << 20
MAX_BUNDLE_FILES = 100_000
"""Files and folders. A release of ours has about 10,000 of them, and a site may add models."""
MAX_METADATA_BYTES = 32 << 20
_PROBLEMS_SHOWN = 10


class Medium:
    """An open bundle folder; a context manager that closes it."""

    def __init__(self, path: Path) -> None:
        """Raises: BundleRejected if there is no such folder, or it holds what no bundle may hold."""
        self.path = path
        try:
            self._folder = ModelFolder(path, max_files=MAX_BUNDLE_FILES)
        except ModelFolderRejected as error:
            raise BundleRejected(str(error)) from None
        try:
            self.files = {file.name: file for file in self._folder.list_files()}
        except ModelFolderRejected as error:
            self._folder.__exit__(None, None, None)
            raise BundleRejected(str(error).replace("model folder", "bundle")) from None

    def __enter__(self) -> "Medium":
        return self

    def __exit__(self, *_details: object) -> None:
        self._folder.__exit__(None, None, None)

    def read_chunks(self, name: str) -> Iterator[bytes]:
        """The content of a file in pieces.

        Raises: BundleRejected if it is no regular file; BundleUnreadable if the medium fails.
        """
        try:
            descriptor = self._folder.open_file(name)
        except ModelFolderRejected as error:
            raise BundleRejected(str(error)) from None
        with open(descriptor, "rb", buffering=0) as file:
            while True:
                try:
                    chunk = file.read(CHUNK_BYTES)
                except OSError as error:
                    raise BundleUnreadable(
                        f"{show_name(name)}: cannot be read: {error.strerror}; copy the bundle again"
                    ) from None
                if not chunk:
                    return
                yield chunk

    def read_bounded(self, name: str, limit_bytes: int) -> bytes:
        """The content of a file; what is longer than the limit is cut off one byte after it. Raises: as `read_chunks`."""
        data = bytearray()
        for chunk in self.read_chunks(name):
            data += chunk
            if len(data) > limit_bytes:
                break
        return bytes(data[: limit_bytes + 1])

    def verify_listed(self, targets: dict[str, TargetFile], root_version: int, names: tuple[str, ...]) -> None:
        """Check that nothing lies on the medium but what verified metadata names.

        Raises: BundleRejected, a line for each file.
        """
        known = {SUMS, SUMS_SIGNATURE, *(f"{METADATA}/{name}" for name in names)}
        known |= {f"{METADATA}/{number}.root.json" for number in range(1, root_version + 1)}
        known |= {name_on_medium(path, target) for path, target in targets.items()}
        extra = [f"{show_name(name)}: not part of the bundle" for name in self.files if name not in known]
        if extra:
            more = [f"… and {len(extra) - _PROBLEMS_SHOWN} files more"] if len(extra) > _PROBLEMS_SHOWN else []
            raise BundleRejected("\n".join(extra[:_PROBLEMS_SHOWN] + more))


class MediumFetcher(FetcherInterface):
    """Gives python-tuf's client the metadata of a medium as if it came from a server. There is no network in it.

    A member that is given twice is refused here: signatures cover what one parser made of it, and another could read it otherwise.
    """

    def __init__(self, medium: Medium) -> None:
        self._medium = medium

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = unquote(url.removeprefix(_SCHEME))
        if not url.startswith(_SCHEME) or problem_of_name(name) is not None:
            raise DownloadError(f"{url}: not on this medium")
        if name not in self._medium.files:
            raise DownloadHTTPError(f"{name} is not on the medium", 404)
        return iter((self._medium.read_bounded(name, MAX_METADATA_BYTES),))

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """The same in memory: the client would write a temporary file, and the disk may be full."""
        data = b"".join(self.fetch(url))
        name = unquote(url.removeprefix(_SCHEME))
        if len(data) > max_length:
            raise DownloadLengthMismatchError(f"{name} is longer than {max_length} bytes")
        try:
            parse_json_object(data)
        except MalformedDocument as error:
            raise BundleRejected(f"{show_name(name)}: {error}: copy the bundle again, or have it built again") from None
        return data


def name_on_medium(path: str, target: TargetFile) -> str:
    """Where a target lies: its digest before its name, as TUF's consistent snapshots have it."""
    folder, slash, name = path.rpartition("/")
    return f"{TARGETS}/{folder}{slash}{digest_of(target)}.{name}"


def digest_of(target: TargetFile) -> str:
    """SHA-256, hexadecimal. Raises: BundleRejected if the metadata has no other kind than that."""
    digest = target.hashes.get("sha256")
    if digest is None or set(target.hashes) != {"sha256"}:
        raise BundleRejected(f"{show_name(target.path)}: expected a SHA-256 digest and no other")
    return str(digest)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
