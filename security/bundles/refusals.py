"""What TUF's client objects to, in words for whoever stands before the host: what is wrong with the medium, and what to do.

The client's own words stay at the end, in brackets. Nothing is decided here.
"""

import datetime
import errno
import re
from pathlib import Path

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    UnsignedMetadataError,
)

from security.bundles.medium import METADATA, Medium
from security.bundles.trust import Owner
from security.errors import BundleRejected, BundleUnreadable, MalformedDocument, SecurityFault
from security.json_object import parse_json_object

_MAX_LOOKED_AT_BYTES = 32 << 20
BUILT_APART = (
    "have it built again with `casemate bundle build --previous`, given the newest bundle that this host has seen"
)


def explain_refusal(error: Exception, medium: Medium, owner: Owner, *, now: datetime.datetime) -> SecurityFault:
    """The client's refusal in our family; a failure of the medium stays one."""
    if isinstance(error.__cause__, SecurityFault):
        return error.__cause__
    return BundleRejected(f"{_explain(error, medium, owner, now)} ({error})")


def _explain(error: Exception, medium: Medium, owner: Owner, now: datetime.datetime) -> str:
    match error:
        case ExpiredMetadataError():
            return _explain_expiry(str(error), medium, owner, now)
        case BadVersionNumberError() if "must be >=" in str(error):
            return f"{medium.path}: is older than what this host has seen, and none goes back: take the newest, or {BUILT_APART}"
        case UnsignedMetadataError():
            return f"{medium.path}: is not signed by enough of the keys in the {owner} root that this host believes"
        case DownloadHTTPError():
            return f"{medium.path}: is no bundle, or was copied in part"
        case LengthOrHashMismatchError() | DownloadLengthMismatchError() | BadVersionNumberError():
            return f"{medium.path}: parts of two bundles, or a damaged copy: copy the bundle again"
    return f"{medium.path}: metadata that are malformed or do not fit together"


def _explain_expiry(text: str, medium: Medium, owner: Owner, now: datetime.datetime) -> str:
    role = next((role for role in ("root", "timestamp", "snapshot", "targets") if role in text), "metadata")
    expired = f"expired{_read_expiry(medium, role)}, and the clock says {now:%Y-%m-%d}"
    if role == "root":
        return f"the {owner} root {expired}: a bundle with a newer root is needed"
    return f"{medium.path}: {expired}: if the clock is right, have the bundle built again"


def _read_expiry(medium: Medium, role: str) -> str:
    """` on DAY`, of the newest file of a role; nothing if it cannot be told. Only words depend on it."""
    pattern = re.compile(rf"{METADATA}/(?:(\d{{1,9}})\.)?{role}\.json")
    found = [match for name in medium.files if (match := pattern.fullmatch(name))]
    if not found:
        return ""
    newest = max(found, key=lambda match: int(match[1] or 0))[0]
    try:
        day = str(parse_json_object(medium.read_bounded(newest, _MAX_LOOKED_AT_BYTES))["signed"]["expires"])[:10]
    except (SecurityFault, MalformedDocument, KeyError, TypeError):
        return ""
    return f" on {day}" if re.fullmatch(r"\d{4}-\d\d-\d\d", day) else ""


def explain_unwritable(path: Path, error: OSError) -> BundleUnreadable:
    """A place on the host's own disk that cannot be written to."""
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    what = "the disk is full: make room there" if is_full else f"{error.strerror}"
    return BundleUnreadable(f"{path}: cannot be written: {what}; then try again, which goes on from here")
