"""What a release is: a version, who made it and when, and files by path, each with its length and digest.

`release.json` is a target like the others and says what the rest is. Its form is closed, so that an older host refuses what it
would not understand.
"""

import datetime
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from security.bundles.trust import Owner
from security.errors import BundleRejected, MalformedDocument
from security.json_object import parse_json_object
from security.stewards.role_file import parse_time
from security.stewards.statements import format_time

RELEASE_FILE = "release.json"
FORMAT = "casemate.release/1"
MAX_RELEASE_BYTES = 1 << 20
_VERSION = re.compile(r"(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})")

Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Release:
    """The content of `release.json`."""

    owner: Owner
    version: Version
    built_at: datetime.datetime
    executables: tuple[str, ...] = ()
    """Paths that get the executable bit."""

    @property
    def name(self) -> str:
        """The version as people write it."""
        return format_version(self.version)


def parse_version(text: str) -> Version:
    """Three numbers with dots between. Raises: BundleRejected."""
    match = _VERSION.fullmatch(text)
    if match is None:
        raise BundleRejected(f"{text[:40]!r} is not a version: expected three numbers, as 1.2.3")
    return int(match[1]), int(match[2]), int(match[3])


def format_version(version: Version) -> str:
    """The version as people write it."""
    return ".".join(map(str, version))


def encode_release(release: Release) -> bytes:
    """The file's content; the same release gives the same bytes."""
    document = {
        "type": FORMAT,
        "owner": release.owner,
        "version": release.name,
        "built_at": format_time(release.built_at),
        "executables": sorted(release.executables),
    }
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def parse_release(data: bytes) -> Release:
    """Parse the file, once its digest was verified; at most MAX_RELEASE_BYTES.

    Raises: BundleRejected.
    """
    try:
        document: Mapping[str, object] = parse_json_object(data[: MAX_RELEASE_BYTES + 1])
        if set(document) != {"type", "owner", "version", "built_at", "executables"} or document["type"] != FORMAT:
            raise MalformedDocument(f"expected a release in the form {FORMAT}")
        owner, version, executables = document["owner"], document["version"], document["executables"]
        if owner not in ("vendor", "customer") or type(version) is not str or type(executables) is not list:
            raise MalformedDocument("expected owner, version and executables")
        if not all(type(path) is str for path in executables):
            raise MalformedDocument("executables: expected paths")
        built_at = parse_time(document["built_at"], "built_at")
    except MalformedDocument as error:
        raise BundleRejected(f"{RELEASE_FILE}: {error}") from None
    return Release("vendor" if owner == "vendor" else "customer", parse_version(version), built_at, tuple(executables))
