"""Bringing a model folder in: from wherever it lies to quarantine, checked, hashed and signed by the importer.

(1) The importer's key must be one of the role file's. (2) Every name is on the allow-list. (3) The caller's checks (tensors,
configuration, tokenizer, template) run on the source, so that what is plainly wrong is not copied. (4) All is copied, onto a disk
that has room for it. (5) A vendor's signature, where given, is verified over the copy. (6) The checks run again, on the copy:
only it is used from here on. (7) The importer signs the copy and (8) states where it came from, with the weights' load digests
that were computed while it was signed; (9) only then it enters quarantine.

What fails leaves nothing behind; a copy that was interrupted is removed by the next import.
"""

import datetime
import errno
import os
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from security.errors import ModelFolderRejected, ModelNotApproved
from security.model_signing.algorithms import SHA256
from security.model_signing.digests import Progress
from security.model_signing.folder import ListedFile, ModelFolder
from security.model_signing.names import DEFAULT_EXCLUSIONS, show_name
from security.model_signing.signer import ModelSigner
from security.model_signing.signing import SIGNATURE_SUFFIX, sign_model
from security.model_signing.trust import SignedBy, Trust
from security.model_signing.verification import verify_model
from security.stewards.allowlist import is_licence, verify_allowed
from security.stewards.envelope import key_id_of, sign_envelope
from security.stewards.load_digests import FILES_MEMBER, encode_load_digests, list_digest, second_digest_for
from security.stewards.role_file import Person, RoleFile
from security.stewards.statements import (
    IMPORT,
    STATEMENT_PAYLOAD_TYPE,
    Statement,
    encode_model_statement,
    format_time,
)
from security.stewards.store import FILES, SIGNATURE, Item, ModelStore
from security.stewards.store import IMPORT as IMPORT_FILE

Check = Callable[[Path], Mapping[str, str | int]]
"""Looks at a folder, and gives facts about it for the record. Raises whatever refuses the model."""

_SPARE_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class Source:
    """What is to be imported, and what is said about it."""

    folder: Path
    name: str
    origin: str
    """Where it came from, in the importer's words."""
    licence: str = ""
    """For a folder that holds no licence file: its name, in the importer's words."""
    vendor_signature: Path | None = None
    vendor_trust: Trust | None = None
    algorithm: str = SHA256
    """What the importer's signature digests files with: loaders will have to hash what they load by it."""
    with_load_digests: bool = True
    """State `load_digests` beside digests that are no tree's, so that weights are loaded by these."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A model in quarantine."""

    item: Item
    importer: Person
    num_files: int
    size_bytes: int
    facts: Mapping[str, str | int]
    load_digests: Mapping[str, str]
    """Of the weights, by name; empty where none are stated."""


def import_model(
    source: Source,
    store: ModelStore,
    roles: RoleFile,
    signer: ModelSigner,
    checks: Sequence[Check],
    *,
    progress: Progress | None = None,
    announce: Callable[[Imported], None] = lambda _made: None,
) -> Imported:
    """Import one model; see the module for the steps.

    Args:
        announce: told of it before it lies in quarantine; what it raises keeps it from there.
    Raises: ModelRejected, KeyUnusable, and what the checks raise.
    """
    importer = find_signer(roles, signer, "importer")  # (1)
    store.path_of(source.name)
    with ModelFolder(source.folder) as folder:
        files = [file for file in folder.list_files(excluded=DEFAULT_EXCLUSIONS) if not _is_signature(file, source)]
        if not files:
            raise ModelFolderRejected(f"{source.folder}: holds no files to import")
        verify_allowed(files)  # (2)
        facts = _run_checks(checks, source.folder)  # (3)
        incoming = store.new_incoming()
        try:
            made = _prepare(source, store, (importer, signer), (folder, files), checks, facts, incoming, progress)
            announce(made)
            store.admit_incoming(incoming, made.item)  # (9)
            return made
        except BaseException:
            shutil.rmtree(incoming, ignore_errors=True)
            raise


def find_signer(roles: RoleFile, signer: ModelSigner, role: str) -> Person:
    """Who signs, if they may.

    Raises: ModelNotApproved.
    """
    person = roles.person_of(key_id_of(signer.public_key))
    if person is None:
        raise ModelNotApproved(f"key {key_id_of(signer.public_key)[:16]}… belongs to nobody in the role file")
    if role not in person.roles:
        raise ModelNotApproved(f"{person.name} is not {role} in the role file")
    return person


