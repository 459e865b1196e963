"""Forms in which records leave for other systems: CSV, Parquet, and CEF for event collectors. One function a form, bytes only.

They are made from a record and nothing else, so that whoever has the records can make them again and compare. Neither holds
the whole record; the record itself is its canonical JSON. There is no record of which none can be made, whatever stands in its
members: one that somebody got into the log must not keep the others from being exported.

Source: RFC 4180 (CSV); ArcSight Common Event Format, version 0 (CEF). The prefix against formulas is OWASP's advice.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Iterable

import msgspec

from audit.entry import Json
from audit.parquet import Cell, encode_parquet

COLUMNS = (
    "index", "time", "kind", "class_uid", "activity_id", "status", "status_code", "severity_id", "actor", "object", "client",
    "tenant", "source", "model", "request", "trace", "prompt_tokens", "completion_tokens", "reporter", "uid",
)  # fmt: skip
INTEGERS = frozenset(("index", "time", "class_uid", "activity_id", "severity_id", "prompt_tokens", "completion_tokens"))
_FORMULA = re.compile(r"(^|[;\t\r\n])(?=[\"\s]*[=+@\uff1d\uff0b\uff0d\uff20-]|[\t\r\n])")
"""Where a spreadsheet would begin one: where semicolons or tabs separate also behind one, and behind a line break, whatever is
quoted for commas. The last four signs are full-width forms, which some take for the others."""
_LINE_BREAKS = frozenset("\n\v\f\x1c\x1d\x1e\x85\u2028\u2029")
"""Unicode's, and those that Python takes for some besides. CEF itself knows line feed and carriage return."""
_STATUS = {1: "success", 2: "failure"}
_CEF_CUSTOM = ("client", "model", "request", "uid", "object")
_CEF_SEVERITY = {1: 3, 2: 4, 3: 6, 4: 8, 5: 10, 6: 10}


def encode_csv(events: Iterable[Json]) -> bytes:
    """A header and a line a record. A text that a spreadsheet would take for a formula gets an apostrophe before it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for event in events:
        row = flatten(event)
        writer.writerow([_without_formula(row[column]) for column in COLUMNS])
    return text.getvalue().encode()


def without_formula(text: str) -> str:
    """A cell of a CSV: an apostrophe stands wherever a spreadsheet would take what follows for a formula."""
    return _FORMULA.sub(r"\1'", text)


def encode_table(events: Iterable[Json]) -> bytes:
    """The same columns as a Parquet file; what a record does not have is null, and so is a member of another type."""
    return encode_parquet(COLUMNS, INTEGERS, [_row_of(event) for event in events])


def encode_cef(event: Json) -> bytes:
    """One CEF line, without its newline."""
    row = flatten(event)
    product = _object(event, "metadata", "product")
    header = (
        "CEF:0", "Casemate", "Casemate", str(product.get("version", "")), str(row["class_uid"]), str(row["kind"]),
        str(_CEF_SEVERITY.get(number_of(event, "severity_id"), 0)),
    )  # fmt: skip
    extension = {
        "rt": row["time"], "externalId": row["index"], "outcome": row["status"], "reason": row["status_code"],
        "suser": row["actor"], "deviceProcessName": row["reporter"],
    } | _cef_source(_object(event, "src_endpoint").get("ip"))  # fmt: skip
    for number, name in enumerate(_CEF_CUSTOM, 1):
        if row[name] != "":
            extension |= {f"cs{number}Label": name, f"cs{number}": row[name]}
    fields = " ".join(f"{key}={_escape(str(value), '=')}" for key, value in extension.items() if value != "")
    return ("|".join(_escape(part, "|") for part in header) + "|" + fields).encode()


def _cef_source(address: object) -> dict[str, str | int]:
    """CEF has `src` for IPv4 alone; an address of IPv6 has a custom field, as its dictionary says."""
    if not isinstance(address, str):
        return {}
    return {"c6a2Label": "Source IPv6 Address", "c6a2": address} if ":" in address else {"src": address}


def flatten(event: Json) -> dict[str, str | int]:
    """The members of a record that fit into columns; what it does not have is empty. `actor` is who acted, `object` what was acted
    on: an account, a thing such as a key or a limit, a process, a file that was loaded."""
    own = own_of(event)
    metadata, actor, user = _object(event, "metadata"), _object(event, "actor"), _object(event, "user")
    acting, entity, app = _object(event, "actor", "user"), _object(event, "entity"), _object(event, "app")
    is_of_model = str(own.get("kind")).startswith("model_")
    account = user if acting else {}
    endpoint, context = _object(event, "src_endpoint"), _object(event, "message_context")
    values = {
        "index": metadata.get("sequence"),
        "time": event.get("time"),
        "kind": own.get("kind"),
        "class_uid": event.get("class_uid"),
        "activity_id": event.get("activity_id"),
        "status": _STATUS.get(number_of(event, "status_id"), ""),
        "status_code": event.get("status_code"),
        "severity_id": event.get("severity_id"),
        "actor": acting.get("uid") or acting.get("name") or user.get("uid") or user.get("name"),
        "object": account.get("uid")
        or account.get("name")
        or entity.get("uid")
        or entity.get("name")
        or app.get("uid"),
        "client": actor.get("app_uid"),
        "tenant": metadata.get("tenant_uid"),
        "source": endpoint.get("ip") or endpoint.get("name"),
        "model": _object(event, "ai_model").get("name") or (app.get("name") if is_of_model else None),
        "request": own.get("request_uid"),
        "trace": _object(event, "trace").get("uid"),
        "prompt_tokens": context.get("prompt_tokens"),
        "completion_tokens": context.get("completion_tokens"),
        "reporter": _object(event, "metadata", "reporter").get("name"),
        "uid": metadata.get("uid"),
    }
    return {name: value if isinstance(value, str | int) else "" for name, value in values.items()}


def own_of(event: Json) -> Json:
    """What a record says in Casemate's own words; empty where it does not."""
    return _object(event, "unmapped", "casemate")


def number_of(event: Json, name: str) -> int:
    """A number of a record; 0 where it has none, or something else of that name."""
    found = event.get(name)
    return found if isinstance(found, int) else 0


def parse_json(entry: bytes) -> Json:
    """A record that was verified before, as an object."""
    found = msgspec.json.decode(entry)
    return found if isinstance(found, dict) else {}


def _row_of(event: Json) -> list[Cell]:
    found = flatten(event)
    cells: list[Cell] = []
    for name in COLUMNS:
        value = found[name]
        if name in INTEGERS:
            cells.append(value if isinstance(value, int) else None)
        else:
            cells.append(str(value) if value != "" else None)
    return cells


def _object(event: Json, *names: str) -> Json:
    found: object = event
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _without_formula(value: str | int) -> str | int:
    return without_formula(value) if isinstance(value, str) else value


def _escape(text: str, mark: str) -> str:
    """Backslash, the form's own mark, and whatever some reader takes for the end of a line: else a name that a stranger claims is a
    line of its own to those that split as Unicode does. Other characters that control something become their number."""
    escaped = text.replace("\\", "\\\\").replace(mark, f"\\{mark}")
    return escaped if escaped.isprintable() else "".join(map(_escape_control, escaped))


def _escape_control(char: str) -> str:
    if char == "\r":
        return "\\r"
    if char in _LINE_BREAKS:
        return "\\n"
    return f"\\{ascii(char)[1:-1]}" if unicodedata.category(char) in ("Cc", "Cf") else char
