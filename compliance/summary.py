"""What was counted of a period's records, as a file of the pack: whoever has the records counts again, and finds the same bytes."""

import json

from compliance.activity import Activity

SUMMARY = "log/summary.json"
MAX_SUMMARY_BYTES = 64 << 20


def encode_summary(activity: Activity) -> bytes:
    """The file, in its one form."""
    counts = {
        "clients": dict(activity.clients),
        "end": activity.end,
        "kinds": dict(activity.kinds),
        "models": dict(activity.models),
        "outcomes": dict(activity.outcomes),
        "output_tokens": activity.output_tokens,
        "people": dict(activity.people),
        "prompt_tokens": activity.prompt_tokens,
        "refusals": dict(activity.refusals),
        "silences": activity.silences,
        "silent_ms": activity.silent_ms,
        "start": activity.start,
        "unreadable": activity.unreadable,
        "unreconciled_minutes": activity.unreconciled,
    }
    return json.dumps(counts, indent=1, sort_keys=True).encode() + b"\n"
