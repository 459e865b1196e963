"""A role file that is put into force, and word of it for the log: what decided before, and what does now."""

import hashlib
from pathlib import Path

from appliance.cli.caller import actor
from appliance.models.places import open_outbox, open_trust, utc_now
from security.stewards.role_file import RoleFile


def put_into_force(state: Path, data: bytes) -> RoleFile:
    """Verify a role file, put it into force and leave word of it.

    Raises: TrustUnusable, KeyUnusable; then nothing is in force that was not.
    """
    trust = open_trust(state)
    before = trust.roles_sha256
    roles = trust.install_roles(data, at=utc_now())
    facts: dict[str, str | int] = {
        "version": roles.version,
        "people": len(roles.people),
        "approvals_required": roles.approvals_required,
        "previous": f"sha256:{before}" if before else "none",
    }
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    open_outbox(state).put("roles_installed", name="roles", digest=digest, actor=actor(), facts=facts)
    return roles
