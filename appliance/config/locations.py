"""On which line of a TOML file a key stands, so that messages and `casemate config explain` can point there.

`tomllib` gives no positions, and a parser that does would be one more dependency in front of untrusted text. This is a scan
of lines for what people write: table headers and `key = value`. It is a hint and nothing is decided by it: a key that it does
not find (inside an inline table, say) has no line.
"""

import re

_HEADER = re.compile(r"^\s*\[(?P<array>\[)?\s*(?P<name>[A-Za-z0-9_.\- ]+?)\s*\]")
_KEY = re.compile(r"^\s*(?P<name>[A-Za-z0-9_\-]+(?:\s*\.\s*[A-Za-z0-9_\-]+)*)\s*=")
_QUOTES = ('"""', "'''")


def find_lines(text: str) -> dict[str, int]:
    """Map key paths (`gateway.port`, `engines[1].model_path`, and tables themselves) to line numbers counted from 1."""
    lines: dict[str, int] = {}
    counts: dict[str, int] = {}
    prefix = ""
    open_quote: str | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if open_quote is not None:
            open_quote = None if line.count(open_quote) % 2 else open_quote
            continue
        if header := _HEADER.match(line):
            name = header["name"].replace(" ", "")
            if header["array"]:
                index = counts[name] = counts.get(name, -1) + 1
                name = f"{name}[{index}]"
            prefix = name + "."
            lines.setdefault(name, number)
        elif key := _KEY.match(line):
            lines.setdefault(prefix + key["name"].replace(" ", ""), number)
            open_quote = next((quote for quote in _QUOTES if line.count(quote) % 2), None)
    return lines


def nearest_line(lines: dict[str, int], path: str) -> int | None:
    """The key's own line, or that of the nearest table around it."""
    while path and path not in lines:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return lines.get(path)
