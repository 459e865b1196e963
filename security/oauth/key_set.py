"""What is accepted as an issuer's key set: an untrusted JWK Set, read strictly (RFC 7517 section 5).

Bounds: MAX_KEY_SET_BYTES, MAX_KEYS. A key of a kind that we do not use is left out, as section 5 says; one of ours with a private
member, without an id, with an id that occurs twice, or not on its curve refuses the whole set: its publisher is in trouble.
"""

from types import MappingProxyType
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey

from security.errors import MalformedDocument
from security.json_object import parse_json_object
from security.oauth.algorithms import JoseKey, algorithm_of

MAX_KEY_SET_BYTES = 64 << 10
MAX_KEYS = 32
MAX_KID_CHARS = 256

KeysById = MappingProxyType[str, JoseKey]

_CURVES: dict[tuple[str, str], type[ECKey] | type[OKPKey]] = {("EC", "P-256"): ECKey, ("OKP", "Ed25519"): OKPKey}
_MEMBERS = ("kty", "crv", "x", "y")
PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


def parse_key_set(data: bytes) -> KeysById:
    """Parse an untrusted JWK Set.

    Returns: verification keys by their id, imported once; at least one.
    Raises: MalformedDocument for whatever is refused.
    """
    if len(data) > MAX_KEY_SET_BYTES:
        raise MalformedDocument(f"key set: {len(data)} bytes, at most {MAX_KEY_SET_BYTES} are allowed")
    entries = parse_json_object(data).get("keys")
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise MalformedDocument(f"key set: expected a list of at most {MAX_KEYS} keys")
    keys: dict[str, JoseKey] = {}
    for entry in entries:
        key = _parse_key(entry)
        if key is None:
            continue
        kid, imported = key
        if kid in keys:
            raise MalformedDocument(f"key set: the id {kid!r} occurs twice")
        keys[kid] = imported
    if not keys:
        raise MalformedDocument("key set: no key for ES256 or Ed25519 signatures in it")
    return MappingProxyType(keys)


def _parse_key(entry: Any) -> tuple[str, JoseKey] | None:
    """One entry; None for a key that we do not use."""
    if not isinstance(entry, dict):
        raise MalformedDocument("key set: an entry is not an object")
    if not isinstance(entry.get("kty"), str) or PRIVATE_MEMBERS & entry.keys():
        raise MalformedDocument("key set: an entry has no type, or holds a secret")
    curve = entry.get("crv")
    key_class = _CURVES.get((entry["kty"], curve)) if isinstance(curve, str) else None
    if key_class is None or entry.get("use", "sig") != "sig":
        return None
    kid = entry.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID_CHARS:
        raise MalformedDocument("key set: a signature key has no usable id")
    try:
        # Only the members that make the key: `key_ops` and whatever else is there has no say in how it is used.
        key = key_class.import_key({name: entry[name] for name in _MEMBERS if name in entry})
        _verify_usable(key)
    except (JoseError, ValueError, KeyError, TypeError, AttributeError):
        raise MalformedDocument(f"key set: the key {kid!r} is not one") from None
    if entry.get("alg", algorithm_of(key)) != algorithm_of(key):
        raise MalformedDocument(f"key set: the key {kid!r} is for another algorithm")
    return kid, key


def _verify_usable(key: JoseKey) -> None:
    # joserfc imports lazily: a point off the curve would be noticed only with the first signature.
    key.get_op_key("verify")
