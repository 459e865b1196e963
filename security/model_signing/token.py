"""Signing keys in a PKCS#11 token: named by a URI (RFC 7512), never leaving the token.

`pkcs11:token=models;object=release?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=/run/keys/pin`

The token signs a digest that we compute (CKM_ECDSA, which every token has) and gives r and s, from which we make DER. The PIN
comes from a private file (`pin-source`) or is asked for; in the URI itself (`pin-value`) other users could read it in the list
of processes, so that is refused. The library is native code that runs in this process: the module is only what the caller
names, never searched for. Needs the extra `pkcs11` (python-pkcs11), imported when it is used.
"""

import contextlib
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import Hash
from cryptography.hazmat.primitives.serialization import load_der_public_key

from security.errors import KeyUnusable
from security.keys import load_private_file
from security.model_signing.elliptic import CURVES, hash_of_curve
from security.model_signing.signer import AskPassphrase, ModelSigner, load_signing_chain

SCHEME = "pkcs11:"
_MAX_URI = 4096
_PATH_ATTRIBUTES = ("token", "object", "id", "serial", "type")
_QUERY_ATTRIBUTES = ("module-path", "pin-source")


@dataclass(frozen=True, slots=True)
class TokenKey:
    """Which key of which token, by which module."""

    token: str
    module: Path
    label: str | None
    key_id: bytes | None
    pin_source: Path | None


def parse_token_uri(uri: str) -> TokenKey:
    """Parse a PKCS#11 URI (RFC 7512 section 2.3), strictly: attributes that we do not know are refused.

    Raises: KeyUnusable.
    """
    if not uri.startswith(SCHEME) or len(uri) > _MAX_URI or not uri.isascii():
        raise KeyUnusable(f"not a PKCS#11 URI: expected {SCHEME}token=…;object=…?module-path=…")
    path, _, query = uri.removeprefix(SCHEME).partition("?")
    found = _parse_attributes(path, ";", _PATH_ATTRIBUTES)
    found |= _parse_attributes(query, "&", _QUERY_ATTRIBUTES)
    if found.get("type", "private") != "private":
        raise KeyUnusable("PKCS#11 URI: type: expected private")
    if "token" not in found or not ({"object", "id"} & found.keys()):
        raise KeyUnusable("PKCS#11 URI: expected token and object, or token and id")
    if not (module := found.get("module-path", "")).startswith("/"):
        raise KeyUnusable("PKCS#11 URI: module-path: expected the absolute path of the token's library")
    pin_source = found.get("pin-source")
    return TokenKey(
        _decode(found["token"]),
        Path(_decode(module)),
        _decode(found["object"]) if "object" in found else None,
        unquote_to_bytes(found["id"]) if "id" in found else None,
        Path(_decode(pin_source).removeprefix("file://").removeprefix("file:")) if pin_source is not None else None,
    )


def _parse_attributes(text: str, separator: str, known: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for attribute in filter(None, text.split(separator)):
        name, _, value = attribute.partition("=")
        if name == "pin-value":
            raise KeyUnusable("PKCS#11 URI: pin-value would show in the list of processes: use pin-source")
        if name not in known or name in found or not value:
            raise KeyUnusable(f"PKCS#11 URI: attribute {ascii(name)[:40]} is unknown, empty or given twice")
        found[name] = value
    return found


def _decode(value: str) -> str:
    try:
        text = unquote_to_bytes(value).decode("utf-8")
    except ValueError:
        text = "\0"
    if "\0" in text:
        raise KeyUnusable("PKCS#11 URI: an attribute is not UTF-8 text")
    return text


@contextlib.contextmanager
def open_token_signer(key: TokenKey, ask_pin: AskPassphrase, *, chain: Path | None = None) -> Iterator[ModelSigner]:
    """A signer with a key in a token; the session ends with the context.

    Args:
        ask_pin: called only if the URI names no file with the PIN.
        chain: PEM certificates, that of the key first, for the certificate method.
    Raises: KeyUnusable for a token, key, PIN or certificate that cannot be used.
    """
    try:
        pkcs11 = importlib.import_module("pkcs11")
    except ImportError:
        raise KeyUnusable("keys in tokens need python-pkcs11: install casemate[pkcs11]") from None
    if key.pin_source is not None:
        pin = load_private_file(key.pin_source).decode("utf-8", "replace").strip("\r\n")
    else:
        pin = ask_pin(f"PIN of token {key.token}")
    with _translated(key, pkcs11):
        session = pkcs11.lib(str(key.module)).get_token(token_label=key.token).open(user_pin=pin)
    try:
        yield _build_signer(pkcs11, session, key, chain)
    finally:
        session.close()


def _build_signer(pkcs11: Any, session: Any, key: TokenKey, chain: Path | None) -> ModelSigner:
    attributes = {"label": key.label, "id": key.key_id}
    with _translated(key, pkcs11):
        private = session.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, **attributes)
        encoding = importlib.import_module("pkcs11.util.ec").encode_ec_public_key(
            session.get_key(object_class=pkcs11.ObjectClass.PUBLIC_KEY, **attributes)
        )
        public_key = load_der_public_key(encoding)
    algorithm = hash_of_curve(public_key.curve) if isinstance(public_key, EllipticCurvePublicKey) else None
    if not isinstance(public_key, EllipticCurvePublicKey) or algorithm is None:
        raise KeyUnusable(f"token {key.token} holds a key of another kind: expected {CURVES}")

    def sign(message: bytes) -> bytes:
        hasher = Hash(algorithm)
        hasher.update(message)
        with _translated(key, pkcs11):
            raw: bytes = private.sign(hasher.finalize(), mechanism=pkcs11.Mechanism.ECDSA)
        half = len(raw) // 2
        return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))

    return ModelSigner(public_key, sign, load_signing_chain(chain, public_key) if chain is not None else ())


@contextlib.contextmanager
def _translated(key: TokenKey, pkcs11: Any) -> Iterator[None]:
    """Turn the library's errors into ours. Its families are three: its own, ValueError, and RuntimeError for modules."""
    try:
        yield
    except (pkcs11.PKCS11Error, ValueError, RuntimeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise KeyUnusable(f"token {key.token}, by {key.module}: {reason}") from None
