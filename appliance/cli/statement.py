"""`casemate statement key|quote|verify`: the TPM's word for what runs.

`key` prints the key of this host's TPM, which somebody who trusts nobody's word carries away once; `quote` has the TPM quote the
running statement for a nonce; `verify` checks a statement and a quote anywhere, with the key and without a TPM.
"""

import argparse
import datetime
import hashlib
import json
import secrets
import sys
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from appliance.cli.commands import Commands, add_command
from appliance.cli.main import EXIT_OK
from appliance.cli.state import add_state_options, find_state
from appliance.config.disk import load_configuration
from appliance.config.environment import find_configuration_file
from appliance.errors import CommandFailed
from appliance.statement.attesting import quote_path
from security.keys import write_exclusive
from security.model_signing.elliptic import load_public_key
from security.tpm.attestation_key import key_digest
from security.tpm.quote import MAX_NONCE_BYTES, MAX_QUOTE_BYTES, parse_quote
from security.tpm.quoting import read_key, take_quote
from security.tpm.settings import TpmSettings
from security.tpm.verification import verify_quote

_MAX_STATEMENT_BYTES = 1 << 20


def add_statement_commands(subparsers: Commands) -> None:
    """Add `statement` with its commands."""
    statement = subparsers.add_parser("statement", help="the running statement and its quote", description=__doc__)
    commands = statement.add_subparsers(metavar="COMMAND", required=True)
    key = add_command(commands, "key", "print the public key that this host's TPM quotes with", _key)
    key.add_argument("--config", metavar="FILE", help="the configuration, for [tpm]; else casemate.toml is looked for")
    quote = add_command(commands, "quote", "have the TPM quote the running statement", _quote)
    add_state_options(quote)
    quote.add_argument(
        "--nonce", type=_parse_nonce, metavar="HEX", help="the verifier's, so that the quote is a new one"
    )
    quote.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="never replaces a file")
    verify = add_command(commands, "verify", "verify a quote over a statement, anywhere and offline", _verify)
    add_state_options(verify)
    verify.add_argument("--key", type=Path, required=True, metavar="PEM", help="the key of the host's TPM")
    verify.add_argument("--statement", type=Path, metavar="FILE", help="default: that of the state directory")
    verify.add_argument("--quote", type=Path, metavar="FILE", help="default: that of the last start")
    verify.add_argument("--nonce", type=_parse_nonce, metavar="HEX", help="the one that was asked for")
    verify.add_argument("--json", action="store_true", help="print JSON")


def _key(arguments: argparse.Namespace) -> int:
    public = read_key(Path(_load_settings(arguments.config).device))
    print(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(), end="")
    sys.stderr.write(f"key sha256:{key_digest(public)}\n")
    return EXIT_OK


def _quote(arguments: argparse.Namespace) -> int:
    settings = _load_settings(arguments.config)
    digest = hashlib.sha256(_read(_statement_path(find_state(arguments)), _MAX_STATEMENT_BYTES)).digest()
    nonce = arguments.nonce if arguments.nonce is not None else secrets.token_bytes(32)
    quote = take_quote(Path(settings.device), digest, nonce, tuple(sorted(set(settings.pcrs))))
    write_exclusive(arguments.output, quote.encode(), mode=0o644)
    print(f"quoted     sha256:{digest.hex()}")
    print(f"by key     sha256:{key_digest(quote.key)}")
    return EXIT_OK


def _verify(arguments: argparse.Namespace) -> int:
    state = None if arguments.statement and arguments.quote else find_state(arguments)
    statement = _read(arguments.statement or _statement_path(state), _MAX_STATEMENT_BYTES)
    quote = parse_quote(_read(arguments.quote or quote_path(_known(state)), MAX_QUOTE_BYTES + 1))
    key, digest = load_public_key(arguments.key), hashlib.sha256(statement).digest()
    nonce = arguments.nonce if arguments.nonce is not None else quote.nonce
    attested = verify_quote(quote, key, digest, nonce)
    pcrs = {str(pcr): value.hex() for pcr, value in sorted(attested.pcrs.items())}
    described = {
        "statement": f"sha256:{digest.hex()}",
        "key": f"sha256:{key_digest(key)}",
        "is_nonce_ours": arguments.nonce is not None,
        "clock_ms": attested.clock_ms,
        "is_clock_safe": attested.is_clock_safe,
        "reset_count": attested.reset_count,
        "restart_count": attested.restart_count,
        "firmware": f"{attested.firmware:016x}",
    }
    if arguments.json:
        print(json.dumps({**described, "pcrs": pcrs}))
        return EXIT_OK
    print(f"quote      good, over {described['statement']}")
    print(f"           by key {described['key']}")
    print(f"freshness  {'for the nonce given' if arguments.nonce is not None else 'not shown: no nonce was given'}")
    age = datetime.timedelta(seconds=attested.clock_ms // 1000)
    print(
        f"TPM        started {attested.reset_count} times, clock {age}{'' if attested.is_clock_safe else ' (may have gone back)'}"
    )
    for pcr, value in pcrs.items():
        print(f"PCR {pcr:>2}     {value}")
    return EXIT_OK


def _load_settings(config: str | None) -> TpmSettings:
    path = find_configuration_file(config)
    return load_configuration(path)[0].tpm if path is not None else TpmSettings()


def _statement_path(state: Path | None) -> Path:
    return _known(state) / "run" / "statement.json"


def _known(state: Path | None) -> Path:
    assert state is not None
    return state


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(max_bytes)
    except OSError as error:
        raise CommandFailed(f"{path}: {error.strerror}") from error


def _parse_nonce(text: str) -> bytes:
    try:
        nonce = bytes.fromhex(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not hexadecimal") from None
    if not 8 <= len(nonce) <= MAX_NONCE_BYTES:
        raise argparse.ArgumentTypeError(f"expected 8 to {MAX_NONCE_BYTES} bytes, found {len(nonce)}")
    return nonce
