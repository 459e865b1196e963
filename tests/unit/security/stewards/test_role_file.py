"""The role file: whom a host believes, and every way in which a file is not one."""

import datetime
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from security.errors import MalformedDocument, TrustUnusable
from security.stewards.envelope import add_signature, encode_envelope, key_id_of, parse_envelope, sign_envelope
from security.stewards.role_file import ROLE_FILE_TYPE, Anchor, parse_role_file, verify_role_file
from tests.support.stewardship import Holder, Stewardship, role_document

NOW = datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC)


def anchor_of(*holders: Holder, threshold: int = 1) -> Anchor:
    """The holders as a root of trust."""
    return Anchor({key_id_of(one.key.public_key()): one.key.public_key() for one in holders}, threshold)


def test_signed_file_is_in_force(people: Stewardship) -> None:
    """Version, people, roles and keys as they were written."""
    roles = verify_role_file(people.signed_roles(3), anchor_of(people.root_holder), at=NOW)
    assert (roles.version, roles.approvals_required, len(roles.people)) == (3, 2, 5)
    key_id = key_id_of(people.people["ada"].key.public_key())
    person = roles.person_of(key_id)
    assert person is not None
    assert (person.name, person.roles) == ("ada", {"steward"})
    assert key_id in roles.keys_of("steward")
    assert key_id not in roles.keys_of("importer")


def test_threshold_counts_keys_once() -> None:
    """Two of two holders must sign; one who signs twice is one."""
    one, two = Holder("one"), Holder("two")
    anchor = anchor_of(one, two, threshold=2)
    payload = json.dumps(role_document({"ada": (["steward"], [Holder("ada")])})).encode()
    once = sign_envelope(ROLE_FILE_TYPE, payload, one.signer)
    envelope = parse_envelope(once)
    twice = encode_envelope(type(envelope)(envelope.payload_type, payload, envelope.signatures * 2))
    for data in (once, add_signature(once, one.signer), twice):
        with pytest.raises(TrustUnusable, match="signed by 1 of the keys in the newest customer root"):
            verify_role_file(data, anchor, at=NOW)
    assert verify_role_file(add_signature(once, two.signer), anchor, at=NOW).version == 1


def test_signature_of_another_kind_of_document_is_none(people: Stewardship) -> None:
    """The type is signed: a statement by the same key is not a role file."""
    payload = json.dumps(people.document()).encode()
    data = sign_envelope("application/vnd.in-toto+json", payload, people.root_holder.signer)
    with pytest.raises(TrustUnusable, match="payloadType"):
        verify_role_file(data, anchor_of(people.root_holder), at=NOW)
    relabelled = data.replace(b"application/vnd.in-toto+json", ROLE_FILE_TYPE.encode())
    with pytest.raises(TrustUnusable, match="does not verify"):
        verify_role_file(relabelled, anchor_of(people.root_holder), at=NOW)


def test_older_version_and_expired_file_are_refused(people: Stewardship) -> None:
    """A file that once was in force does not come back."""
    anchor = anchor_of(people.root_holder)
    with pytest.raises(TrustUnusable, match="version 2 is older than version 3"):
        verify_role_file(people.signed_roles(2), anchor, at=NOW, least_version=3)
    with pytest.raises(TrustUnusable, match="expired on 2126-01-01"):
        verify_role_file(people.signed_roles(), anchor, at=NOW.replace(year=2126))


def test_flipped_byte_is_found(people: Stewardship) -> None:
    """Anywhere in the payload."""
    data = people.signed_roles()
    envelope = parse_envelope(data)
    payload = envelope.payload.replace(b'"steward"', b'"stewarx"')
    altered = encode_envelope(type(envelope)(envelope.payload_type, payload, envelope.signatures))
    with pytest.raises(TrustUnusable, match="does not verify"):
        verify_role_file(altered, anchor_of(people.root_holder), at=NOW)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "casemate.roles/2"}, "type"),
        ({"version": 0}, "version"),
        ({"version": True}, "version"),
        ({"approvals_required": 1}, "approvals_required"),
        ({"people": []}, "people"),
        ({"expires_at": "soon"}, "expires_at"),
        ({"note": "x"}, "expected exactly"),
    ],
)
def test_values_out_of_range_are_refused(people: Stewardship, change: dict[str, Any], message: str) -> None:
    """Fewer than two approvals is no rule of two people."""
    with pytest.raises(MalformedDocument, match=message):
        parse_role_file(json.dumps(people.document() | change).encode())


def test_one_key_is_one_person() -> None:
    """The same key under two names would make one person two."""
    shared = Holder("shared")
    document = role_document({"ada": (["steward"], [shared]), "eve": (["steward"], [shared])})
    with pytest.raises(MalformedDocument, match="same key occurs twice"):
        parse_role_file(json.dumps(document).encode())
    document = role_document({"ada": (["steward"], [shared, shared])})
    with pytest.raises(MalformedDocument, match="same key occurs twice"):
        parse_role_file(json.dumps(document).encode())


def test_member_twice_is_refused(people: Stewardship) -> None:
    """Two readers of `roles` given twice see two different people."""
    text = json.dumps(people.document()).replace('"version": 1', '"version": 1, "version": 9')
    with pytest.raises(MalformedDocument, match="twice"):
        parse_role_file(text.encode())


@given(st.binary(max_size=200))
def test_nothing_but_the_family_escapes(data: bytes) -> None:
    """Whatever the bytes."""
    for parse in (parse_role_file, parse_envelope):
        with pytest.raises(MalformedDocument):
            parse(data)
