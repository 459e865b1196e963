"""The signed statement: round trip, one meaning only, and nothing but the family escapes."""

import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from security.errors import ModelSignatureRejected
from security.model_signing.algorithms import BLAKE3
from security.model_signing.manifest import Manifest, build_manifest
from security.model_signing.names import problem_of_name
from security.model_signing.statement import encode_statement, parse_statement

A, B, C = (hashlib.sha256(text).hexdigest() for text in (b"a", b"b", b"c"))
NAMES = st.text(min_size=1, max_size=30).filter(lambda name: problem_of_name(name) is None)
DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)


def statement() -> dict[str, Any]:
    """A good statement."""
    document: dict[str, Any] = json.loads(
        encode_statement(build_manifest("model", {"b/c": C, "a": A, "b": B}, (".git",)))
    )
    return document


def encode(document: Any) -> bytes:
    """As JSON; surrogates stay escapes."""
    return json.dumps(document).encode()


def with_root(document: dict[str, Any]) -> dict[str, Any]:
    """The same with the root digest that its resources give."""
    raw = b"".join(bytes.fromhex(resource["digest"]) for resource in document["predicate"]["resources"])
    document["subject"][0]["digest"]["sha256"] = hashlib.sha256(raw).hexdigest()
    return document


def refusal_of(payload: bytes) -> str:
    """The message, or nothing if the statement is taken."""
    try:
        parse_statement(payload)
    except ModelSignatureRejected as refused:
        return str(refused)
    return ""


def test_root_is_over_raw_digests_in_order() -> None:
    """OMS section 6.5.1, computed here by hand."""
    manifest = build_manifest("model", {"b": B, "a": A})
    assert list(manifest.digests) == ["a", "b"]
    assert manifest.root == hashlib.sha256(bytes.fromhex(A) + bytes.fromhex(B)).hexdigest()


