"""A page of a list that is known as a whole, in the members that OpenAI's and Anthropic's cursors have in common."""

from collections.abc import Sequence
from typing import Any

from appliance.gateway.errors import BadRequest


def page_after(entries: Sequence[dict[str, Any]], after: str | None, limit: int, *, parameter: str) -> dict[str, Any]:
    """At most `limit` entries behind the one whose id is `after`; None: from the first on.

    Raises: BadRequest if there is none of that id.
    """
    start = 0
    if after is not None:
        places = [place for place, entry in enumerate(entries) if entry["id"] == after]
        if not places:
            raise BadRequest(
                "invalid_parameter", f"{parameter}: no entry has the id {after[:64]!r}", parameter=parameter
            )
        start = places[0] + 1
    page = entries[start : start + limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": start + limit < len(entries),
    }
