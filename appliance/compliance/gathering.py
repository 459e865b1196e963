"""All that is told of an installation, for one moment."""

import hashlib
import json
from contextlib import nullcontext
from pathlib import Path

from appliance.compliance.answers import answer_all
from appliance.compliance.inventory import list_people, list_programs, list_roles, list_static_keys
from appliance.compliance.key_files import list_keys
from appliance.compliance.starts import find_recorded_statement
from appliance.compliance.witnesses import find_cosigned
from appliance.config import Configuration
from appliance.config.showing import hide_secrets
from appliance.policy.locations import database_of
from appliance.statement.measuring import measure_software
from audit.events import PRODUCT_VERSION
from compliance.installation import Installation
from security.acting import acting_as_owner
from security.policy.definitions import Definitions
from security.registry.database import Database
from security.registry.snapshot import read_definitions
from security.supply_chain.components import Component, find_installed
from security.supply_chain.sbom import encode_sbom


def gather_installation(
    configuration: Configuration, raw: bytes, now: float, cosigned: bytes | None = None
) -> Installation:
    """Look at everything.

    Args:
        raw: the configuration's bytes.
        cosigned: the witnesses' word to judge by; by default the newest that came.
        now: by which keys and accounts are judged, UTC, seconds since the epoch.
    Raises: RegistryUnusable, OSError; SignatureRejected, LogCorrupted and other AuditFaults.
    """
    definitions = find_definitions(configuration)
    software, digest = f"sha256:{measure_software()}", f"sha256:{hashlib.sha256(raw).hexdigest()}"
    statement = configuration.state_path / "run" / "statement.json"
    cosigned = find_cosigned(configuration) if cosigned is None else cosigned
    recorded = find_recorded_statement(configuration)
    parts = [one for one in find_installed() if one.name != "casemate"]
    return Installation(
        version=PRODUCT_VERSION,
        software=software,
        mode=configuration.mode,
        configuration=_encode_configuration(configuration),
        configuration_digest=digest,
        statement=statement.read_bytes() if statement.is_file() else b"",
        sbom=encode_sbom(Component("pypi", "casemate", PRODUCT_VERSION), parts),
        cosigned=cosigned,
        retention_days=configuration.compliance.retention_days,
        answers=answer_all(configuration, definitions, software, now, cosigned, digest=digest, recorded=recorded),
        people=tuple(list_people(definitions)) if definitions is not None else (),
        programs=tuple(list_programs(definitions)) if definitions is not None else (),
        roles=tuple(list_roles(definitions, two_person_grants=configuration.policy.two_person_grants)),
        static_keys=tuple(list_static_keys(definitions, now)) if definitions is not None else (),
        keys=tuple(list_keys(configuration)),
    )


def find_definitions(configuration: Configuration) -> Definitions | None:
    """The definitions as they are; None where nobody has made any.

    Raises: RegistryUnusable, KeyUnusable.
    """
    location = database_of(configuration)
    if isinstance(location, Path) and not location.is_file():
        return None
    with acting_as_owner(location.parent) if isinstance(location, Path) else nullcontext():
        database = Database.open(location)
        try:
            return read_definitions(database)
        finally:
            database.close()


def _encode_configuration(configuration: Configuration) -> bytes:
    return json.dumps(hide_secrets(configuration), indent=1, sort_keys=True).encode() + b"\n"
