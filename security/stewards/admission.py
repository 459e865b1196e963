"""What the launcher asks before a model is loaded, and what a loader asks of the bytes that it has read.

(1) Not retired. (2) The importer's signature over all files, by a key of an importer. (3) The importer's statement about exactly
this digest and these names. (4) Approvals by as many stewards as the role file says, each another person and none the importer,
over this name, this digest and that statement, and, if they name load digests, the same as the importer's (`load_digests`). (5) The
folder's names, both ways: nothing is missing, nothing lies beside.

The content is left to (6), `verify_loaded`: whoever loads a file hashes what it has in memory and asks here. So a file that
is exchanged between this check and its use is found, and hashing is not done twice.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from security.errors import MalformedDocument, ModelFolderRejected, ModelNotApproved, ModelSignatureRejected
from security.model_signing.names import show_name
from security.model_signing.trust import KeyTrust, SignedModel, changed, verify_signature
from security.model_signing.verification import verify_names
from security.stewards.envelope import find_signers, parse_envelope
from security.stewards.load_digests import FILES_MEMBER, LOAD_ALGORITHM, NAMED_MEMBER, list_digest, parse_load_digests
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
    load_digests: Mapping[str, str]
    """Of all weights, by LOAD_ALGORITHM, as importer and stewards state them; empty where the signature's digests decide."""

    @property
    def root(self) -> str:
        """The digest that stands for the whole model."""
        return self.signed.root

    @property
    def weights_algorithm(self) -> str:
        """What weights are digested with when they are loaded."""
        return LOAD_ALGORITHM if self.load_digests else self.signed.algorithm

    def algorithm_of(self, name: str) -> str:
        """What the file of a name is digested with when it is loaded."""
        return LOAD_ALGORITHM if name in self.load_digests else self.signed.algorithm

    def without_load_digests(self) -> "Admitted":
        """The same model, for whoever takes no algorithm but the signature's."""
        return replace(self, load_digests={})

    def verify_bytes(self, name: str, digest: str) -> None:
        """Check the digest, hexadecimal, of the very bytes that were read under a name.

        Args:
            digest: by `algorithm_of(name)`; one by the other algorithm is refused like that of other bytes.
        Raises: ModelFolderRejected.
        """
        expected = self.load_digests.get(name)
        if expected is None:
            self.signed.verify_bytes(name, digest)
        elif digest != expected:
            raise changed(name, expected, digest, LOAD_ALGORITHM)

    def verify_loaded(self, digests: Mapping[str, str], concerns: Callable[[str], bool]) -> None:
        """Check all that a loader has read, and that it has read all that it should have.

        Args:
            digests: those of the bytes in memory, each by `algorithm_of` its name, hexadecimal, by name.
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
    signed = read_signature(item, roles)  # (2)
    imported, importer, envelope = read_import(item, roles)  # (3)
    verify_stated_names(imported, signed)
    stated = read_load_digests(imported, signed)
    approvals = find_approvals(item, roles, imported, importer, envelope)  # (4)
    approvers = tuple(sorted(approvals))
    if len(approvers) < roles.approvals_required:
        given = f" ({', '.join(approvers)})" if approvers else ""
        raise ModelNotApproved(
            f"{imported.model}: approved by {len(approvers)} stewards other than the importer{given}, "
            f"expected {roles.approvals_required}"
        )
    agreed = agree_on_load_digests(stated, approvals, roles.approvals_required)
    verify_names(item.files, item.signature, signed)  # (5)
    return Admitted(imported.model, signed, importer.name, approvers, agreed)


def importers_of(roles: RoleFile) -> KeyTrust:
    """Whose signatures over files count."""
    return KeyTrust(tuple(roles.keys_of("importer").values()))


def read_signature(item: Item, roles: RoleFile) -> SignedModel:
    """The importer's signature over an item. Raises: ModelSignatureRejected."""
    signed = verify_signature(item.signature, importers_of(roles))
    if signed.root != item.root:
        raise ModelSignatureRejected(f"signature: is over sha256:{signed.root}, and not over sha256:{item.root}")
    return signed


def verify_stated_names(imported: Statement, signed: SignedModel) -> None:
    """Check that the signature has the names that the importer stated.

    The root is over the files' digests alone (OMS section 6.5.1): with the same root, an importer could sign the same bytes
    anew under other names after they were approved, one of them that of a template, for example.
    Raises: ModelSignatureRejected.
    """
    stated = imported.predicate.get(FILES_MEMBER)  # None in a statement by an earlier release.
    if stated is not None and stated != list_digest(signed.digests):
        raise ModelSignatureRejected("signature: has other names than those that the importer stated")


def read_import(item: Item, roles: RoleFile) -> tuple[Statement, Person, bytes]:
    """The importer's statement about an item, who that is, and the bytes of the envelope.

    Raises: ModelSignatureRejected.
    """
    data = item.read(IMPORT_FILE)
    if data is None:
        raise ModelSignatureRejected(f"sha256:{item.root}: the importer's statement is missing")
    statement, person = _open(data, IMPORT, "importer", roles, item.root)
    return statement, person, data


def read_load_digests(imported: Statement, signed: SignedModel) -> Mapping[str, str]:
    """Those that the importer states; empty where there are none. Raises: ModelSignatureRejected."""
    try:
        return parse_load_digests(imported.predicate, signed.algorithm, signed.digests)
    except MalformedDocument as error:
        raise ModelSignatureRejected(f"model-import: {error}") from None


def agree_on_load_digests(
    stated: Mapping[str, str], approvals: Mapping[str, Sequence[Statement]], approvals_required: int
) -> Mapping[str, str]:
    """The load digests by which a model is loaded; empty if too few approvals name them, as those of earlier releases do not.

    Raises: ModelNotApproved if a steward names others than the importer states.
    """
    expected, agreeing = (list_digest(stated) if stated else None), set()
    for steward, statements in approvals.items():
        for named in (statement.predicate.get(NAMED_MEMBER) for statement in statements):
            if named is not None and named != expected:
                raise ModelNotApproved(
                    f"{steward} approved other load digests than {'those that ' if stated else ''}the importer states"
                    f"{'' if stated else ' (none)'}: approve again, on a machine that computes them rightly"
                )
            if named is not None:
                agreeing.add(steward)
    return stated if len(agreeing) >= approvals_required else {}


def find_approvals(
    item: Item, roles: RoleFile, imported: Statement, importer: Person, envelope: bytes
) -> Mapping[str, Sequence[Statement]]:
    """What stewards other than the importer approved, by their names. An approval that does not hold counts nothing."""
    found: dict[str, list[Statement]] = {}
    for data in item.read_approvals():
        try:
            approval, steward = _open(data, APPROVAL, "steward", roles, item.root)
        except ModelSignatureRejected:
            continue
        covers = approval.predicate.get("import_sha256") == hashlib.sha256(envelope).hexdigest()
        if covers and approval.model == imported.model and steward.name != importer.name:
            found.setdefault(steward.name, []).append(approval)
    return found


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
