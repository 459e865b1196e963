"""Certificates that change while everything runs: noticed here, sent to whoever listens, in force for the next connection.

The listening processes cannot read a file that has taken another's place: their sandboxes know the files that were there at
their start. A pair that does not fit, or is not valid now, is reported and not sent; the old one goes on. Our own
certificate is renewed in time, without being asked. What is sent is recorded (`key_rotated`), by the digests of what was in force
before and is now.
"""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

import structlog

from appliance.authority.credentials import find_tls_identity, provision_tls
from appliance.config import Configuration
from appliance.errors import StartRefused
from appliance.messages.control import RenewCertificate
from appliance.supervisor.ownership import settle_owners
from audit.changes import change_event
from audit.entry import Json
from security.errors import KeyUnusable
from security.keys import load_private_file
from security.tls import verify_identity

INTERVAL_S = 5.0
ROUNDS_PER_RENEWAL = 720
"""Once an hour our own certificate is looked at."""

log = structlog.get_logger(__name__)


class CertificateWatch:
    """Owner of what was last seen of the files."""

    def __init__(
        self, configuration: Configuration, tell: Callable[[RenewCertificate], None], record: Callable[[Json], None]
    ) -> None:
        self._configuration = configuration
        self._tell = tell
        self._record = record
        self._identity = find_tls_identity(configuration)
        authorities = configuration.tls.client_ca_certificate
        self._authorities = None if authorities is None else Path(authorities)
        self._seen = self._look()
        self._digests = {path: digest_of(path) for path in (self._identity.certificate, self._authorities) if path}

    async def run(self) -> None:
        """Watch for ever; to be cancelled."""
        rounds = 0
        while True:
            await asyncio.sleep(INTERVAL_S)
            rounds += 1
            if rounds % ROUNDS_PER_RENEWAL == 0:
                await asyncio.to_thread(self._renew)
            self.check()

    def check(self) -> None:
        """Send what has changed, if it can be used."""
        seen = self._look()
        if seen == self._seen:
            return
        try:
            verify_identity(self._identity)
            message = RenewCertificate(
                self._identity.certificate.read_bytes(),
                load_private_file(self._identity.key),
                b"" if self._authorities is None else self._authorities.read_bytes(),
            )
        except (KeyUnusable, OSError) as error:
            # Between two files of a pair that are replaced one by one: the next look finds both. It is not remembered as seen.
            log.warning("certificate_not_used", reason=str(error))
            return
        self._seen = seen
        log.info("certificate_renewed", file=str(self._identity.certificate))
        self._tell(message)
        certificate = self._identity.certificate
        self._tell_change("certificate", certificate, hashlib.sha256(message.certificate).hexdigest())
        if self._authorities is not None:
            self._tell_change(
                "client authorities", self._authorities, hashlib.sha256(message.client_authorities).hexdigest()
            )

    def _tell_change(self, entity_type: str, path: Path, digest: str) -> None:
        before, self._digests[path] = self._digests[path], digest
        if before != digest:
            self._record(replaced_event(entity_type, str(path), before, digest))

    def _renew(self) -> None:
        try:
            provision_tls(self._configuration)
            settle_owners(self._configuration)
        except (KeyUnusable, StartRefused) as error:
            log.error("certificate_not_renewed", reason=str(error))

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        paths = (self._identity.certificate, self._identity.key, self._authorities)
        return tuple(None if path is None else stamp_of(path) for path in paths)


def digest_of(path: Path) -> str:
    """SHA-256 of a file; empty where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def replaced_event(entity_type: str, name: str, before: str, after: str) -> Json:
    """A file that others are believed by was replaced while everything ran. By whom, a file does not say."""
    return change_event(
        "key_rotated",
        entity_type=entity_type,
        entity_uid=name,
        actor="file",
        before={"sha256": before},
        after={"sha256": after},
    )


def stamp_of(path: Path) -> tuple[int, int, int] | None:
    """What is another when a file was replaced or written; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
