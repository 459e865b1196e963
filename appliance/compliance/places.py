"""Where the log lies, and the key that signs packs."""

from pathlib import Path

from appliance.config import Configuration
from appliance.errors import CommandFailed
from audit.checkpoint import verify_checkpoint
from audit.errors import EntryNotFound
from audit.note import MAX_NOTE_BYTES, NoteSigner, VerifierKey
from audit.reader import LogReader
from audit.signing_key import create_signer, load_signer, load_verifier_key
from audit.storage import Disk, read_regular
from compliance.facts import Answer
from compliance.retention import answer_retention

KEY_FILE = "compliance/evidence.key"


def open_log(configuration: Configuration, closed: Path | None = None) -> tuple[LogReader, VerifierKey]:
    """The log and its key.

    Args:
        closed: the folder of a log that a rotation has closed, in place of the one that continues it; its key lies beside it.
    Raises: CommandFailed where there is none; KeyUnusable, MalformedNote.
    """
    if closed is not None:
        if not closed.is_dir():
            raise CommandFailed(f"{closed}: there is no log")
        return LogReader(closed), load_verifier_key(str(closed.with_suffix(".vkey")))
    folder = configuration.state_path / "audit" / "log"
    if not folder.is_dir():
        raise CommandFailed(f"{folder}: there is no log; the first start makes it")
    return LogReader(folder), load_verifier_key(str(folder.parent / "log.vkey"))


def find_closed_word(closed: Path) -> bytes:
    """The witnesses' last word on a closed log, as the rotation put it beside it; empty where there was none."""
    try:
        return read_regular(closed.with_suffix(".cosigned"), MAX_NOTE_BYTES)
    except FileNotFoundError:
        return b""


def answer_from_log(configuration: Configuration, now_ms: int) -> dict[str, Answer]:
    """What the log itself tells, without reading all of it.

    Raises: SignatureRejected, LogCorrupted and other AuditFaults.
    """
    try:
        reader, key = open_log(configuration)
        checkpoint = verify_checkpoint(reader.checkpoint_note(), [key], key.name)
    except (CommandFailed, EntryNotFound) as error:
        return {name: Answer(False, str(error)) for name in ("records_present", "records_retained")}
    days = configuration.compliance.retention_days
    return {
        "records_present": Answer(checkpoint.size > 0, f"{checkpoint.size:,} records are under the signed checkpoint"),
        "records_retained": answer_retention(reader.folder, checkpoint.size, days=days, now_ms=now_ms),
    }


def open_signer(configuration: Configuration) -> NoteSigner:
    """The key that signs packs; where the configuration names none, it is made at the first use.

    Raises: KeyUnusable.
    """
    settings = configuration.compliance
    if settings.signing_key is not None:
        return load_signer(Path(settings.signing_key), settings.signing_name)
    path = configuration.state_path / KEY_FILE
    if path.exists():
        return load_signer(path, settings.signing_name)
    disk = Disk()
    disk.make_folder(path.parent)
    return create_signer(path, settings.signing_name, disk)
