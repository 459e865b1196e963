"""The signature file: round trip, strictness, and nothing but the family escapes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from security.errors import ModelSignatureRejected
from security.model_signing.bundle import (
    MAX_BUNDLE_BYTES,
    Bundle,
    CertificateChain,
    KeyHint,
    encode_bundle,
    encode_pae,
    parse_bundle,
)

MATERIALS = st.builds(KeyHint, st.text(min_size=1, max_size=64)) | st.builds(
    CertificateChain, st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=4).map(tuple)
)


def bundle() -> dict[str, Any]:
    """A good bundle."""
    document: dict[str, Any] = json.loads(encode_bundle(Bundle(b"payload", b"signature", KeyHint("00"))))
    return document


def parse(document: Any) -> Bundle:
    """Parse a document."""
    return parse_bundle(json.dumps(document).encode())


def refusal_of(document: Any) -> str:
    """The message, or nothing if the document is taken."""
    try:
        parse(document)
    except ModelSignatureRejected as refused:
        return str(refused)
    return ""


def test_pae_is_that_of_the_specification() -> None:
    """DSSE's pre-authentication encoding: lengths in bytes, in decimal ASCII."""
    assert encode_pae("{é}".encode()) == b"DSSEv1 28 application/vnd.in-toto+json 4 {\xc3\xa9}"


@given(st.binary(min_size=1, max_size=100), st.binary(min_size=1, max_size=100), MATERIALS)
def test_bundle_round_trips(payload: bytes, signature: bytes, material: KeyHint | CertificateChain) -> None:
    """What is encoded parses to the same."""
    made = Bundle(payload, signature, material)
    assert parse_bundle(encode_bundle(made)) == made


@pytest.mark.parametrize("keyid", ["", None, ...])
def test_key_id_may_be_absent_null_or_empty(keyid: Any) -> None:
    """OMS section 4.1: it decides nothing."""
    document = bundle()
    document["dsseEnvelope"]["signatures"][0]["keyid"] = keyid
    if keyid is ...:
        del document["dsseEnvelope"]["signatures"][0]["keyid"]
    assert parse(document).signature == b"signature"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(extra=1), "unknown member 'extra'"),
        (lambda d: d.update(mediaType="application/vnd.dev.sigstore.bundle.v0.1+json"), "mediaType: expected"),
        (lambda d: d.pop("mediaType"), "mediaType"),
        (lambda d: d.pop("dsseEnvelope"), "dsseEnvelope: expected an object"),
        (lambda d: d.pop("verificationMaterial"), "verificationMaterial: expected an object"),
        (lambda d: d["dsseEnvelope"].update(payloadType="text/plain"), "payloadType: expected"),
        (lambda d: d["dsseEnvelope"].update(payload=""), "payload: expected a string"),
        (lambda d: d["dsseEnvelope"].update(payload="%%%"), "payload: expected base64"),
        (lambda d: d["dsseEnvelope"].update(payload="YQ"), "payload: expected base64"),
        (lambda d: d["dsseEnvelope"].update(payload="é"), "payload: expected base64"),
        (lambda d: d["dsseEnvelope"].update(signatures=[]), "signatures: expected an array"),
        (lambda d: d["dsseEnvelope"]["signatures"].append({"sig": "YQ=="}), "signatures: expected an array of 1 to 1"),
        (lambda d: d["dsseEnvelope"]["signatures"][0].update(alg="none"), "unknown member 'alg'"),
        (lambda d: d["dsseEnvelope"]["signatures"][0].update(keyid="x"), "keyid: expected"),
        (lambda d: d["verificationMaterial"].update(publicKey=None), "either publicKey or x509CertificateChain"),
        (lambda d: d["verificationMaterial"].update(publicKey={}), "rawBytes: expected"),
        (lambda d: d["verificationMaterial"].update(tlogEntries=[{}]), "tlogEntries: expected an array of 0 to 0"),
        (lambda d: d["verificationMaterial"].update(certificate={"rawBytes": "YQ=="}), "keyless"),
        (lambda d: d["verificationMaterial"].update(x509CertificateChain={"certificates": []}), "either"),
    ],
)
def test_whatever_is_not_the_format_is_refused(change: Any, message: str) -> None:
    """Each refusal says where and what was expected."""
    document = bundle()
    change(document)
    with pytest.raises(ModelSignatureRejected, match=message):
        parse(document)


def test_duplicate_keys_are_refused() -> None:
    """At the top and in the envelope."""
    text = json.dumps(bundle())
    for member in ('"payload": ', '"mediaType": ', '"sig": '):
        with pytest.raises(ModelSignatureRejected, match="twice"):
            parse_bundle(text.replace(member, f'{member}"YQ==", {member}', 1).encode())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.just("YQ=="),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["rawBytes", "hint", "sig"]), inner),
    max_leaves=8,
)


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_nothing_but_the_family_escapes(data: bytes) -> None:
    """Any bytes, any JSON."""
    with pytest.raises(ModelSignatureRejected):
        parse_bundle(data)


@given(
    st.sampled_from(["mediaType", "verificationMaterial", "dsseEnvelope"]),
    st.sampled_from(["", "publicKey", "x509CertificateChain", "tlogEntries", "payload", "payloadType", "signatures"]),
    JSON,
)
def test_nothing_but_the_family_escapes_from_near_misses(outer: str, inner: str, value: Any) -> None:
    """A good bundle with one member replaced by anything."""
    document = bundle()
    if inner and outer != "mediaType":
        document[outer][inner] = value
    else:
        document[outer] = value
    assert refusal_of(document).isprintable()


def test_size_is_bounded_before_anything_is_parsed() -> None:
    """A signature file cannot fill the memory."""
    with pytest.raises(ModelSignatureRejected, match="longer than"):
        parse_bundle(b" " * (MAX_BUNDLE_BYTES + 1))
