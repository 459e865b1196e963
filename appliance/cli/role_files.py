"""A role file that is put into force, and word of it for the log, left before: what decided until now, and what is about to."""

import hashlib
from pathlib import Path

from appliance.cli.caller import actor
from appliance.models.places import open_outbox, open_trust, utc_now
from security.stewards.role_file import RoleFile


def put_into_force(state: Path, data: bytes) -> RoleFile:
    """Verify a role file, leave word of it and put it into force: none is that the log does not tell.

    Raises: TrustUnusable, KeyUnusable; then nothing is in force that was not.
    """
    trust = open_trust(state)
    before = trust.roles_sha256
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"

    def announce(roles: RoleFile) -> None:
        facts: dict[str, str | int] = {
            "version": roles.version,
            "people": len(roles.people),
            "approvals_required": roles.approvals_required,
            "previous": f"sha256:{before}" if before else "none",
        }
        open_outbox(state).put("roles_installed", name="roles", digest=digest, actor=actor(), facts=facts)

    return trust.install_roles(data, at=utc_now(), announce=announce)
