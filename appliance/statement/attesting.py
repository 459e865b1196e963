"""The TPM's word for the running statement: which key it quotes with, and the quote at each start.

    state/run/statement.quote.json     the quote; not there where none was taken

The statement names the key, so it has to be known before; the quote is over the statement's digest, so it comes after. It is kept
beside the statement and in the same record of the log.
"""

import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import StartRefused
from appliance.statement.files import write_file
from appliance.statement.measuring import NONE
from security.errors import TpmUnavailable
from security.tpm.attestation_key import key_digest
from security.tpm.quote import Quote
from security.tpm.quoting import read_key, take_quote
from security.tpm.settings import TpmSettings

_NONCE_BYTES = 32


@dataclass(frozen=True, slots=True)
class Attestation:
    """What became of it."""

    quote: Quote | None
    summary: str
    """For log, `/ready` and people: by which key, or why not."""


def describe_tpm(settings: TpmSettings) -> str:
    """What the statement says: the key that quotes it, as `key sha256:…`, or `none`.

    Raises: StartRefused if there has to be one.
    """
    if settings.quote == "off":
        return NONE
    try:
        return f"key sha256:{key_digest(read_key(Path(settings.device)))}"
    except TpmUnavailable as error:
        _refuse_if_required(settings, error)
        return NONE


def attest_statement(settings: TpmSettings, statement: bytes) -> Attestation:
    """Have the TPM quote a statement, given as it is kept.

    Raises: StartRefused if a quote is required and there is none.
    """
    if settings.quote == "off":
        return Attestation(None, "not quoted: tpm.quote is off")
    digest, pcrs = hashlib.sha256(statement).digest(), tuple(sorted(set(settings.pcrs)))
    try:
        quote = take_quote(Path(settings.device), digest, secrets.token_bytes(_NONCE_BYTES), pcrs)
    except TpmUnavailable as error:
        _refuse_if_required(settings, error)
        return Attestation(None, f"not quoted: {error}")
    return Attestation(quote, f"quoted by key sha256:{key_digest(quote.key)}")


def quote_path(state: Path) -> Path:
    """Where the quote of the last start is kept."""
    return state / "run" / "statement.quote.json"


def keep_quote(quote: Quote | None, state: Path) -> None:
    """Put the quote beside its statement; what is there of an earlier start goes. Raises: StartRefused."""
    path = quote_path(state)
    if quote is not None:
        write_file(path, quote.encode())
        return
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StartRefused(f"{path}: cannot be removed: {error.strerror}") from error


def _refuse_if_required(settings: TpmSettings, error: TpmUnavailable) -> None:
    if settings.quote == "required":
        raise StartRefused(f"tpm.quote is required: {error}") from error
