"""Where a request begins, ends and goes: what a proxy before us may understand in another way than we is refused.

Pure functions of a request's head, as llhttp has parsed it; what is malformed it has refused already. Headers are looked through by
name once: each has its price for each request.
Source: RFC 9112.
"""

import re
from collections.abc import Iterable, Sequence

_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_END_OF_AUTHORITY = re.compile(rb"[/?]")


def verify_framing(version: str, headers: Sequence[tuple[bytes, bytes]]) -> None:
    """What a proxy before us may understand in another way than we is refused: a host that is missing, repeated or none (RFC 9112
    section 3.2), a transfer coding besides `chunked`, and any in HTTP/1.0 (section 6.1). The rest llhttp refuses.

    Raises: ValueError.
    """
    names = [name for name, _ in headers]
    num_hosts = names.count(b"host")
    if num_hosts > 1 or (num_hosts == 0 and version != "1.0"):
        raise ValueError("expected one Host header")
    if num_hosts and not _HOST.fullmatch(headers[names.index(b"host")][1]):
        raise ValueError("Host: expected a name or an address")
    if b"transfer-encoding" in names:
        codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
        if version == "1.0" or any(coding != b"chunked" for coding in codings):
            raise ValueError("Transfer-Encoding: expected chunked, in HTTP/1.1")


def verify_target(target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """A target that a proxy before us may understand in another way is refused as well: one with a fragment, and a whole address
    (RFC 9112 section 3.2.2) of another host than Host says.

    Raises: ValueError.
    """
    if b"#" in target:
        raise ValueError("a request's target has no fragment")
    if not target.startswith(b"/") and b"://" in target:
        authority = _END_OF_AUTHORITY.split(target.partition(b"://")[2], 1)[0]
        if any(name == b"host" and value.lower() != authority.lower() for name, value in headers):
            raise ValueError("Host: expected that of the request's target")


def has_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request of these headers has one."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0")) for name, value in headers
    )
