"""The software bill of materials: CycloneDX 1.6, the same bytes for the same parts.

No time and no random number: the serial number follows from the content. Source: CycloneDX specification 1.6.
"""

import hashlib
import json
import uuid
from collections.abc import Iterable
from urllib.parse import unquote

from security.errors import EvidenceRejected, MalformedDocument
from security.json_object import parse_json_object
from security.supply_chain.components import Component, Ecosystem

SPEC_VERSION = "1.6"
MAX_SBOM_BYTES = 16 << 20


def encode_sbom(product: Component, components: Iterable[Component]) -> bytes:
    """The document."""
    listed = [_encode_component(one) for one in sorted(components)]
    content = json.dumps([_encode_component(product), listed], sort_keys=True).encode()
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "serialNumber": f"urn:uuid:{uuid.UUID(bytes=hashlib.sha256(content).digest()[:16], version=4)}",
        "version": 1,
        "metadata": {"component": {**_encode_component(product), "type": "application"}},
        "components": listed,
        "dependencies": [{"ref": product.purl, "dependsOn": [one["bom-ref"] for one in listed]}],
    }
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def parse_sbom(data: bytes) -> list[Component]:
    """The components of a document of ours.

    Raises: EvidenceRejected.
    """
    if len(data) > MAX_SBOM_BYTES:
        raise EvidenceRejected(f"SBOM: longer than {MAX_SBOM_BYTES} bytes")
    try:
        document = parse_json_object(data)
        if document.get("bomFormat") != "CycloneDX" or document.get("specVersion") != SPEC_VERSION:
            raise MalformedDocument(f"expected CycloneDX {SPEC_VERSION}")
        return [_parse_component(entry) for entry in document["components"]]
    except (MalformedDocument, KeyError, TypeError, AttributeError) as error:
        raise EvidenceRejected(f"SBOM: {error}") from None


def _encode_component(component: Component) -> dict[str, object]:
    encoded: dict[str, object] = {
        "type": "library",
        "bom-ref": component.purl,
        "name": component.name,
        "version": component.version,
        "purl": component.purl,
    }
    if component.sha256:
        encoded["hashes"] = [{"alg": "SHA-256", "content": component.sha256}]
    return encoded


def _parse_component(entry: dict[str, object]) -> Component:
    name, version, purl = str(entry["name"]), str(entry["version"]), str(entry["purl"])
    hashes = entry.get("hashes") or []
    digest = next((str(one["content"]) for one in hashes if one["alg"] == "SHA-256"), "")  # type: ignore[attr-defined]
    ecosystem: Ecosystem = "deb" if purl.startswith("pkg:deb/") else "pypi"
    source, _, source_version = unquote(purl.partition("&upstream=")[2]).partition("@")
    component = Component(ecosystem, name, version, digest, source, source_version)
    if component.purl != purl:
        raise MalformedDocument(f"{purl[:200]}: is not the package URL of {name} {version}")
    return component
