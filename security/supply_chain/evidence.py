"""A release's evidence as a folder: the files, `sbom.cdx.json`, `vex.json`, `provenance.intoto.jsonl`.

(1) The provenance's signature. (2) Every subject lies there with its digest, and nothing else does. (3) The SBOM's parts that
came as files are exactly what the provenance says was built from. (4) The VEX is well formed and speaks of parts of this
release only.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from security.errors import EvidenceRejected, ModelFolderRejected
from security.model_signing.folder import ModelFolder
from security.model_signing.names import show_name
from security.supply_chain.components import Component
from security.supply_chain.provenance import Provenance, dependencies_of, verify_provenance
from security.supply_chain.sbom import MAX_SBOM_BYTES, parse_sbom
from security.supply_chain.vex import VexStatement, parse_vex

SBOM, VEX, PROVENANCE = "sbom.cdx.json", "vex.json", "provenance.intoto.jsonl"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a release, once it was verified."""

    provenance: Provenance
    components: tuple[Component, ...]
    statements: tuple[VexStatement, ...]


def verify_release(folder: Path, keys: Sequence[EllipticCurvePublicKey]) -> Evidence:
    """Verify a release's folder; see the module for the steps.

    Raises: EvidenceRejected, a line for each file that is wrong.
    """
    provenance = verify_provenance(_read(folder / PROVENANCE), keys)  # (1)
    _verify_files(folder, provenance)  # (2)
    for name in (SBOM, VEX):
        if name not in provenance.subjects:
            raise EvidenceRejected(f"{name}: is not covered by the provenance")
    components = parse_sbom(_read(folder / SBOM))
    if dependencies_of(components) != provenance.dependencies:  # (3)
        raise EvidenceRejected(f"{SBOM}: lists other parts than the provenance says the release was built from")
    statements = parse_vex(_read(folder / VEX))
    known = {component.purl for component in components}
    for statement in statements:  # (4)
        if strange := set(statement.products) - known:
            raise EvidenceRejected(f"{VEX}: {statement.vulnerability}: {min(strange)[:200]} is no part of this release")
    return Evidence(provenance, tuple(components), tuple(statements))


def hash_release_files(folder: Path) -> dict[str, str]:
    """SHA-256, hexadecimal, of every file but the provenance, by name. Raises: EvidenceRejected."""
    try:
        with ModelFolder(folder) as opened:
            names = [file.name for file in opened.list_files()]
    except ModelFolderRejected as error:
        raise EvidenceRejected(str(error).replace("model folder", "release")) from None
    found = {}
    for name in names:
        if name != PROVENANCE:
            with (folder / name).open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _verify_files(folder: Path, provenance: Provenance) -> None:
    found = hash_release_files(folder)
    problems = [f"{show_name(name)}: missing" for name in provenance.subjects if name not in found]
    for name, digest in found.items():
        expected = provenance.subjects.get(name)
        if expected is None:
            problems.append(f"{show_name(name)}: not covered by the provenance")
        elif digest != expected:
            problems.append(f"{show_name(name)}: changed: SHA-256 {digest[:16]}… instead of {expected[:16]}…")
    if problems:
        raise EvidenceRejected("\n".join(problems[:20]))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_SBOM_BYTES + 1)
    except OSError as error:
        raise EvidenceRejected(f"{path}: cannot be read: {error.strerror}") from None
