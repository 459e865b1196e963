"""What is accepted as an issuer's key set: an untrusted JWK Set, read strictly (RFC 7517 section 5).

Bounds: MAX_KEY_SET_BYTES, MAX_KEYS. A key of a kind that we do not use is left out, as section 5 says; one of ours with a private
member, without an id, with an id that occurs twice, or not on its curve refuses the whole set: its publisher is in trouble.
"""

from types import MappingProxyType
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from security.errors import MalformedDocument
from security.json_object import parse_json_object
from security.oauth.algorithms import MIN_RSA_BITS, JoseKey, algorithms_of

MAX_KEY_SET_BYTES = 64 << 10
MAX_KEYS = 32
MAX_KID_CHARS = 256

KeysById = MappingProxyType[str, JoseKey]

_KINDS: dict[tuple[str, str | None], tuple[type[ECKey] | type[OKPKey] | type[RSAKey], tuple[str, ...]]] = {
    ("EC", "P-256"): (ECKey, ("kty", "crv", "x", "y")),
    ("EC", "P-384"): (ECKey, ("kty", "crv", "x", "y")),
    ("OKP", "Ed25519"): (OKPKey, ("kty", "crv", "x")),
    ("RSA", None): (RSAKey, ("kty", "n", "e")),
}
MAX_RSA_MODULUS_CHARS = 1400
"""8192 bits: a larger one would cost a verifier more than it is worth."""
_UNUSED_ALGORITHMS = (
    "RS384", "RS512", "PS384", "PS512", "RSA1_5", "RSA-OAEP", "RSA-OAEP-256", "RSA-OAEP-384", "RSA-OAEP-512",
    "ECDH-ES", "ECDH-ES+A128KW", "ECDH-ES+A192KW", "ECDH-ES+A256KW",
)  # fmt: skip
"""What providers publish keys for beside those that sign what we read; `use` may be absent (RFC 7517 section 4.2)."""
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
        raise MalformedDocument("key set: no key for signatures that we verify in it")
    return MappingProxyType(keys)


def _parse_key(entry: Any) -> tuple[str, JoseKey] | None:
    """One entry; None for a key that we do not use."""
    if not isinstance(entry, dict):
        raise MalformedDocument("key set: an entry is not an object")
    if not isinstance(entry.get("kty"), str) or PRIVATE_MEMBERS & entry.keys():
        raise MalformedDocument("key set: an entry has no type, or holds a secret")
    if _kind_of(entry) is None or not _is_for_signatures(entry) or _is_too_short(entry):
        return None
    kid = entry.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID_CHARS:
        raise MalformedDocument("key set: a signature key has no usable id")
    key = parse_public_key(entry)
    if not algorithms_of(key):
        return None
    if entry.get("alg") is not None and entry["alg"] not in algorithms_of(key):
        raise MalformedDocument(f"key set: the key {kid!r} is for another algorithm")
    return kid, key


def parse_public_key(entry: dict[str, Any]) -> JoseKey:
    """One untrusted public key (RFC 7517 section 4), of a kind that we use.

    Raises: MalformedDocument, also if it holds a private member, or is a point off its curve.
    """
    kind = _kind_of(entry)
    if kind is None or PRIVATE_MEMBERS & entry.keys() or _is_too_short(entry):
        raise MalformedDocument("key: not a public key of a kind that is used here")
    key_class, members = kind
    try:
        # Only the members that make the key, and of one that could be used in two ways the one it names: `key_ops` and
        # whatever else is there has no say.
        if len(str(entry.get("n", ""))) > MAX_RSA_MODULUS_CHARS:
            raise ValueError
        named = {"alg": entry["alg"]} if key_class is RSAKey and entry.get("alg") is not None else {}
        key: JoseKey = key_class.import_key({name: entry[name] for name in members} | named)
        # joserfc imports lazily: a point off the curve would be noticed only with the first signature.
        key.get_op_key("verify")
    except (JoseError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise MalformedDocument(f"key {str(entry.get('kid'))[:80]!r} is not one") from None
    return key


def _is_for_signatures(entry: dict[str, Any]) -> bool:
    """False for a key that says it is for something that nobody asks of it here (RFC 7517 sections 4.2 and 4.4)."""
    return entry.get("use", "sig") == "sig" and entry.get("alg") not in _UNUSED_ALGORITHMS


def _is_too_short(entry: dict[str, Any]) -> bool:
    """An RSA modulus of fewer than 2048 bits, by its length in base64url; the library would only warn."""
    return entry.get("kty") == "RSA" and len(str(entry.get("n", ""))) * 6 < MIN_RSA_BITS


def _kind_of(entry: dict[str, Any]) -> Any:
    kty, curve = entry.get("kty"), entry.get("crv")
    if not isinstance(kty, str) or not isinstance(curve, str | None):
        return None
    return _KINDS.get((kty, curve))
