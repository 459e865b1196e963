"""The section `[compliance]`: what evidence packs are signed with, and what they take in."""

from typing import Annotated

import msgspec

DEFAULT_SIGNER = "casemate.internal/evidence"


class ComplianceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Evidence packs for assessors."""

    signing_key: Annotated[
        str | None,
        msgspec.Meta(
            description="Ed25519 key in PEM, mode 600, that signs evidence packs; by default `compliance/evidence.key` in the "
            "state folder, which the first export makes. Its public half lies beside it as `.vkey`.",
            extra={"path": True},
        ),
    ] = None
    signing_name: Annotated[
        str,
        msgspec.Meta(
            description="Name that the signature carries, in the form of a URL without scheme.",
            min_length=1,
            max_length=200,
            pattern=r"\A[!-*,-~]+\Z",
        ),
    ] = DEFAULT_SIGNER
    test_results: Annotated[
        str | None,
        msgspec.Meta(
            description="The file `control-results.json` that came with the release: how the tests of this build ended. Without it "
            "nothing that rests on tests counts as evidenced.",
            extra={"path": True},
        ),
    ] = None
    statements: Annotated[
        str | None,
        msgspec.Meta(
            description="Your own statements on controls, in TOML; goes into each pack as it is. docs/compliance.md has the form.",
            extra={"path": True},
        ),
    ] = None
    retention_days: Annotated[
        int,
        msgspec.Meta(
            description="Days for which you must be able to show records. Nothing is deleted after them; that none is missing "
            "within them is looked at by `casemate compliance`. The EU AI Act asks for six months at least: 184 days are six "
            "months whenever they begin.",
            ge=1,
            le=36_525,
        ),
    ] = 184
