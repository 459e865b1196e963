"""*Load digests*: BLAKE3 digests of a model's weights, beside the SHA-256 digests that its signature has.

SHA-256 is a chain, which one core follows at 1.3 GB/s whatever is idle beside it; BLAKE3 is a tree, which all cores share, or a GPU
computes over the bytes that it has. So whoever hashes the weights before the first start anyway adds the second digest, in the same
pass and of the same bytes:

(1) the importer, whose statement has the list;
(2) each steward, who computes it anew, is refused where it differs, and whose approval names the list by its SHA-256;
(3) loaders take it where as many stewards as must approve name the same; else the signature's digests decide, as without a list.

What always holds: a list is the importer's and the stewards' together, so that it takes the same people to change one as to bring
in other weights; it has all weights and nothing else; two that contradict each other are refused, and never passed over.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from security.errors import MalformedDocument, ModelFolderRejected
from security.model_signing.algorithms import BLAKE3, TITLES
from security.model_signing.digests import SecondDigest
from security.model_signing.names import show_name
from security.stewards.allowlist import is_weights

LOAD_ALGORITHM = BLAKE3
LIST_MEMBER = "load_digests"
"""In an importer's statement: `{"blake3": {NAME: DIGEST}}`."""
NAMED_MEMBER = "load_digests_sha256"
"""In an approval: `list_digest` of what the steward computed."""
FILES_MEMBER = "files_sha256"
"""In an importer's statement: `list_digest` of what the signature lists, so that it covers names as well."""
MAX_LISTED = 4096
"""Weight files: with more of them a statement would be longer than anybody reads."""
SECOND_DIGEST = SecondDigest(LOAD_ALGORITHM, is_weights)

_DIGEST = re.compile(r"[0-9a-f]{64}")


def second_digest_for(algorithm: str) -> SecondDigest | None:
    """What is computed beside a signature's digests; nothing beside those that are of a tree themselves."""
    return None if algorithm == LOAD_ALGORITHM else SECOND_DIGEST


def list_digest(digests: Mapping[str, str]) -> str:
    """SHA-256, hexadecimal, over lines `DIGEST  NAME`, sorted by name: those that `b3sum` prints."""
    return hashlib.sha256("".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode()).hexdigest()


def describe_list(digests: Mapping[str, str]) -> str:
    """A list in one word, for records and people: `sha256:…`, or `none`."""
    return f"sha256:{list_digest(digests)}" if digests else "none"


def encode_load_digests(digests: Mapping[str, str]) -> dict[str, object]:
    """The member of an importer's statement. Raises: ModelFolderRejected if there are too many."""
    if len(digests) > MAX_LISTED:
        raise ModelFolderRejected(
            f"{len(digests)} files of weights: a list of load digests has at most {MAX_LISTED}; import with --digest blake3, "
            f"which needs none"
        )
    return {LIST_MEMBER: {LOAD_ALGORITHM: dict(sorted(digests.items()))}} if digests else {}


def parse_load_digests(predicate: Mapping[str, Any], algorithm: str, names: Iterable[str]) -> Mapping[str, str]:
    """The list in an importer's statement, whose signature was found good; empty where it has none.

    Args:
        algorithm: that of the model's signature.
        names: all files that were signed.
    Raises: MalformedDocument unless it is of exactly the weights.
    """
    if LIST_MEMBER not in predicate:
        return {}
    if algorithm == LOAD_ALGORITHM:
        raise MalformedDocument(f"{LIST_MEMBER}: expected none beside a signature with {TITLES[algorithm]} digests")
    match predicate[LIST_MEMBER]:
        case {"blake3": dict() as digests, **others} if not others:
            pass
        case _:
            raise MalformedDocument(f"{LIST_MEMBER}: expected an object with digests by {LOAD_ALGORITHM}")
    for name, digest in digests.items():
        if type(digest) is not str or not _DIGEST.fullmatch(digest):
            raise MalformedDocument(f"{LIST_MEMBER}: {show_name(name)}: expected 64 hexadecimal digits")
    weights = {name for name in names if is_weights(name)}
    for name in sorted(weights ^ digests.keys()):
        what = "missing" if name in weights else "listed, and not among the signed weights"
        raise MalformedDocument(f"{LIST_MEMBER}: {show_name(name)}: {what}")
    return digests


def verify_same(computed: Mapping[str, str], stated: Mapping[str, str], by: str) -> None:
    """Compare what a steward has computed, of bytes that are as signed, with what the importer states.

    Raises: ModelFolderRejected, a line for each file: as the bytes are the same, one of the two machines computes wrongly.
    """
    problems = [
        f"{show_name(name)}: load digest: {TITLES[LOAD_ALGORITHM]} {computed[name][:16]}… instead of {digest[:16]}… as {by} "
        f"states, of the same bytes"
        for name, digest in stated.items()
        if computed[name] != digest
    ]
    if problems:
        remedy = "one of the two machines computes wrongly: find out which; until then approve with --no-load-digests"
        raise ModelFolderRejected("\n".join([*problems[:10], remedy]))
