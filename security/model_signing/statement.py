"""The in-toto Statement v1 that is signed, with the OMS predicate v1.0: a manifest as JSON and back.

Parsing accepts one meaning only: members neither unknown nor twice, right types, names in order, the root digest that the
files' digests give. It says nothing about who signed: the caller MUST have verified the signature over the very bytes.
Sources: in-toto attestation, Statement v1; OMS v1.0 sections 5 and 6, whose rule it is to ignore further members of resources.
"""

import json

from security.errors import MalformedDocument, ModelSignatureRejected
from security.json_object import parse_json_object
from security.model_signing.algorithms import ALGORITHMS, SHA256
from security.model_signing.manifest import Manifest, verify_manifest
from security.model_signing.members import Members
from security.model_signing.names import MAX_FILES

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
MAX_STATEMENT_BYTES = 8 << 20
_MAX_IGNORED = 1000


def encode_statement(manifest: Manifest) -> bytes:
    """The statement about a manifest, as it is signed."""
    resources = [
        {"name": name, "algorithm": manifest.algorithm, "digest": digest} for name, digest in manifest.digests.items()
    ]
    serialization = {
        "method": "files",
        "hash_type": manifest.algorithm,
        "allow_symlinks": False,
        "ignore_paths": list(manifest.ignored),
    }
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": manifest.model_name, "digest": {SHA256: manifest.root}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {"resources": resources, "serialization": serialization},
    }
    return json.dumps(statement, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def parse_statement(payload: bytes) -> Manifest:
    """Parse a statement whose signature was found good; at most MAX_STATEMENT_BYTES.

    Raises: ModelSignatureRejected for whatever is refused.
    """
    if len(payload) > MAX_STATEMENT_BYTES:
        raise ModelSignatureRejected(f"signature: statement is longer than {MAX_STATEMENT_BYTES} bytes")
    try:
        statement = Members(parse_json_object(payload), "statement")
    except MalformedDocument as error:
        raise ModelSignatureRejected(f"signature: statement: {error}") from None
    statement.allow("_type", "subject", "predicateType", "predicate")
    statement.constant("_type", STATEMENT_TYPE)
    statement.constant("predicateType", PREDICATE_TYPE)
    subject = Members(statement.array("subject", 1, 1)[0], "subject")
    model_name, root = subject.text("name"), subject.nested("digest").text(SHA256)
    predicate = statement.nested("predicate")
    predicate.allow("resources", "serialization")
    ignored, algorithm = _parse_serialization(predicate.nested("serialization"))
    manifest = Manifest(model_name, _parse_resources(predicate, algorithm), ignored, algorithm)
    if manifest.root != root:
        raise ModelSignatureRejected("signature: subject's digest is not that of the files listed")
    return manifest


def _parse_serialization(serialization: Members) -> tuple[tuple[str, ...], str]:
    """Check how files were hashed, and return the paths that were left out, and the algorithm."""
    serialization.allow("method", "hash_type", "shard_size", "allow_symlinks", "ignore_paths")
    serialization.constant("method", "files")
    if serialization.has("shard_size"):
        raise serialization.rejected("shard_size: expected nothing with method files")
    algorithm = serialization.text("hash_type")
    if algorithm not in ALGORITHMS:
        raise serialization.rejected(f"hash_type: expected {' or '.join(ALGORITHMS)}, found {ascii(algorithm)[:40]}")
    # True is taken, and changes nothing: links are never followed here, so a folder that holds one is refused.
    serialization.boolean("allow_symlinks")
    if not serialization.has("ignore_paths"):
        return (), algorithm
    ignored = serialization.array("ignore_paths", 0, _MAX_IGNORED)
    if not all(type(path) is str and path for path in ignored):
        raise serialization.rejected("ignore_paths: expected strings")
    return tuple(ignored), algorithm


def _parse_resources(predicate: Members, algorithm: str) -> dict[str, str]:
    names, digests = [], []
    for value in predicate.array("resources", 1, MAX_FILES):
        resource = Members(value, "resource")
        resource.constant("algorithm", algorithm)
        names.append(resource.text("name"))
        digests.append(resource.text("digest"))
    return verify_manifest(names, digests)
