"""What the launcher asks before a model is loaded, and what a loader asks of the bytes that it has read.

(1) Not retired. (2) The importer's signature over all files, by a key of an importer. (3) The importer's statement about exactly
this digest. (4) Approvals by as many stewards as the role file says, each another person and none the importer, over this name,
this digest and that statement. (5) The folder's names, both ways: nothing is missing, nothing lies beside.

The content is left to (6), `verify_loaded`: whoever loads a file hashes what it has in memory and asks here. So a file that
is exchanged between this check and its use is found, and hashing is not done twice.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from security.errors import MalformedDocument, ModelFolderRejected, ModelNotApproved, ModelSignatureRejected
from security.model_signing.names import show_name
from security.model_signing.trust import KeyTrust, SignedModel, verify_signature
from security.model_signing.verification import verify_names
from security.stewards.envelope import find_signers, parse_envelope
from security.stewards.role_file import Person, Role, RoleFile
from security.stewards.statements import (
    APPROVAL,
    IMPORT,
    STATEMENT_PAYLOAD_TYPE,
    Statement,
    parse_model_statement,
)
from security.stewards.store import IMPORT as IMPORT_FILE
from security.stewards.store import RETIREMENT as RETIREMENT_FILE
from security.stewards.store import Item


@dataclass(frozen=True, slots=True)
class Admitted:
    """A model that may be loaded, as far as its evidence goes. Its bytes were not looked at yet."""

    name: str
    signed: SignedModel
    importer: str
    approvers: tuple[str, ...]

    @property
    def root(self) -> str:
        """The digest that stands for the whole model."""
        return self.signed.root

    def verify_bytes(self, name: str, digest: str) -> None:
        """Check the digest, hexadecimal, of the very bytes that were read under a name. Raises: ModelFolderRejected."""
        self.signed.verify_bytes(name, digest)

    def verify_loaded(self, digests: Mapping[str, str], concerns: Callable[[str], bool]) -> None:
        """Check all that a loader has read, and that it has read all that it should have.

        Args:
            digests: those of the bytes in memory, by the signature's algorithm, hexadecimal, by name.
            concerns: says of a signed name whether this loader must have read it: a file that is taken away after the check
                of names must not go unnoticed either.
        Raises: ModelFolderRejected.
        """
        for name, digest in digests.items():
            self.verify_bytes(name, digest)
        for name in self.signed.digests:
            if concerns(name) and name not in digests:
                raise ModelFolderRejected(f"{show_name(name)}: is signed, and was not there when the model was loaded")


def verify_item(item: Item, roles: RoleFile) -> Admitted:
    """Verify all evidence of a model, steps (1) to (5).

    Raises: ModelSignatureRejected, ModelFolderRejected, ModelNotApproved.
    """
    if item.read(RETIREMENT_FILE) is not None:  # (1) Whoever put it there: to stop is always safe.
        raise ModelNotApproved(f"sha256:{item.root}: was retired")
    signed = verify_signature(item.signature, KeyTrust(tuple(roles.keys_of("importer").values())))  # (2)
    if signed.root != item.root:
        raise ModelSignatureRejected(f"signature: is over sha256:{signed.root}, and not over sha256:{item.root}")
    imported, importer, envelope = read_import(item, roles)  # (3)
    approvers = find_approvers(item, roles, imported, importer, envelope)  # (4)
    if len(approvers) < roles.approvals_required:
        given = f" ({', '.join(approvers)})" if approvers else ""
        raise ModelNotApproved(
            f"{imported.model}: approved by {len(approvers)} stewards other than the importer{given}, "
            f"expected {roles.approvals_required}"
        )
    verify_names(item.files, item.signature, signed)  # (5)
    return Admitted(imported.model, signed, importer.name, approvers)


def read_import(item: Item, roles: RoleFile) -> tuple[Statement, Person, bytes]:
    """The importer's statement about an item, who that is, and the bytes of the envelope.

    Raises: ModelSignatureRejected.
    """
    data = item.read(IMPORT_FILE)
    if data is None:
        raise ModelSignatureRejected(f"sha256:{item.root}: the importer's statement is missing")
    statement, person = _open(data, IMPORT, "importer", roles, item.root)
    return statement, person, data


def find_approvers(
    item: Item, roles: RoleFile, imported: Statement, importer: Person, envelope: bytes
) -> tuple[str, ...]:
    """Names of the stewards who approved, each once, without the importer. An approval that does not hold counts nothing."""
    found: dict[str, None] = {}
    for data in item.read_approvals():
        try:
            approval, steward = _open(data, APPROVAL, "steward", roles, item.root)
        except ModelSignatureRejected:
            continue
        covers = approval.predicate.get("import_sha256") == hashlib.sha256(envelope).hexdigest()
        if covers and approval.model == imported.model and steward.name != importer.name:
            found[steward.name] = None
    return tuple(sorted(found))


def _open(data: bytes, kind: str, role: Role, roles: RoleFile, root: str) -> tuple[Statement, Person]:
    """A statement of one kind over one digest, signed by somebody who has a role."""
    try:
        envelope = parse_envelope(data)
        if envelope.payload_type != STATEMENT_PAYLOAD_TYPE:
            raise MalformedDocument(f"payloadType is not {STATEMENT_PAYLOAD_TYPE}")
        signers = find_signers(envelope, roles.keys_of(role))
        person = roles.person_of(signers[0]) if signers else None
        if person is None:
            raise MalformedDocument(f"signed by nobody who is {role} in the role file")
        statement = parse_model_statement(envelope.payload, kind)
    except MalformedDocument as error:
        raise ModelSignatureRejected(f"{kind.removeprefix('urn:casemate:').removesuffix(':1')}: {error}") from None
    if statement.root != root:
        raise ModelSignatureRejected(f"{kind}: is about sha256:{statement.root[:64]}, and not about sha256:{root}")
    return statement, person
