"""The log, for auditors: the newest records that match, and one record as it stands. The reader records each reading."""

import datetime
import re
from typing import Any

from starlette.responses import Response

from appliance.console.appliance_api import ApplianceApi
from appliance.console.errors import Declined
from appliance.console.pages import Pages
from appliance.console.routes import ConsoleRoutes, Visit
from security.scopes import Scope

TERMS = ("actor", "client", "model", "kind", "outcome", "tenant", "request")
BOUNDS = (("since", "From (UTC)"), ("until", "Before (UTC)"))
PAGE_SIZE = 50
MAX_TERM_CHARS = 256
_INDEX = re.compile(r"[0-9]{1,15}")


class RecordRoutes:
    """Searching and reading."""

    def __init__(self, api: ApplianceApi, pages: Pages) -> None:
        self._api = api
        self._pages = pages

    def register(self, routes: ConsoleRoutes) -> None:
        """Add them."""
        routes.add("GET", "/records", Scope.AUDIT_LOG, self.search)
        routes.add("GET", "/records/{id}", Scope.AUDIT_LOG, self.show)

    async def search(self, visit: Visit) -> Response:
        """A search by the query's terms; all that are given must match."""
        query = visit.request.query_params
        terms = {name: text for name in TERMS if (text := query.get(name, "").strip()[:MAX_TERM_CHARS])}
        bounds = {name: text for name, _ in BOUNDS if (text := query.get(name, "").strip()[:MAX_TERM_CHARS])}
        body: dict[str, Any] = {**terms, "limit": PAGE_SIZE}
        body |= {f"{name}_ms": _parse_time(text) for name, text in bounds.items()}
        before = query.get("before", "")
        if _INDEX.fullmatch(before):
            body["before"] = int(before)
        found = await self._api.send(visit.session, "gateway", "POST", "/audit/search", body)
        lines = [_summarize(one["index"], one["record"]) for one in found["records"]]
        return self._pages.render(
            "records", visit.session, terms=terms | bounds, names=TERMS, bounds=BOUNDS, lines=lines, found=found,
            after=found["next"],
        )  # fmt: skip

    async def show(self, visit: Visit) -> Response:
        """One record."""
        if not _INDEX.fullmatch(visit.segment):
            raise Declined(404, "record_not_found", "expected the index of a record")
        record = await self._api.get(visit.session, "gateway", f"/audit/record/{visit.segment}")
        return self._pages.render("record", visit.session, index=visit.segment, record=record)


def _parse_time(text: str) -> int:
    """Milliseconds since 1970 of a day or a moment, as a browser's field gives it; in UTC where it does not say another zone."""
    try:
        moment = datetime.datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
        return max(0, int(moment.timestamp() * 1000))
    except (ValueError, OverflowError):
        raise Declined(400, "invalid_time", f"expected a time such as 2026-11-25T14:30, got {text[:32]!r}") from None


def _summarize(index: int, record: dict[str, Any]) -> dict[str, Any]:
    """A record in one line: when, what kind, who (as a search for the actor finds it), about what, how it ended."""
    own = _member(record, "unmapped", "casemate")
    actor, account = _member(record, "actor", "user"), _member(record, "user")
    who = actor or account
    login = who.get("name") if who.get("uid") else ""
    what = (
        (account.get("uid") if actor else None)
        or (_member(record, "app").get("name") if str(own.get("kind")).startswith("model_") else None)
        or _member(record, "ai_model").get("name")
        or _member(record, "entity").get("name")
        or _member(record, "entity").get("uid")
        or _member(record, "app").get("uid")
        or _member(record, "actor").get("app_uid")
        or ""
    )
    status_id, time_ms = record.get("status_id"), record.get("time")
    ended = record.get("status_code") or ("success" if status_id == 1 else "failure" if status_id == 2 else "")
    return {
        "index": index,
        "at": time_ms / 1000 if isinstance(time_ms, int) else 0,
        "kind": own.get("kind", ""),
        "who": who.get("uid") or who.get("name") or "",
        "login": login if isinstance(login, str) else "",
        "what": what,
        "ended": ended,
    }


def _member(document: Any, *names: str) -> dict[str, Any]:
    for name in names:
        document = document.get(name) if isinstance(document, dict) else None
    return document if isinstance(document, dict) else {}
