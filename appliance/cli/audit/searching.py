"""`casemate audit search` and `tail`: find records by who, what and when, and watch the log grow.

Both read the log's folder and write nothing there, or ask the appliance with an auditor's token (`--url`). The index is a file of
its own that may be removed at any time.
"""

import argparse
import datetime
import json
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from appliance.cli.audit.arguments import (
    KEY_HELP,
    Counter,
    WrongUsage,
    add_folder,
    load_key,
    require_folder,
    set_handler,
)
from appliance.cli.audit.remote import RemoteLog, add_remote, open_remote
from appliance.cli.commands import Commands, add_command
from appliance.cli.main import EXIT_FAILED, EXIT_OK
from appliance.cli.terminal import escape_json
from audit.checkpoint import parse_checkpoint
from audit.entry import Json, encode_canonical
from audit.errors import EntryNotFound, LogCorrupted
from audit.formats import flatten, parse_json
from audit.index import LogIndex, Query
from audit.note import parse_note
from audit.reader import LogReader
from security.acting import acting_as_owner

POLL_S = 0.5
_TEXTS = {
    "actor": "who asked or acted",
    "client": "the client's id",
    "model": "the model's name",
    "kind": "the kind of event (docs/audit.md)",
    "outcome": "success, failure, or a status code such as stop",
    "tenant": "the tenant",
    "trace": "the W3C trace id",
    "request": "the request's public id",
    "reporter": "the process that reported it, such as gateway/0",
}


def add_search_commands(commands: Commands) -> None:
    """Add both."""
    search = add_command(commands, "search", "find records, newest first")
    add_folder(search)
    add_remote(search)
    search.add_argument("--key", metavar="VKEY", help=f"{KEY_HELP} (default: log.vkey beside the folder)")
    search.add_argument(
        "--index", metavar="FILE", type=Path, help="the index (default: reader/index.sqlite in the state folder)"
    )
    for name, text in _TEXTS.items():
        search.add_argument(f"--{name}", metavar=name.upper(), default="", help=text)
    search.add_argument("--since", metavar="TIME", help="from this time on: 2026-11-25, or with T14:30:00Z")
    search.add_argument("--until", metavar="TIME", help="before this time")
    search.add_argument("--limit", metavar="N", type=int, default=100, help="at most so many (default: %(default)s)")
    search.add_argument(
        "--before", metavar="INDEX", type=int, help="only records before this one: go on behind an earlier answer"
    )
    search.add_argument("--json", action="store_true", help="whole records in ASCII, one a line")
    set_handler(search, _search)
    tail = add_command(commands, "tail", "print the last records, and with -f those that come")
    add_folder(tail)
    add_remote(tail)
    tail.add_argument("-n", metavar="N", type=int, default=10, help="so many (default: %(default)s)")
    tail.add_argument("-f", "--follow", action="store_true", help="go on until interrupted")
    tail.add_argument("--json", action="store_true", help="whole records in ASCII, one a line")
    set_handler(tail, _tail)


def _search(arguments: argparse.Namespace) -> int:
    texts = {name: getattr(arguments, name) for name in _TEXTS}
    since_ms, until_ms = _parse_time(arguments.since, "--since"), _parse_time(arguments.until, "--until")
    if (remote := open_remote(arguments)) is not None:
        body = {name: text for name, text in texts.items() if text} | {"limit": max(1, arguments.limit)}
        bounds = {"since_ms": since_ms, "until_ms": until_ms, "before": arguments.before}
        return _search_remote(remote, body | {k: v for k, v in bounds.items() if v is not None}, arguments.json)
    folder = require_folder(arguments.dir).resolve()
    key = load_key(arguments.key or str(folder.parent / "log.vkey"))
    path = arguments.index or folder.parent.parent / "reader" / "index.sqlite"
    query = Query(**texts, since_ms=since_ms, until_ms=until_ms)
    with acting_as_owner(path.parent), closing(LogIndex(path, folder, key)) as index:
        counter = Counter("indexing")
        index.update(counter.count)
        counter.end()
        found = index.find(query, limit=max(1, arguments.limit), before=arguments.before)
        for entry in index.read(found):
            _print_line(entry, as_json=arguments.json)
        return _end_search(len(found), index.size)


