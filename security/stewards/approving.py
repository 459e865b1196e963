"""What stewards do with an imported model: approve it, promote it, retire it.

An approval is one steward's signature over the model's name, the manifest's digest and the digest of the importer's statement,
so that it covers the licence and the origin that the steward saw. It is given only after every byte was verified on the steward's
machine, and names the load digests that were computed in the same pass. Promotion asks `admission` whether enough people agree, and
only then lets the name stand for the model; it needs no key, as it adds nothing to what was signed. Retirement is final for these
files: to serve them again they would have to be imported, and approved, under another digest.
"""

import datetime
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from security.errors import ModelNotApproved, ModelSignatureRejected
from security.model_signing.digests import Progress
from security.model_signing.signer import ModelSigner
from security.model_signing.verification import verify_model
from security.stewards.admission import (
    Admitted,
    importers_of,
    read_import,
    read_load_digests,
    read_signature,
    verify_item,
    verify_stated_names,
)
from security.stewards.envelope import key_id_of, sign_envelope
from security.stewards.importing import find_signer
from security.stewards.load_digests import NAMED_MEMBER, SECOND_DIGEST, list_digest, verify_same
from security.stewards.role_file import Person, RoleFile
from security.stewards.statements import (
    APPROVAL,
    RETIREMENT,
    STATEMENT_PAYLOAD_TYPE,
    Statement,
    encode_model_statement,
    format_time,
)
from security.stewards.store import APPROVALS, Item, ModelStore, add_evidence
from security.stewards.store import RETIREMENT as RETIREMENT_FILE


@dataclass(frozen=True, slots=True)
class Approved:
    """One steward's approval."""

    steward: Person
    size_bytes: int
    """What was verified."""
    load_digests: Mapping[str, str]
    """Those that the approval names; empty where it names none."""


def approve_model(
    item: Item,
    roles: RoleFile,
    signer: ModelSigner,
    *,
    with_load_digests: bool = True,
    progress: Progress | None = None,
    announce: Callable[[Approved], None] = lambda _made: None,
) -> Approved:
    """Verify a model and add a steward's approval; a second one by the same key takes the first one's place.

    (1) Who approves is a steward, and not the importer. (2) All files are as signed; load digests are computed in the same pass if
    the importer states them, (3) and are the same. (4) The approval is signed.

    Args:
        with_load_digests: if not, compute and name none, where no other algorithm than the signature's may be used.
        announce: told of the approval before it is there; what it raises keeps it away.
    Raises: ModelRejected, KeyUnusable.
    """
    steward = find_signer(roles, signer, "steward")  # (1)
    imported, importer, envelope = read_import(item, roles)
    if steward.name == importer.name:
        raise ModelNotApproved(f"{steward.name} imported this model and cannot approve it: somebody else must")
    signed = read_signature(item, roles)
    verify_stated_names(imported, signed)
    stated = read_load_digests(imported, signed) if with_load_digests else {}
    second = SECOND_DIGEST if stated else None
    verified = verify_model(item.files, item.signature, importers_of(roles), second=second, progress=progress)  # (2)
    if verified.signed != signed:
        raise ModelSignatureRejected("signature: exchanged while the model was verified")
    verify_same(verified.second, stated, importer.name)  # (3)
    predicate = {
        "approved_at": format_time(datetime.datetime.now(datetime.UTC)),
        "import_sha256": hashlib.sha256(envelope).hexdigest(),
        "role_file_version": roles.version,
        "steward": steward.name,
        **({NAMED_MEMBER: list_digest(verified.second)} if stated else {}),
    }
    payload = encode_model_statement(Statement(APPROVAL, imported.model, item.root, predicate))
    name = f"{APPROVALS}/{key_id_of(signer.public_key)}.dsse"
    approval = sign_envelope(STATEMENT_PAYLOAD_TYPE, payload, signer)  # (4)
    approved = Approved(steward, sum(verified.sizes.values()), verified.second)
    announce(approved)
    add_evidence(item, name, approval)
    return approved


def promote_model(
    store: ModelStore, item: Item, roles: RoleFile, announce: Callable[[Admitted], None] = lambda _admitted: None
) -> Admitted:
    """Let the model's name stand for it, if it was approved.

    Args:
        announce: told before it does; what it raises leaves the name as it is.
    Raises: ModelNotApproved, and whatever else `verify_item` raises.
    """
    admitted = verify_item(item, roles)
    announce(admitted)
    store.link(admitted.name, store.approve_item(item))
    return admitted


def retire_model(
    store: ModelStore,
    item: Item,
    roles: RoleFile,
    signer: ModelSigner,
    reason: str,
    announce: Callable[[Person], None] = lambda _steward: None,
) -> Person:
    """Take a model out of service, for ever; names that stand for it stand for nothing afterwards.

    Args:
        announce: told who does, before it is done; what it raises leaves the model in service.
    Raises: ModelRejected, KeyUnusable.
    """
    steward = find_signer(roles, signer, "steward")
    imported, _, _ = read_import(item, roles)
    predicate = {
        "retired_at": format_time(datetime.datetime.now(datetime.UTC)),
        "reason": reason,
        "steward": steward.name,
    }
    payload = encode_model_statement(Statement(RETIREMENT, imported.model, item.root, predicate))
    retirement = sign_envelope(STATEMENT_PAYLOAD_TYPE, payload, signer)
    announce(steward)
    add_evidence(item, RETIREMENT_FILE, retirement)
    for name, root in store.promoted().items():
        if root == item.root:
            store.unlink(name)
    return steward
