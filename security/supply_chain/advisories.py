"""Advisories against the parts of a release: OSV and CSAF documents, one a line, signed by whoever curated them. Offline.

    FEED        JSON Lines: OSV (schema 1.x) and CSAF 2.0 documents, mixed
    FEED.sig    ECDSA signature over the file, as `openssl dgst -sha256 -sign` makes it

A document of another kind is an error, not something to pass over: a feed that is half understood says that all is well.
Sources: OSV schema; CSAF 2.0, sections 3.2.2 and 3.2.3.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from security.errors import EvidenceRejected, MalformedDocument, ModelSignatureRejected
from security.json_object import parse_json_object
from security.model_signing.elliptic import verify_signature_bytes
from security.supply_chain.components import Component, Ecosystem, normalize_name
from security.supply_chain.version_order import version_key
from security.supply_chain.vex import VexStatement

MAX_FEED_BYTES = 512 << 20
Verdict = Literal["affected", "not_affected", "fixed", "under_investigation"]


@dataclass(frozen=True, slots=True)
class Match:
    """An advisory that concerns a part of this release."""

    advisory: str
    aliases: tuple[str, ...]
    component: Component
    verdict: Verdict
    reason: str
    """Where it is fixed, or why the vendor says that it does no harm."""


def verify_feed(data: bytes, signature: bytes, keys: Sequence[EllipticCurvePublicKey]) -> None:
    """Check who curated a feed. Raises: EvidenceRejected."""
    if len(data) > MAX_FEED_BYTES:
        raise EvidenceRejected(f"feed: longer than {MAX_FEED_BYTES} bytes")
    for key in keys:
        try:
            verify_signature_bytes(key, signature, data)
        except ModelSignatureRejected:
            continue
        return
    raise EvidenceRejected("feed: signed by none of the keys given, or altered")


def match_feed(data: bytes, components: Sequence[Component], statements: Sequence[VexStatement] = ()) -> list[Match]:
    """What of these components some advisory speaks of.

    Raises: EvidenceRejected, naming the line of a document that is not understood.
    """
    found: list[Match] = []
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            document = parse_json_object(line)
            found += _match_document(document, components)
        except (MalformedDocument, KeyError, TypeError, ValueError, AttributeError) as error:
            raise EvidenceRejected(f"feed: line {number}: {type(error).__name__}: {error}") from None
    return sorted((_judge(match, statements) for match in found), key=lambda match: (match.verdict, match.advisory))


def _match_document(document: dict[str, Any], components: Sequence[Component]) -> Iterator[Match]:
    if "affected" in document and "id" in document:
        return _match_osv(document, components)
    if document.get("document", {}).get("csaf_version") == "2.0":
        return _match_csaf(document, components)
    raise MalformedDocument("neither OSV nor CSAF 2.0")


def _match_osv(document: dict[str, Any], components: Sequence[Component]) -> Iterator[Match]:
    if document.get("withdrawn"):
        return
    aliases = tuple(map(str, document.get("aliases", ())))
    for affected in document["affected"]:
        package = affected["package"]
        for component in components:
            version = _version_named(package, component)
            if version is not None:
                fixed = _osv_verdict(affected, component.ecosystem, version)
                if fixed is not None:
                    yield Match(str(document["id"]), aliases, component, "affected", fixed)


def _version_named(package: dict[str, Any], component: Component) -> str | None:
    """The version that an advisory about this package speaks of; None if it is about another.

    Debian's name source packages (OSV schema, ecosystem `Debian`), whose versions are not always those of what was built from
    them. Who names the binary package means it, too: better a match too many.
    """
    ecosystem, name = str(package["ecosystem"]), str(package["name"])
    if component.ecosystem == "pypi":
        return component.version if ecosystem == "PyPI" and normalize_name(name) == component.name else None
    if ecosystem not in ("Debian", "Debian:12"):
        return None
    if name == component.source:
        return component.source_version
    return component.version if name == component.name else None


def _osv_verdict(affected: dict[str, Any], ecosystem: Ecosystem, version: str) -> str | None:
    """None if this version is not affected; else where it is fixed, in words."""
    if {version, version.partition("+")[0] if ecosystem == "pypi" else version} & {*affected.get("versions", ())}:
        return "this version is listed"
    for described in affected.get("ranges", ()):
        if described["type"] not in ("ECOSYSTEM", "SEMVER"):
            continue  # Ranges of commits say nothing about releases.
        fixed = _range_verdict(described["events"], ecosystem, version)
        if fixed is not None:
            return fixed
    return None


def _range_verdict(events: Iterable[dict[str, str]], ecosystem: Ecosystem, version: str) -> str | None:
    # Advisories speak of public versions: `2.13.0+cpu` is 2.13.0, built here in another way.
    key = version_key(ecosystem, version.partition("+")[0] if ecosystem == "pypi" else version)
    since, ends = False, ""
    for event in events:
        ((kind, text),) = event.items()
        if kind == "introduced":
            if text == "0" or version_key(ecosystem, text) <= key:
                since, ends = True, ""
        elif kind == "fixed" and since:
            if version_key(ecosystem, text) <= key:
                since = False
            else:
                ends = ends or f"fixed in {text}"
        elif kind == "last_affected" and since and version_key(ecosystem, text) < key:
            since = False
    return (ends or "no fix is named") if since else None


def _match_csaf(document: dict[str, Any], components: Sequence[Component]) -> Iterator[Match]:
    purls = dict(_csaf_products(document["product_tree"]))
    known: dict[str, list[Component]] = {}
    for component in components:
        known.setdefault(component.purl.partition("?")[0], []).append(component)
        if component.source:
            source = Component("deb", component.source, component.source_version)
            known.setdefault(source.purl.partition("?")[0], []).append(component)
    advisory = str(document["document"]["tracking"]["id"])
    for vulnerability in document.get("vulnerabilities", ()):
        aliases = (str(vulnerability["cve"]),) if vulnerability.get("cve") else ()
        for product in vulnerability.get("product_status", {}).get("known_affected", ()):
            for component in dict.fromkeys(known.get(purls.get(product, "").partition("?")[0], ())):
                yield Match(advisory, aliases, component, "affected", "known to be affected")


def _csaf_products(tree: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Package URLs of products by their id, wherever in the tree they stand."""
    for product in tree.get("full_product_names", ()):
        yield _csaf_product(product)
    pending = list(tree.get("branches", ()))
    while pending:
        branch = pending.pop()
        pending += branch.get("branches", ())
        if "product" in branch:
            yield _csaf_product(branch["product"])


def _csaf_product(product: dict[str, Any]) -> tuple[str, str]:
    return str(product["product_id"]), str(product.get("product_identification_helper", {}).get("purl", ""))


def _judge(match: Match, statements: Sequence[VexStatement]) -> Match:
    """What the vendor said about it, if anything."""
    names = {match.advisory, *match.aliases}
    for statement in statements:
        if statement.vulnerability in names and match.component.purl in statement.products:
            reason = statement.justification or match.reason
            return Match(match.advisory, match.aliases, match.component, statement.status, reason)
    return match
