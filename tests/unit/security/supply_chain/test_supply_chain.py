"""SBOM, VEX, provenance and advisories: written, read back, and refused when they do not hold."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from security.errors import EvidenceRejected
from security.supply_chain.advisories import match_feed, verify_feed
from security.supply_chain.components import Component, find_installed, parse_debs_lock, parse_wheels_lock
from security.supply_chain.evidence import PROVENANCE, SBOM, VEX, hash_release_files, verify_release
from security.supply_chain.provenance import Provenance, dependencies_of, sign_provenance, verify_provenance
from security.supply_chain.sbom import encode_sbom, parse_sbom
from security.supply_chain.version_order import version_key
from security.supply_chain.vex import VexStatement, encode_vex, parse_vex
from tests.support.controls import control
from tests.support.stewardship import Holder

DIGEST = "ab" * 32
TORCH = Component("pypi", "torch", "2.13.0+cpu", DIGEST)
SSL = Component("deb", "libssl3", "3.0.22-1~deb12u2", "cd" * 32, "openssl", "3.0.22-1~deb12u2")
BZ2 = Component("deb", "libbz2-1.0", "1.0.8-5+b1", "ef" * 32, "bzip2", "1.0.8-5")
PARTS = [TORCH, SSL, BZ2]
PRODUCT = Component("pypi", "casemate", "0.1.0")
BUILDER = Holder("builder")
FIXED = VexStatement("CVE-1", (SSL.purl,), "fixed")


def osv(ecosystem: str, name: str, *events: dict[str, str], **members: Any) -> bytes:
    """An OSV document with one range."""
    affected = {
        "package": {"ecosystem": ecosystem, "name": name},
        "ranges": [{"type": "ECOSYSTEM", "events": list(events)}],
    }
    return json.dumps({"id": "GHSA-1", "aliases": ["CVE-2026-1"], "affected": [affected], **members}).encode()


def csaf(purl: str, status: str = "known_affected") -> bytes:
    """A CSAF document with one product deep in its tree."""
    product = {"product_id": "P1", "name": "x", "product_identification_helper": {"purl": purl}}
    tree = {"branches": [{"category": "vendor", "branches": [{"category": "product_version", "product": product}]}]}
    vulnerabilities = [{"cve": "CVE-2026-2", "product_status": {status: ["P1"]}}]
    head = {"csaf_version": "2.0", "tracking": {"id": "ADV-2"}}
    return json.dumps({"document": head, "product_tree": tree, "vulnerabilities": vulnerabilities}).encode()


@control("3.4.1", "CM-2", "CM-8", "SR-3")
def test_sbom_is_the_same_twice_and_reads_back() -> None:
    """Whatever the order of the parts; digests and package URLs as they are."""
    assert encode_sbom(PRODUCT, PARTS) == encode_sbom(PRODUCT, PARTS[::-1])
    assert encode_sbom(PRODUCT, PARTS) != encode_sbom(PRODUCT, [TORCH])
    assert parse_sbom(encode_sbom(PRODUCT, PARTS)) == sorted(PARTS)
    assert SSL.purl == "pkg:deb/debian/libssl3@3.0.22-1~deb12u2?distro=bookworm&upstream=openssl%403.0.22-1~deb12u2"
    assert TORCH.purl == "pkg:pypi/torch@2.13.0%2Bcpu"


def test_sbom_with_a_lying_package_url_is_refused() -> None:
    """A name for people and another for advisories."""
    data = encode_sbom(PRODUCT, PARTS).replace(b'"purl": "pkg:pypi/torch@', b'"purl": "pkg:pypi/other@')
    with pytest.raises(EvidenceRejected, match="is not the package URL"):
        parse_sbom(data)


def test_lock_lines_become_components() -> None:
    """Both kinds; an epoch in a file's name is a colon."""
    wheels = parse_wheels_lock(f"# x\n\nPy_YAML==6.0.3 --hash=sha256:{DIGEST}\n")
    assert wheels == [Component("pypi", "py-yaml", "6.0.3", DIGEST)]
    debs = parse_debs_lock(f"{DIGEST}  zlib1g_1%3a1.2.13.dfsg-1_amd64.deb  zlib=1:1.2.13.dfsg-1\n")
    assert debs == [Component("deb", "zlib1g", "1:1.2.13.dfsg-1", DIGEST, "zlib", "1:1.2.13.dfsg-1")]