def _prepare(
    source: Source,
    store: ModelStore,
    by: tuple[Person, ModelSigner],
    found: tuple[ModelFolder, Sequence[ListedFile]],
    checks: Sequence[Check],
    facts: Mapping[str, str | int],
    incoming: Path,
    progress: Progress | None,
) -> Imported:
    """All that will lie in quarantine, in `incoming`."""
    importer, signer = by
    size_bytes = sum(file.size_bytes for file in found[1])
    copy = incoming / FILES
    _copy_files(*found, copy)  # (4)
    vendor = None
    if source.vendor_signature is not None and source.vendor_trust is not None:
        vendor = verify_model(copy, source.vendor_signature, source.vendor_trust, progress=progress).signed_by  # (5)
    if _run_checks(checks, copy) != facts:  # (6)
        raise ModelFolderRejected(f"{source.folder}: changed while it was copied")
    second = second_digest_for(source.algorithm) if source.with_load_digests else None
    signed = sign_model(  # (7)
        copy, signer, incoming / SIGNATURE, algorithm=source.algorithm, second=second, progress=progress
    )
    predicate = {
        "imported_at": format_time(datetime.datetime.now(datetime.UTC)),
        "importer": importer.name,
        "origin": source.origin,
        "licence": _describe_licence(source, signed.manifest.digests),
        "vendor": _describe_vendor(vendor),
        "facts": dict(facts),
        "num_files": len(signed.manifest.digests),
        "size_bytes": size_bytes,
        FILES_MEMBER: list_digest(signed.manifest.digests),
        **encode_load_digests(signed.second),
    }
    statement = Statement(IMPORT, source.name, signed.manifest.root, predicate)
    envelope = sign_envelope(STATEMENT_PAYLOAD_TYPE, encode_model_statement(statement), signer)  # (8)
    (incoming / IMPORT_FILE).write_bytes(envelope)
    _sync_tree(incoming)
    item = store.new_item(signed.manifest.root)
    return Imported(item, importer, len(signed.manifest.digests), size_bytes, facts, signed.second)


def _run_checks(checks: Sequence[Check], folder: Path) -> dict[str, str | int]:
    facts: dict[str, str | int] = {}
    for check in checks:
        facts |= check(folder)
    return facts


def _is_signature(file: ListedFile, source: Source) -> bool:
    """The vendor's signature may lie in the folder; it covers the files and is none of them."""
    if source.vendor_signature is None or not file.name.endswith(SIGNATURE_SUFFIX):
        return False
    status = source.vendor_signature.stat()
    return (status.st_dev, status.st_ino) == (file.device, file.inode)


def _describe_licence(source: Source, digests: Mapping[str, str]) -> dict[str, object]:
    files = {name: digest for name, digest in digests.items() if is_licence(name)}
    if not files and not source.licence:
        raise ModelFolderRejected(
            f"{source.folder}: holds no licence file; put the licence's text there as LICENSE, or name it with --licence"
        )
    return {"files": files, "stated": source.licence}


def _describe_vendor(vendor: SignedBy | None) -> dict[str, str | None] | None:
    if vendor is None:
        return None
    return {"method": vendor.method, "fingerprint": vendor.fingerprint, "name": vendor.name}


def _copy_files(folder: ModelFolder, files: Sequence[ListedFile], target: Path) -> None:
    target.mkdir(mode=0o755)
    size_bytes = sum(file.size_bytes for file in files)
    free_bytes = shutil.disk_usage(target).free
    if size_bytes + _SPARE_BYTES > free_bytes:
        raise ModelFolderRejected(f"{target.parent}: {size_bytes} bytes to copy, {free_bytes} are free")
    for file in files:
        path = target / file.name
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _copy_file(folder, file, path)


def _copy_file(folder: ModelFolder, file: ListedFile, path: Path) -> None:
    descriptor = folder.open_file(file.name)
    try:
        left = file.size_bytes
        with open(descriptor, "rb", closefd=False) as source, path.open("xb") as copy:
            # Never more than was listed: a file that grows meanwhile cannot fill the disk.
            while left and (chunk := source.read(min(left, _CHUNK_BYTES))):
                copy.write(chunk)
                left -= len(chunk)
            copy.flush()
            os.fsync(copy.fileno())
            os.fchmod(copy.fileno(), stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
    except OSError as error:
        what = "the disk is full" if error.errno == errno.ENOSPC else error.strerror
        raise ModelFolderRejected(f"{show_name(file.name)}: cannot be copied: {what}") from None
    finally:
        os.close(descriptor)
    if left:
        raise ModelFolderRejected(f"{show_name(file.name)}: became shorter while it was copied")


def _sync_tree(path: Path) -> None:
    for parent, _, names in os.walk(path):
        for each in (*names, "."):
            descriptor = os.open(Path(parent, each), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
