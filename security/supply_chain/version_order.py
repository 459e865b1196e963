"""Which of two versions is newer, by the rules of their ecosystem.

Python: PEP 440 (epoch, release, pre, post, dev; local labels last). Debian: deb-version(7): epoch, upstream, revision, each
compared piece by piece, letters before other signs and `~` before everything, the end included.
"""

import re
from typing import Any

from security.supply_chain.components import Ecosystem

_PEP440 = re.compile(
    r"v?(?:(?P<epoch>\d+)!)?(?P<release>\d+(?:\.\d+)*)"
    r"(?:[-_.]?(?P<pre>a|b|c|rc|alpha|beta|pre|preview)[-_.]?(?P<pre_number>\d*))?"
    r"(?P<post>-(?P<implicit>\d+)|[-_.]?(?:post|rev|r)[-_.]?(?P<post_number>\d*))?"
    r"(?P<dev>[-_.]?dev[-_.]?(?P<dev_number>\d*))?(?:\+(?P<local>[a-z0-9]+(?:[-_.][a-z0-9]+)*))?",
    re.IGNORECASE,
)
_PRE_RANK = {"a": 0, "alpha": 0, "b": 1, "beta": 1, "c": 2, "rc": 2, "pre": 2, "preview": 2}
_LAST = 1 << 60


def version_key(ecosystem: Ecosystem, text: str) -> Any:
    """A key by which versions of one ecosystem sort.

    Raises: ValueError for what is no version there.
    """
    return _debian_key(text) if ecosystem == "deb" else _python_key(text)


def _python_key(text: str) -> Any:
    match = _PEP440.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text[:80]!r} is no version")
    release = [int(part) for part in match["release"].split(".")]
    while len(release) > 1 and release[-1] == 0:
        release.pop()
    is_pre, is_post, is_dev = match["pre"] is not None, match["post"] is not None, match["dev"] is not None
    if is_pre:
        pre = (_PRE_RANK[match["pre"].lower()], int(match["pre_number"] or 0))
    else:
        pre = (-1, 0) if is_dev and not is_post else (_LAST, 0)
    post = int(match["implicit"] or match["post_number"] or 0) if is_post else -1
    dev = int(match["dev_number"] or 0) if is_dev else _LAST
    local = [
        (1, int(part), "") if part.isdigit() else (0, 0, part)
        for part in re.split(r"[-_.]", match["local"] or "")
        if part
    ]
    return int(match["epoch"] or 0), release, pre, post, dev, local


def _debian_key(text: str) -> Any:
    if not re.fullmatch(r"(\d+:)?[A-Za-z0-9.+:~-]+", text):
        raise ValueError(f"{text[:80]!r} is no version")
    epoch, colon, rest = text.partition(":")
    if not colon:
        epoch, rest = "0", text
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "0")
    return int(epoch), _pieces(upstream), _pieces(revision)


def _pieces(text: str) -> list[Any]:
    """Alternately what is not digits, each sign ranked, and the number after it; ended, so that the end sorts among signs."""
    found: list[Any] = []
    for signs, digits in re.findall(r"(\D*)(\d*)", text):
        found += [[*map(_rank, signs), 0], int(digits or 0)]
    return found


def _rank(sign: str) -> int:
    if sign == "~":
        return -1
    return ord(sign) if sign.isalpha() else ord(sign) + 256
