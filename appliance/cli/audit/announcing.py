"""Word for the log that records leave it, left for the supervisor before they do."""

import sys
from collections.abc import Mapping
from pathlib import Path

from appliance.cli.caller import actor
from appliance.models.places import open_outbox
from audit.errors import StorageFailed
from security.errors import SecurityFault


def announce_export(folder: Path, *, origin: str, digest: str, facts: Mapping[str, str | int]) -> None:
    """Leave the notice of an export, durably; only in an installation, as a copy of a log elsewhere has no supervisor to record it.

    Args:
        folder: the log's.
        digest: of what leaves, `sha256:…`.
    Raises: SecurityFault, StorageFailed; then nothing MUST leave.
    """
    state = folder.parent.parent
    if not (state / "audit" / "log.key").exists():
        return
    try:
        open_outbox(state).put("log_exported", name=origin, digest=digest, actor=actor(), facts=dict(facts))
    except (SecurityFault, OSError) as fault:
        sys.stderr.write(f"casemate: the export could not be recorded: {fault}\n")
        if isinstance(fault, OSError):
            raise StorageFailed(f"{state}: the notice of an export cannot be left: {fault}") from fault
        raise