def _end_search(num_found: int, num_indexed: int) -> int:
    """Whoever searches for what stands in no record is told that it was looked for, and where."""
    if not num_found:
        sys.stderr.write(
            f"casemate: none of {num_indexed} records matches; texts match whole, and people are found by their ids\n"
        )
    return EXIT_OK if num_found else EXIT_FAILED


def _search_remote(remote: RemoteLog, body: dict[str, object], as_json: bool) -> int:
    answer = remote.post("/audit/search", body)
    _print_answer(answer, as_json=as_json)
    if answer["indexed"] < answer["log_size"]:
        sys.stderr.write(f"casemate: {answer['indexed']} of {answer['log_size']} records are indexed so far\n")
    return _end_search(len(answer["records"]), answer["indexed"])


def _tail_remote(remote: RemoteLog, arguments: argparse.Namespace) -> int:
    answer = remote.post("/audit/tail", {"count": max(1, arguments.n)})
    while True:
        _print_answer(answer, as_json=arguments.json)
        if not arguments.follow:
            return EXIT_OK
        sys.stdout.flush()
        if not answer["records"]:
            time.sleep(POLL_S)
        answer = remote.post("/audit/tail", {"start": answer["next"], "count": 500})


def _print_answer(answer: dict[str, Any], *, as_json: bool) -> None:
    for one in answer["records"]:
        # Encoding what canonical JSON says gives the same bytes again.
        _print_line(encode_canonical(one["record"]), as_json=as_json)


def _tail(arguments: argparse.Namespace) -> int:
    if (remote := open_remote(arguments)) is not None:
        return _tail_remote(remote, arguments)
    reader = LogReader(require_folder(arguments.dir))
    size = _published_size(reader)
    position = max(0, size - max(0, arguments.n))
    while True:
        for index in range(position, size):
            _print_line(reader.read_entry(index, size), as_json=arguments.json)
        position = max(position, size)
        if not arguments.follow:
            return EXIT_OK
        sys.stdout.flush()
        time.sleep(POLL_S)
        size = _published_size(reader)
        if size < position:
            raise LogCorrupted(
                f"{arguments.dir}: has {size} records, {position} were there: another log has begun, or it went back"
            )


def _published_size(reader: LogReader) -> int:
    try:
        return parse_checkpoint(parse_note(reader.checkpoint_note()).text).size
    except EntryNotFound:
        return 0


def _print_line(entry: bytes, *, as_json: bool) -> None:
    if as_json:
        print(escape_json(entry.decode("utf-8", "backslashreplace")))
        return
    print(describe_record(parse_json(entry)))


def describe_record(event: Json) -> str:
    """A record in one line: index, time, kind, who, what, how it ended. ASCII only, and in quotes what has spaces or quotes in it.

    Whatever stands in its members: a record that somebody got into the log must not hide those behind it.
    """
    row = flatten(event)
    what = row["model"] or row["object"]
    words = (
        "?" if row["index"] == "" else row["index"], _describe_time(row["time"]), row["kind"] or "?", row["actor"], what,
        row["status_code"] or row["status"], row["request"],
    )  # fmt: skip
    return " ".join(_show_word(str(word)) for word in words if word != "")


def _show_word(word: str) -> str:
    """So that no name can stand for two words of the line."""
    quoted = escape_json(json.dumps(word))
    return quoted if " " in word or '"' in word else quoted[1:-1]


def _describe_time(time_ms: str | int) -> str:
    try:
        moment = datetime.datetime.fromtimestamp(int(time_ms) / 1000, datetime.UTC)
    except (ValueError, OverflowError, OSError):
        return "?"
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def _parse_time(text: str | None, name: str) -> int | None:
    if text is None:
        return None
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise WrongUsage(f"{name}: expected a time such as 2026-11-25 or 2026-11-25T14:30:00Z, got {text!r}") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return round(moment.timestamp() * 1000)
