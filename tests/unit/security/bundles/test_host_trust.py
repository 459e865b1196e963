"""What a host believes: a root by its digest, role files under it, nothing older than before."""

import datetime
import hashlib
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP521R1, generate_private_key

from security.bundles.root_document import parse_root
from security.bundles.roots import TUF_ROLES, build_root, is_complete, sign_root, version_of_root
from security.bundles.trust import HostTrust
from security.errors import KeyUnusable, TrustUnusable
from tests.support.stewardship import FAR, Holder, Stewardship, make_root

NOW = datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC)


def test_root_is_believed_by_its_digest_only(tmp_path: Path) -> None:
    """The digest comes another way; with another one nothing is written."""
    trust, root = HostTrust(tmp_path), make_root(Holder("root"))
    digest = hashlib.sha256(root).hexdigest()
    for wrong, message in (("0" * 64, f"SHA-256 is {digest}"), (digest[:8], "is not a SHA-256 digest"), ("", "is not")):
        with pytest.raises(TrustUnusable, match=message):
            trust.pin_root("vendor", root, wrong)
    assert not (tmp_path / "vendor").exists()
    trust.pin_root("vendor", root, digest.upper())
    assert trust.pinned_root("vendor") == root
    with pytest.raises(TrustUnusable, match="there is no customer root"):
        trust.pinned_root("customer")


def test_believed_root_is_not_replaced(tmp_path: Path) -> None:
    """A second `init` with the same root changes nothing; with another one it is refused."""
    trust, root, other = HostTrust(tmp_path), make_root(Holder("root")), make_root(Holder("other"))
    trust.pin_root("vendor", root, hashlib.sha256(root).hexdigest())
    trust.pin_root("vendor", root, hashlib.sha256(root).hexdigest())
    with pytest.raises(TrustUnusable, match="believes another vendor root"):
        trust.pin_root("vendor", other, hashlib.sha256(other).hexdigest())


def test_root_signs_itself_with_its_threshold() -> None:
    """Two of two holders."""
    one, two = Holder("one"), Holder("two")
    keys = [one.key.public_key(), two.key.public_key()]
    root = build_root(dict.fromkeys(TUF_ROLES, keys), dict.fromkeys(TUF_ROLES, 2), expires_at=FAR)
    half = sign_root(root, one.signer)
    assert not is_complete(half, "vendor")
    assert not is_complete(sign_root(half, one.signer), "vendor")
    whole = sign_root(half, two.signer)
    assert is_complete(whole, "vendor")
    with pytest.raises(TrustUnusable):
        parse_root(re.sub(rb'"version": ?1', b'"version":2', whole), "vendor")
    for data in (b"", b"{}", b"[]", whole[:-10], b"x" * 600_000, root):
        with pytest.raises(TrustUnusable):
            parse_root(data, "vendor")


def test_signature_that_counts_for_nothing_is_not_added() -> None:
    """By a stranger, or a second time: the file would get another digest than the one that went to the hosts."""
    one = Holder("one")
    root = make_root(one)
    with pytest.raises(KeyUnusable, match="none of those that this root names"):
        sign_root(root, Holder("eve").signer)
    assert sign_root(root, one.signer) == root


def test_next_root_is_signed_by_the_holders_of_both() -> None:
    """Old keys go and new ones come: with the signatures of one side it is not complete."""
    old, new = Holder("old"), Holder("new")
    first = make_root(old)
    keys = {role: [new.key.public_key()] for role in TUF_ROLES}
    second = build_root(keys, dict.fromkeys(TUF_ROLES, 1), expires_at=FAR, version=2)
    by_new = sign_root(second, new.signer, before=first)
    assert is_complete(by_new, "vendor")
    assert not is_complete(by_new, "vendor", before=first)
    by_both = sign_root(by_new, old.signer, before=first)
    assert is_complete(by_both, "vendor", before=first)
    with pytest.raises(KeyUnusable):
        sign_root(by_new, Holder("eve").signer, before=first)
    with pytest.raises(TrustUnusable, match="version 2 does not follow version 2"):
        sign_root(second, new.signer, before=by_both)
    assert version_of_root(by_both) == 2


def test_thresholds_and_curves_that_cannot_be_are_refused() -> None:
    """More signatures than keys; a curve that TUF's client does not know."""
    key = Holder("one").key.public_key()
    with pytest.raises(TrustUnusable, match="cannot be"):
        build_root(
            {role: [key] for role in TUF_ROLES},
            {"root": 2, "targets": 1, "snapshot": 1, "timestamp": 1},
            expires_at=FAR,
        )
    with pytest.raises(KeyUnusable, match="secp521r1"):
        make_root(Holder("big", generate_private_key(SECP521R1())))


def test_role_file_does_not_go_back(tmp_path: Path) -> None:
    """Neither by command, nor by putting the old file there."""
    people = Stewardship()
    trust = people.establish(tmp_path)
    first = (trust.path / "roles.dsse").read_bytes()
    trust.install_roles(people.signed_roles(7), at=NOW)
    assert trust.load_roles(at=NOW).version == 7
    with pytest.raises(TrustUnusable, match="older than version 7"):
        trust.install_roles(people.signed_roles(6), at=NOW)
    (trust.path / "roles.dsse").write_bytes(first)
    with pytest.raises(TrustUnusable, match="older than version 7"):
        trust.load_roles(at=NOW)
    (trust.path / "roles.version").write_bytes(b"-1")
    with pytest.raises(TrustUnusable, match="expected a number"):
        trust.load_roles(at=NOW)


def test_role_file_of_another_customer_is_refused(tmp_path: Path) -> None:
    """The anchor is the pinned root's keys."""
    trust = Stewardship().establish(tmp_path)
    with pytest.raises(TrustUnusable, match="signed by 0 of the keys"):
        trust.install_roles(Stewardship().signed_roles(2), at=NOW)