@control("3.4.1", "3.11.2", "CM-2", "CM-2(2)", "CM-8", "CM-8(2)", "SI-2(2)")
def test_this_installation_knows_its_parts() -> None:
    """Without an SBOM at hand."""
    assert {"cryptography", "tuf"} <= {component.name for component in find_installed()}


@pytest.mark.parametrize(
    ("ecosystem", "versions"),
    [
        ("pypi", "1.0.dev1 1.0a1.dev2 1.0a1 1.0b2 1.0rc1 1.0 1.0+local 1.0.post1 1.0.1 1.2 1.10 1!0.1"),
        ("deb", "1.0~~ 1.0~rc1 1.0 1.0-1~deb12u1 1.0-1 1.0-1+deb12u1 1.0-2 1.0a 1.0+b1 1.0.1 1.10 2:0.1"),
    ],
)
def test_versions_sort_by_their_ecosystems_rules(ecosystem: str, versions: str) -> None:
    """Each is older than the next."""
    keys = [version_key(ecosystem, text) for text in versions.split()]  # type: ignore[arg-type]
    assert keys == sorted(keys)
    assert len({repr(key) for key in keys}) == len(keys)
    assert version_key("pypi", "1.0.0") == version_key("pypi", "1")


@pytest.mark.parametrize("text", ["", "one", "1..2", "1.0 beta", "1_0_", "1.0-"])
def test_what_is_no_version_is_an_error(text: str) -> None:
    """Compared wrongly it would say that all is well."""
    with pytest.raises(ValueError, match="is no version"):
        version_key("pypi", text)


@control("3.11.2", "3.14.1", "AU-6(5)", "SI-2", "SI-2(2)", "SI-5(1)")
@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (osv("PyPI", "Torch", {"introduced": "0"}, {"fixed": "2.14.0"}), "fixed in 2.14.0"),
        (osv("PyPI", "torch", {"introduced": "2.13"}), "no fix is named"),
        (osv("PyPI", "torch", {"introduced": "0"}, {"last_affected": "2.13.0"}), "no fix is named"),
        (osv("PyPI", "torch", {"introduced": "0"}, {"fixed": "2.1"}, {"introduced": "2.12"}, {"fixed": "3"}), "fixed in 3"),
        (osv("Debian:12", "libssl3", {"introduced": "0"}, {"fixed": "3.0.22-1~deb12u3"}), "fixed in 3.0.22-1~deb12u3"),
        (osv("Debian:12", "openssl", {"introduced": "0"}, {"fixed": "3.0.22-1~deb12u3"}), "fixed in 3.0.22-1~deb12u3"),
        (osv("Debian:12", "bzip2", {"introduced": "0"}, {"fixed": "1.0.8-5+a"}), "fixed in 1.0.8-5+a"),
        (csaf(TORCH.purl), "known to be affected"),
        (csaf("pkg:deb/debian/openssl@3.0.22-1~deb12u2?arch=source"), "known to be affected"),
    ],
)  # fmt: skip
def test_advisory_that_concerns_a_part_is_found(document: bytes, reason: str) -> None:
    """By name, ecosystem and version."""
    (match,) = match_feed(document, PARTS)
    assert (match.verdict, match.reason) == ("affected", reason)


