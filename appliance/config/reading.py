"""TOML bytes to frozen Structs, strictly, with every problem found and not only the first.

Steps: (1) bytes to tables, bounded; (2) each key alone, against its own type and range; (3) each table as its Struct, whose
own rules run; (4) paths made absolute, from the file's folder. Nothing is clamped, guessed or ignored.

Refuses: keys that nobody reads, with the name of the nearest key that somebody does, if one is near. Reads no file and no
environment.
"""

import difflib
import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import NODEFAULT, Struct
from msgspec.structs import FieldInfo

from appliance.config import keys
from appliance.config.errors import Problem
from appliance.config.locations import nearest_line

MAX_CONFIGURATION_BYTES = 1 << 20
StructT = TypeVar("StructT", bound=Struct)
_POSITION = re.compile(r" - at `\$(?P<path>[^`]*)`$")


class UnreadableToml(Exception):
    """The bytes are not a TOML document; `problem` says where. Caught in `appliance.config.loading`."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def decode_toml(data: bytes) -> tuple[str, dict[str, Any]]:
    """Step (1): the text and its tables.

    Raises: UnreadableToml.
    """
    if len(data) > MAX_CONFIGURATION_BYTES:
        raise UnreadableToml(Problem("", f"expected at most {MAX_CONFIGURATION_BYTES} bytes, got {len(data)}"))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UnreadableToml(Problem("", "expected UTF-8 text, got other bytes", line)) from None
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+)", str(error))
        raise UnreadableToml(Problem("", f"not TOML: {error}", int(found[1]) if found else None)) from None
    except RecursionError:
        raise UnreadableToml(Problem("", "not TOML: nested too deeply")) from None


class Reader:
    """Reads one document; collects what is wrong with it in `problems`."""

    def __init__(self, directory: Path, lines: dict[str, int], root: type[Struct]) -> None:
        self.problems: list[Problem] = []
        self._directory = directory
        self._lines = lines
        self._all_keys = {key.path for key in keys.walk_keys(root)}

    def read(self, struct: type[StructT], table: dict[str, Any], prefix: str = "") -> StructT | None:
        """Steps (2) to (4) for one table; None when a problem was recorded."""
        before = len(self.problems)
        fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
        for name in table.keys() - fields.keys():
            self._report(prefix + name, self._unknown(name, list(fields), prefix))
        values = {field.name: value for field in fields.values() for value in self._read_field(field, table, prefix)}
        if len(self.problems) > before:
            return None
        try:
            # (3) __post_init__ holds the rules between a table's own keys.
            return struct(**values)
        except (ValueError, TypeError) as error:
            self._report(prefix.rstrip("."), str(error))
            return None

    def _read_field(self, field: FieldInfo, table: dict[str, Any], prefix: str) -> list[Any]:
        """The value of one key in a list, or an empty list when the default stands or a problem was recorded."""
        path = prefix + field.encode_name
        inner, entry = keys.table_type(field.type), keys.array_type(field.type)
        if field.encode_name not in table and not (inner and keys.default_of(field) is not None):
            return self._default(field, path)
        # A section that is left out is read as an empty one, so that its own required keys and paths are treated alike.
        value = table.get(field.encode_name, {})
        if inner and isinstance(value, dict):
            return [section] if (section := self.read(inner, value, path + ".")) else []
        if entry and isinstance(value, list) and all(isinstance(item, dict) for item in value):
            entries = [self.read(entry, item, f"{path}[{index}].") for index, item in enumerate(value)]
            return self._convert(field, [item for item in entries if item], path) if all(entries) else []
        return self._convert(field, value, path)

    def _default(self, field: FieldInfo, path: str) -> list[Any]:
        default = keys.default_of(field)
        if default is NODEFAULT:
            wanted = f"[[{path}]] tables" if keys.array_type(field.type) else keys.describe_type(field.type)
            self._report(path, f"required and missing; expected {wanted}")
        elif keys.is_path(field) and default is not None:
            return [self._resolve(default)]
        return []

    def _convert(self, field: FieldInfo, value: Any, path: str) -> list[Any]:
        try:
            converted = msgspec.convert(value, field.type, strict=True)
        except msgspec.ValidationError as error:
            position = _POSITION.search(str(error))
            self._report(path + (position["path"] if position else ""), self._refusal(field, value))
            return []
        if keys.is_path(field) and converted is not None:
            converted = self._resolve(converted)
        return [converted]

    def _refusal(self, field: FieldInfo, value: Any) -> str:
        expected = keys.describe_type(field.type)
        if keys.array_type(field.type):
            name = field.encode_name
            return f"expected one or more tables, each headed [[{name}]]; got {_toml_kind(value)}"
        if keys.table_type(field.type):
            return f"expected a table; got {_toml_kind(value)}"
        if keys.is_secret(field):
            return f"expected {expected}"
        return f"expected {expected}; got {_abbreviate(value)}"

    def _resolve(self, value: Any) -> Any:
        """Step (4): text, or lists of it."""
        if isinstance(value, str):
            return str(self._directory.joinpath(value).absolute()) if value else value
        return type(value)(self._resolve(item) for item in value)

    def _unknown(self, name: str, known: list[str], prefix: str) -> str:
        table = f"[{prefix.rstrip('.')}]" if prefix else "the top level"
        nearest = max(known, key=lambda one: difflib.SequenceMatcher(None, name, one).ratio(), default=None)
        close = nearest is not None and _are_near(name, nearest)
        elsewhere = sorted(path for path in self._all_keys if path.rpartition(".")[2] == name)
        if not close and elsewhere:
            return f"unknown key in {table}; it belongs elsewhere: {', '.join(elsewhere)}"
        if not close:
            return f"unknown key in {table}; `casemate config explain` lists those that there are"
        return f"unknown key in {table}; the nearest known key is {prefix}{nearest}"

    def _report(self, path: str, message: str) -> None:
        self.problems.append(Problem(path, message, nearest_line(self._lines, path)))


def _are_near(name: str, key: str) -> bool:
    """Whether one may be meant by the other: alike as a whole, and without words that both have (`page_size` is no `tp_size`)."""
    words, others = name.split("_"), key.split("_")
    rest = "_".join(word for word in words if word not in others)
    other_rest = "_".join(word for word in others if word not in words)
    whole = difflib.SequenceMatcher(None, name, key).ratio()
    return whole >= 0.6 and (not rest or difflib.SequenceMatcher(None, rest, other_rest).ratio() >= 0.5)


def _abbreviate(value: Any) -> str:
    text = repr(value)
    if isinstance(value, bool):
        text = text.lower()
    if isinstance(value, str):
        text = f'"{value}"'
    return text if len(text) <= 80 else text[:77] + "…"


def _toml_kind(value: Any) -> str:
    if value == []:
        return "none"
    return "one table" if isinstance(value, dict) else "a list" if isinstance(value, list) else _abbreviate(value)
