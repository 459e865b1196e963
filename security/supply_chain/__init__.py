"""What a release is made of, how it was made, and which advisories concern it: readable by others' tools, verifiable offline.

Reading order: `components` (a part by name, version and digest), `sbom` (CycloneDX), `vex` (OpenVEX), `provenance` (SLSA),
`evidence` (all of a release, verified), `version_order` (which of two versions is newer), `advisories` (OSV and CSAF against
components).
"""