@pytest.mark.parametrize(
    "document",
    [
        osv("PyPI", "torch", {"introduced": "0"}, {"fixed": "2.13.0"}),
        osv("PyPI", "torch", {"introduced": "2.14"}),
        osv("PyPI", "torch", {"introduced": "0"}, {"last_affected": "2.12"}),
        osv("npm", "torch", {"introduced": "0"}),
        osv("PyPI", "torchvision", {"introduced": "0"}),
        osv("Debian:11", "libssl3", {"introduced": "0"}),
        osv("Debian:12", "libssl3", {"introduced": "0"}, {"fixed": "3.0.22-1~deb12u2"}),
        osv("Debian:12", "openssl", {"introduced": "0"}, {"fixed": "3.0.22-1~deb12u2"}),
        osv("Debian:12", "bzip2", {"introduced": "0"}, {"fixed": "1.0.8-5"}),
        osv("PyPI", "torch", {"introduced": "0"}, withdrawn="2026-01-01T00:00:00Z"),
        csaf(TORCH.purl, "known_not_affected"),
        csaf("pkg:pypi/torch@2.12.0"),
    ],
)
def test_advisory_that_does_not_concern_it_is_not(document: bytes) -> None:
    """Fixed, later, earlier, elsewhere, withdrawn."""
    assert match_feed(document, PARTS) == []


def test_vendors_statement_is_heard_for_what_it_names() -> None:
    """Under an alias, too; for another part it says nothing."""
    feed = osv("PyPI", "torch", {"introduced": "0"})
    harmless = VexStatement("CVE-2026-1", (TORCH.purl,), "not_affected", "vulnerable_code_not_present")
    (match,) = match_feed(feed, PARTS, [harmless])
    assert (match.verdict, match.reason) == ("not_affected", "vulnerable_code_not_present")
    (match,) = match_feed(
        feed, PARTS, [VexStatement("CVE-2026-1", (SSL.purl,), "not_affected", "component_not_present")]
    )
    assert match.verdict == "affected"


@pytest.mark.parametrize(
    "line",
    [b"{}", b"[]", b"x", b'{"id": "a", "affected": [{}]}', b'{"document": {"csaf_version": "1.2"}}', csaf("p")[:-5]],
)
def test_feed_that_is_half_understood_is_refused(line: bytes) -> None:
    """With the number of the line."""
    with pytest.raises(EvidenceRejected, match="line 2"):
        match_feed(osv("PyPI", "torch", {"introduced": "0"}) + b"\n" + line, PARTS)


@given(st.binary(max_size=100))
def test_nothing_but_the_family_escapes(data: bytes) -> None:
    """From no parser of these."""
    for parse in (
        parse_sbom,
        parse_vex,
        lambda line: verify_provenance(line, []),
        lambda line: match_feed(line, PARTS),
    ):
        try:
            parse(data)
        except EvidenceRejected:
            pass


@control("3.11.2", "SI-2(2)", "SI-5(1)")
def test_feed_is_signed() -> None:
    """As openssl signs it; another key, another feed."""
    feed = osv("PyPI", "torch", {"introduced": "0"})
    signature, key = BUILDER.signer.sign(feed), BUILDER.key.public_key()
    verify_feed(feed, signature, [Holder("x").key.public_key(), key])
    for data, keys in ((feed + b" ", [key]), (feed, [Holder("x").key.public_key()]), (feed, [])):
        with pytest.raises(EvidenceRejected, match="none of the keys"):
            verify_feed(data, signature, keys)


def test_vex_wants_a_reason() -> None:
    """`not_affected` without a justification is a wish."""
    good = encode_vex("urn:x", "us", "2026-01-01T00:00:00Z", [VexStatement("CVE-1", (SSL.purl,), "fixed")])
    assert parse_vex(good)[0].status == "fixed"
    for bad in (
        good.replace(b'"fixed"', b'"not_affected"'),
        good.replace(b'"fixed"', b'"fine"'),
        good.replace(b'"fixed"', b'"affected"'),
        good.replace(b"v0.2.0", b"v9"),
    ):
        with pytest.raises(EvidenceRejected):
            parse_vex(bad)


