"""The alert channel that works without the log: one line on standard error, for whatever collects the processes' lines.

It needs no disk of ours, no network and no other process. `event` is always `audit_alert`, so that one rule in a collector finds
all of them; what else is told of an alert (`/ready`, metrics, a record) comes on top where it still can.
"""

import structlog

log = structlog.get_logger(__name__)


def raise_alert(code: str, detail: str) -> None:
    """Tell the operator that the log needs a person.

    Args:
        code: log_full, log_storage_failed, log_space_low, log_clock_jumped, log_counts_differ, log_not_witnessed,
            log_quorum_missed, log_history_disputed, rules_decided.
    """
    log.critical("audit_alert", code=code, detail=detail)
