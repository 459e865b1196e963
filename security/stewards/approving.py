"""What stewards do with an imported model: approve it, promote it, retire it.

An approval is one steward's signature over the model's name, the manifest's digest and the digest of the importer's statement,
so that it covers the licence and the origin that the steward saw. Promotion asks `admission` whether enough people agree, and
only then lets the name stand for the model; it needs no key, as it adds nothing to what was signed. Retirement is final for these
files: to serve them again they would have to be imported, and approved, under another digest.
"""

import datetime
import hashlib

from security.errors import ModelNotApproved
from security.model_signing.signer import ModelSigner
from security.stewards.admission import Admitted, read_import, verify_item
from security.stewards.envelope import key_id_of, sign_envelope
from security.stewards.importing import find_signer
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


def approve_model(item: Item, roles: RoleFile, signer: ModelSigner) -> Person:
    """Add a steward's approval; a second one by the same key takes the first one's place.

    Raises: ModelRejected, KeyUnusable.
    """
    steward = find_signer(roles, signer, "steward")
    imported, importer, envelope = read_import(item, roles)
    if steward.name == importer.name:
        raise ModelNotApproved(f"{steward.name} imported this model and cannot approve it: somebody else must")
    predicate = {
        "approved_at": format_time(datetime.datetime.now(datetime.UTC)),
        "import_sha256": hashlib.sha256(envelope).hexdigest(),
        "role_file_version": roles.version,
        "steward": steward.name,
    }
    payload = encode_model_statement(Statement(APPROVAL, imported.model, item.root, predicate))
    name = f"{APPROVALS}/{key_id_of(signer.public_key)}.dsse"
    add_evidence(item, name, sign_envelope(STATEMENT_PAYLOAD_TYPE, payload, signer))
    return steward


def promote_model(store: ModelStore, item: Item, roles: RoleFile) -> Admitted:
    """Let the model's name stand for it, if it was approved.

    Raises: ModelNotApproved, and whatever else `verify_item` raises.
    """
    admitted = verify_item(item, roles)
    store.link(admitted.name, store.approve_item(item))
    return admitted


def retire_model(store: ModelStore, item: Item, roles: RoleFile, signer: ModelSigner, reason: str) -> Person:
    """Take a model out of service, for ever; names that stand for it stand for nothing afterwards.

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
    add_evidence(item, RETIREMENT_FILE, sign_envelope(STATEMENT_PAYLOAD_TYPE, payload, signer))
    for name, root in store.promoted().items():
        if root == item.root:
            store.unlink(name)
    return steward
