"""Every key in words: for `casemate config explain`, `casemate config check --explain` and `docs/configuration.md`.

All of it comes from the Structs (`keys`), so that the documentation cannot lag behind: a test compares the file.
"""

import difflib
import json
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import NODEFAULT, Struct

from appliance.config.keys import Key, array_type, table_type, walk_keys
from appliance.config.locations import find_lines
from appliance.config.schema import Configuration

INTRODUCTION = """\
# Configuration

<!-- Written by `casemate config explain --markdown`; a test compares it. Change the settings modules, not this file. -->

Casemate reads one TOML file: the one named by `--config`, else the one named by the environment variable `CASEMATE_CONFIG`,
else `casemate.toml` in the current folder. It is parsed strictly: an unknown key, a wrong type or a value out of range stops
the start, and the message names the key. Relative paths start from the file's folder. Units are in the names of the keys.

`casemate config check FILE` checks a file without starting anything; with `--explain` it shows every key with its value and
where that was set. `casemate config explain KEY` says what a key means. The smallest file that works names one model:

```toml
[[engines]]
model_path = "models/my-model"
```
"""


def explain_keys(selected: str = "") -> str:
    """Keys without values: one, those of a section, or all; empty when there is none of that name."""
    return "\n\n".join(_describe(key) for key in walk_keys(Configuration) if _is_selected(key.path, selected))


def find_near_keys(selected: str) -> list[str]:
    """Up to three keys that somebody may have meant."""
    return difflib.get_close_matches(selected, [key.path for key in walk_keys(Configuration)], n=3, cutoff=0.75)


def find_values(configuration: Configuration, data: bytes, source: str) -> Iterator[tuple[str, Any, str]]:
    """Every effective key: its path, its value, and where it was set (`file:line`, or `default`)."""
    lines = find_lines(data.decode())
    for path, value in _walk_values(configuration):
        yield path, value, f"{source}:{lines[path]}" if path in lines else "default"


def explain_values(configuration: Configuration, data: bytes, source: str, selected: str = "") -> str:
    """Every effective key with its value, where it was set, its default, unit and meaning."""
    known = {key.path: key for key in walk_keys(Configuration)}
    blocks = []
    for path, value, place in find_values(configuration, data, source):
        key = known[_general(path)]
        if _is_selected(key.path, selected) or _is_selected(path, selected):
            blocks.append(f"{path} = {show(value)}    ({place})\n{_details(key)}")
    return "\n\n".join(blocks)


def render_markdown() -> str:
    """The whole of `docs/configuration.md`."""
    parts = [INTRODUCTION, *_render_table("Top level", Configuration, "")]
    for field in msgspec.structs.fields(Configuration):
        name = field.encode_name
        if table := table_type(field.type):
            parts += _render_table(f"[{name}]", table, name + ".")
        elif entry := array_type(field.type):
            parts += _render_table(f"[[{name}]]", entry, name + "[].")
    return "\n".join(parts)


def show(value: Any) -> str:
    """A value as TOML writes it."""
    if value is None:
        return "(unset)"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(show(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {show(item)}" for name, item in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


def _describe(key: Key) -> str:
    return f"{key.path}\n{_details(key)}"


def _details(key: Key) -> str:
    facts = [key.kind]
    if key.unit:
        facts.append(f"in {key.unit}" if not key.unit.startswith(("per ", "fraction")) else key.unit)
    facts.append("required" if key.default is NODEFAULT else f"default {show(key.default)}")
    return textwrap.indent("\n".join([*textwrap.wrap(key.description, 96), "; ".join(facts)]), "    ")


def _is_selected(path: str, selected: str) -> bool:
    plain, wanted = path.replace("[]", ""), selected.replace("[]", "")
    return not wanted or plain == wanted or plain.startswith(wanted + ".") or plain.endswith("." + wanted)


def _general(path: str) -> str:
    """`engines[0].name` as the key that it is an instance of: `engines[].name`."""
    return re.sub(r"\[\d+\]", "[]", path)


def _walk_values(struct: Struct, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in msgspec.structs.fields(struct):
        path, value = prefix + field.encode_name, getattr(struct, field.name)
        if isinstance(value, Struct):
            yield from _walk_values(value, path + ".")
        elif array_type(field.type) and value is not None:
            for index, entry in enumerate(value):
                yield from _walk_values(entry, f"{path}[{index}].")
        elif not table_type(field.type):
            yield path, value


def _render_table(title: str, struct: type[Struct], prefix: str) -> list[str]:
    # Keys with a dot belong to the top level's sections, which have tables of their own.
    rows = [key for key in walk_keys(struct) if struct is not Configuration or "." not in key.path]
    summary = " ".join((struct.__doc__ or "").split("\n\n")[0].split())
    lines = [f"## {title}", "", summary, "", "| key | value | default | meaning |", "|---|---|---|---|"]
    for key in rows:
        default = (
            "required" if key.default is NODEFAULT else f"`{show(key.default)}`" if key.default is not None else "unset"
        )
        cells = (f"`{prefix}{key.path}`", key.kind, default, key.description)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*lines, ""]