@pytest.mark.parametrize(
    ("statements", "reason"),
    [
        ([], "has no statement"),
        ([VexStatement("CVE-1", (SSL.purl,), "not_affected")], "not_affected needs one of OpenVEX's justifications"),
        ([VexStatement("CVE-1", (SSL.purl,), "affected")], "affected needs an action"),
    ],
)
def test_vex_that_openvex_does_not_allow_is_not_written(statements: list[VexStatement], reason: str) -> None:
    """Its JSON schema wants a statement, a justification, an action; readers of others refuse the whole document otherwise."""
    with pytest.raises(EvidenceRejected, match=reason):
        encode_vex("urn:x", "us", "2026-01-01T00:00:00Z", statements)


def test_vex_says_what_to_do() -> None:
    """There and back."""
    statement = VexStatement("CVE-1", (SSL.purl,), "affected", action="switch it off")
    assert parse_vex(encode_vex("urn:x", "us", "2026-01-01T00:00:00Z", [statement])) == [statement]


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A release's folder with its evidence."""
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "image.tar").write_bytes(b"image")
    (folder / SBOM).write_bytes(encode_sbom(PRODUCT, PARTS))
    (folder / VEX).write_bytes(encode_vex("urn:x", "us", "2026-01-01T00:00:00Z", [FIXED]))
    sign(folder)
    return folder


def sign(folder: Path, **parameters: str) -> None:
    """Provenance over whatever lies there."""
    known = {"source_commit": "c0ffee", **parameters}
    provenance = Provenance(hash_release_files(folder), known, "urn:builder", dependencies_of(PARTS))
    (folder / PROVENANCE).write_bytes(sign_provenance(provenance, BUILDER.signer))


@control("3.14.1", "SI-2", "SI-7(15)", "SR-3", "SR-9(1)", "SR-11")
def test_release_is_verified(release: Path) -> None:
    """Files, parts, builder, commit."""
    evidence = verify_release(release, [BUILDER.key.public_key()])
    assert set(evidence.provenance.subjects) == {"image.tar", SBOM, VEX}
    assert evidence.components == tuple(sorted(PARTS))
    assert evidence.provenance.parameters["source_commit"] == "c0ffee"


@control("SI-7(15)", "SR-9", "SR-11")
def test_release_that_does_not_hold_is_refused(release: Path) -> None:
    """Each way by itself."""
    key = BUILDER.key.public_key()
    with pytest.raises(EvidenceRejected, match="none of the keys"):
        verify_release(release, [Holder("eve").key.public_key()])
    (release / "extra").touch()
    with pytest.raises(EvidenceRejected, match="extra: not covered"):
        verify_release(release, [key])
    (release / "extra").unlink()
    (release / "image.tar").write_bytes(b"imagE")
    with pytest.raises(EvidenceRejected, match=r"image\.tar: changed"):
        verify_release(release, [key])
    (release / "image.tar").unlink()
    with pytest.raises(EvidenceRejected, match=r"image\.tar: missing"):
        verify_release(release, [key])
    (release / "image.tar").write_bytes(b"image")
    (release / SBOM).write_bytes(encode_sbom(PRODUCT, [TORCH]))
    sign(release)
    with pytest.raises(EvidenceRejected, match="lists other parts"):
        verify_release(release, [key])
    (release / SBOM).write_bytes(encode_sbom(PRODUCT, PARTS))
    (release / VEX).write_bytes(
        encode_vex("urn:x", "us", "2026-01-01T00:00:00Z", [VexStatement("CVE-1", ("pkg:pypi/other@1",), "fixed")])
    )
    sign(release)
    with pytest.raises(EvidenceRejected, match="is no part of this release"):
        verify_release(release, [key])


def test_parameter_that_is_not_known_is_refused(release: Path) -> None:
    """It could have changed what was built."""
    sign(release, extra_index="http://evil")
    with pytest.raises(EvidenceRejected, match="externalParameters: extra_index is not known"):
        verify_release(release, [BUILDER.key.public_key()])
