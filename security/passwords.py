"""Passwords and one-time codes of people: argon2id (RFC 9106), TOTP (RFC 6238), and the rules for a new password.

The parameters of argon2id are OWASP's second choice (19 MiB, two passes): a tenth of a second here, in a thread of the authority's.
A TOTP secret is stored sealed under the credentials' key, since a code cannot be checked against a hash.
"""

import base64
import hashlib
import hmac
import os
import secrets
import struct
from urllib.parse import quote

from cryptography.exceptions import InvalidKey, InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from security.errors import ClientRejected

MIN_PASSWORD_CHARS = 14
MAX_PASSWORD_CHARS = 256
REMEMBERED_PASSWORDS = 8
"""How many earlier passwords may not come back."""
MIN_KINDS = 3
MIN_CHANGED_CHARS = 6
PASSWORD_RULES = (
    f"{MIN_PASSWORD_CHARS} characters or more, of {MIN_KINDS} of these kinds: small letters, capitals, digits, others. "
    f"Not with your login in it, none of your last {REMEMBERED_PASSWORDS}, and not the current one with a few characters changed."
)
"""All of them, in words for the person."""
TOTP_STEP_S = 30
TOTP_DIGITS = 6
PASSES = 2
MEMORY_KIB = 19 << 10
_TOTP_SECRET_BYTES = 20
_NONCE_BYTES = 12
_SEAL_CONTEXT = b"casemate/totp-secret/v1"


def hash_password(password: str) -> str:
    """What is stored of a password, in the PHC string format."""
    kdf = Argon2id(salt=os.urandom(16), length=32, iterations=PASSES, lanes=1, memory_cost=MEMORY_KIB)
    return kdf.derive_phc_encoded(password.encode())


def is_password(stored: str | None, presented: str) -> bool:
    """True if this is the password; without a stored one the time taken is the same. Slow by design: not for an event loop."""
    if len(presented) > MAX_PASSWORD_CHARS:
        return False
    if stored is None:
        hash_password(presented)
        return False
    try:
        Argon2id.verify_phc_encoded(presented.encode(), stored)
    except InvalidKey:
        return False
    return True


def make_password(login: str) -> str:
    """A first password: 96 random bits, in groups that can be read out. Letters that hold the login are drawn again."""
    while True:
        text = base64.b32encode(secrets.token_bytes(12)).decode().lower().rstrip("=")
        groups = [text[start : start + 5] for start in range(0, len(text), 5)]
        password = "-".join([*groups, secrets.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") + secrets.choice("23456789")])
        if login not in password.lower():
            return password


def verify_new_password(password: str, login: str, earlier: tuple[str, ...]) -> None:
    """The rules of NIST SP 800-171 3.5.7 and 3.5.8: length, kinds of characters, none of the last ones.

    Args:
        earlier: the hashes of the current password and of those before it.
    Raises: ClientRejected, in words for the person.
    """
    if not MIN_PASSWORD_CHARS <= len(password) <= MAX_PASSWORD_CHARS:
        raise ClientRejected(f"The password must have {MIN_PASSWORD_CHARS} to {MAX_PASSWORD_CHARS} characters.")
    kinds = (str.islower, str.isupper, str.isdigit, lambda one: not one.isalnum())
    if sum(any(kind(one) for one in password) for kind in kinds) < MIN_KINDS:
        raise ClientRejected("The password must have three of: small letters, capitals, digits, other characters.")
    if login in password.lower():
        raise ClientRejected("The password must not contain the login.")
    if any(is_password(one, password) for one in earlier):
        raise ClientRejected("The password was used before.")


def verify_changed(password: str, current: str) -> None:
    """The other rule of 3.5.7, change of characters: a new password is no variation of the one that was typed beside it.

    Slow for long passwords: not for an event loop.
    Raises: ClientRejected, in words for the person.
    """
    if count_edits(current, password) < MIN_CHANGED_CHARS:
        raise ClientRejected(
            f"The password must differ from the current one in {MIN_CHANGED_CHARS} characters or more."
        )


def count_edits(before: str, after: str) -> int:
    """How many characters were put in, taken out or replaced (Levenshtein's distance)."""
    row = list(range(len(after) + 1))
    for number, one in enumerate(before, 1):
        diagonal, row[0] = row[0], number
        for column, other in enumerate(after, 1):
            diagonal, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, diagonal + (one != other))
    return row[-1]


def make_totp_secret() -> bytes:
    """A new secret for an authenticator, of the length that RFC 4226 recommends."""
    return secrets.token_bytes(_TOTP_SECRET_BYTES)


def totp_uri(secret: bytes, login: str) -> str:
    """The address that an authenticator reads, usually as a QR code."""
    encoded = base64.b32encode(secret).decode().rstrip("=")
    return f"otpauth://totp/Casemate:{quote(login)}?secret={encoded}&issuer=Casemate"


def make_code(secret: bytes, step: int) -> str:
    """The code of one time step (RFC 6238 with HMAC-SHA-1, which is what authenticators implement)."""
    digest = hmac.new(secret, struct.pack(">Q", step), hashlib.sha1).digest()
    offset = digest[-1] & 15
    (number,) = struct.unpack(">I", digest[offset : offset + 4])
    return f"{(number & 0x7FFFFFFF) % 10**TOTP_DIGITS:0{TOTP_DIGITS}d}"


def find_step(secret: bytes, code: str, now: float, last_step: int) -> int | None:
    """The time step that a code is of: this one or a neighbour, and later than the last that was used (RFC 6238 section 5.2)."""
    current = int(now) // TOTP_STEP_S
    found = None
    for step in (current - 1, current, current + 1):
        if hmac.compare_digest(make_code(secret, step).encode(), code.encode("utf-8", "replace")) and step > last_step:
            found = step
    return found


def seal(key: bytes, user_id: str, secret: bytes) -> bytes:
    """Encrypt a TOTP secret; bound to its owner, so that it cannot be moved to another."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(_sealing_key(key)).encrypt(nonce, secret, user_id.encode())


def unseal(key: bytes, user_id: str, sealed: bytes) -> bytes | None:
    """Decrypt a TOTP secret; None if it was sealed under another key or for another person."""
    try:
        return AESGCM(_sealing_key(key)).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], user_id.encode())
    except (InvalidTag, ValueError):
        return None


def _sealing_key(key: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=_SEAL_CONTEXT).derive(key)