@given(
    st.dictionaries(NAMES, DIGESTS, min_size=1, max_size=20),
    st.text(min_size=1, max_size=20).filter(lambda name: problem_of_name(name) is None),
    st.lists(NAMES, max_size=5),
)
def test_statement_round_trips(digests: dict[str, str], model_name: str, ignored: list[str]) -> None:
    """What is encoded parses to the same manifest."""
    manifest = build_manifest(model_name, digests, ignored)
    assert parse_statement(encode_statement(manifest)) == manifest


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Set what lies at a dotted path; `...` deletes it."""

    def apply(document: Any) -> None:
        *parents, last = [int(step) if step.isdigit() else step for step in path.split(".")]
        for step in parents:
            document = document[step]
        if value is ...:
            del document[last]
        else:
            document[last] = value

    return apply


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("_type", "https://in-toto.io/Statement/v0.1"),
        ("_type", ...),
        ("predicateType", "https://model_signing/Digests/v0.1"),
        ("predicateType", ["https://model_signing/signature/v1.0"]),
        ("extra", 1),
        ("subject", []),
        ("subject.0.name", ""),
        ("subject.0.name", 7),
        ("subject.0.digest.sha256", A),
        ("subject.0.digest.sha256", ...),
        ("predicate", ...),
        ("predicate", []),
        ("predicate.extra", {}),
        ("predicate.resources", {}),
        ("predicate.resources", []),
        ("predicate.resources.0", "a"),
        ("predicate.resources.0.name", 1),
        ("predicate.resources.0.name", ""),
        ("predicate.resources.0.name", "/a"),
        ("predicate.resources.0.name", "../a"),
        ("predicate.resources.0.name", "\ud800"),
        ("predicate.resources.0.algorithm", "blake2b"),
        ("predicate.resources.0.algorithm", "md5"),
        ("predicate.resources.0.digest", A.upper()),
        ("predicate.resources.0.digest", A[:-2]),
        ("predicate.resources.0.digest", f"{A}\n"),
        ("predicate.resources.0.digest", None),
        ("predicate.serialization", ...),
        ("predicate.serialization.method", "shards"),
        ("predicate.serialization.hash_type", "blake3"),
        ("predicate.serialization.shard_size", 1),
        ("predicate.serialization.allow_symlinks", "false"),
        ("predicate.serialization.allow_symlinks", ...),
        ("predicate.serialization.ignore_paths", ".git"),
        ("predicate.serialization.ignore_paths", [1]),
        ("predicate.serialization.unknown", 1),
    ],
)
def test_any_other_meaning_is_refused(path: str, value: Any) -> None:
    """Wrong types, unknown members, other predicates, path tricks, weak hashes: each alone is enough."""
    document = copy.deepcopy(statement())
    change(path, value)(document)
    with pytest.raises(ModelSignatureRejected):
        parse_statement(encode(document))


def test_blake3_statement_comes_back_as_it_was() -> None:
    """All files by one algorithm; the root is SHA-256 all the same."""
    manifest = build_manifest("model", {"a": A, "b": B}, algorithm=BLAKE3)
    document = json.loads(encode_statement(manifest))
    assert document["predicate"]["serialization"]["hash_type"] == "blake3"
    assert document["subject"][0]["digest"] == {"sha256": build_manifest("model", {"a": A, "b": B}).root}
    assert parse_statement(encode(document)) == manifest
    document["predicate"]["resources"][1]["algorithm"] = "sha256"
    with pytest.raises(ModelSignatureRejected, match="algorithm"):
        parse_statement(encode(document))


def test_unsorted_and_repeated_names_are_refused() -> None:
    """Even with the root digest that they give."""
    for order in ([1, 0, 2], [0, 0, 1], [0, 2, 1], [2, 1, 0]):
        document = statement()
        resources = document["predicate"]["resources"]
        document["predicate"]["resources"] = [resources[index] for index in order]
        with pytest.raises(ModelSignatureRejected, match="twice or out of order"):
            parse_statement(encode(with_root(document)))


def test_order_by_path_component_is_taken() -> None:
    """model-signing 1.1.1 writes `a/b` before `a.txt`, where the format has it the other way."""
    document = json.loads(encode_statement(Manifest("model", {"a/b": A, "a.txt": B}, ())))
    assert list(parse_statement(encode(document)).digests) == ["a/b", "a.txt"]


def test_duplicate_keys_are_refused_at_every_level() -> None:
    """Another parser might take the other one."""
    text = encode_statement(build_manifest("model", {"a": A})).decode()
    for member in ('"_type":', '"name":"a",', '"method":"files",', '"name":"model",'):
        value = member if member.endswith(",") else '"_type":"https://in-toto.io/Statement/v1",'
        doubled = text.replace(member, value + member, 1)
        assert doubled != text
        with pytest.raises(ModelSignatureRejected, match="twice"):
            parse_statement(doubled.encode())


def test_further_members_of_resources_and_subject_are_ignored() -> None:
    """OMS section 5.2.1: verifiers MUST; they decide nothing."""
    document = statement()
    document["predicate"]["resources"][0]["annotations"] = {"x": 1}
    document["subject"][0]["uri"] = "x"
    document["subject"][0]["digest"]["sha512"] = "00"
    assert list(parse_statement(encode(document)).digests) == ["a", "b", "b/c"]


def test_missing_ignore_paths_are_none() -> None:
    """As before version 1.1 of the reference (OMS section 11)."""
    document = statement()
    del document["predicate"]["serialization"]["ignore_paths"]
    assert parse_statement(encode(document)).ignored == ()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=10)
    | st.sampled_from([A, "a", "sha256"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
PATHS = st.sampled_from(
    (
        *("_type", "subject", "subject.0", "subject.0.name", "subject.0.digest", "predicateType", "predicate"),
        *("predicate.resources", "predicate.resources.0", "predicate.resources.1.name", "predicate.resources.2.digest"),
        *("predicate.serialization", "predicate.serialization.method", "predicate.serialization.ignore_paths"),
    )
)


@given(st.binary(max_size=200) | JSON.map(encode))
def test_nothing_but_the_family_escapes(payload: bytes) -> None:
    """Any bytes, any JSON."""
    with pytest.raises(ModelSignatureRejected):
        parse_statement(payload)


@given(PATHS, JSON)
def test_nothing_but_the_family_escapes_from_near_misses(path: str, value: Any) -> None:
    """A good statement with one member replaced by anything."""
    document = statement()
    change(path, value)(document)
    assert refusal_of(encode(document)).isprintable()


def test_bounds_hold_before_anything_is_parsed() -> None:
    """Size first; deep nesting is an error of the family."""
    with pytest.raises(ModelSignatureRejected, match="longer than"):
        parse_statement(b" " * ((8 << 20) + 1))
    with pytest.raises(ModelSignatureRejected):
        parse_statement(b"[" * 100_000)
    with pytest.raises(ModelSignatureRejected):
        parse_statement(b'{"_type":' + b"9" * 5000 + b"}")
