"""From the configuration to what each process is confined to: values for `security.sandbox`, which knows no configuration."""

import importlib.util
import os
import ssl
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from appliance.auditor.witnesses import parse_witnesses
from appliance.authority.addresses import issuer_of
from appliance.authority.credentials import find_tls_identity
from appliance.authority.foreign_issuers import address_of, split_address
from appliance.config import Configuration
from appliance.config.child_environment import child_environment
from appliance.config.schema import model_paths_of
from appliance.console.identity import CLIENT_KEY, CLIENT_KEY_SET
from appliance.ipc.rank_sockets import all_descriptors
from appliance.messages.control import Role
from appliance.models.admission import find_item
from appliance.models.places import open_trust
from appliance.policy.locations import CREDENTIALS_FILE, DATABASE_FILE
from appliance.supervisor.ownership import has_own_users, verify_readable
from appliance.telemetry.settings import parse_collector
from security.database_server import find_database_servers
from security.sandbox.launch import Plan, wrap
from security.sandbox.platform import probe_platform
from security.sandbox.profiles import CONFINED_ROLES, SYSTEM_FILES, Code, Places, build_profile, find_code_files
from security.sandbox.users import find_user

_PACKAGES = ("appliance", "compliance", "runtime", "security", "audit")
_PATH_VARIABLES = ("PYTHONPATH", "LD_LIBRARY_PATH")


def confine_command(configuration: Configuration, role: Role, instance: int, command: list[str], fd: int) -> list[str]:
    """The command line that runs `command` confined to its role, `fd` being all that it inherits.

    Without `[confinement] enabled` it is the command itself.
    """
    if not configuration.confinement.enabled or role not in CONFINED_ROLES:
        return command
    num_ranks = configuration.engines[instance].tp_size if role == "engine" else 1
    plan = Plan(
        profile=build_profile(role, _find_places(configuration, role, instance), _find_code()),
        kept_fds=all_descriptors(num_ranks, fd),
        platform=probe_platform(configuration.confinement.first_uid),
        strict=configuration.mode == "production" and "confinement" not in configuration.waivers,
        user=find_user(role, configuration.confinement.first_uid) if has_own_users(configuration) else None,
    )
    return wrap(command, plan)


def uid_of(configuration: Configuration, role: Role) -> int:
    """The user that a process of a role runs as."""
    if role in CONFINED_ROLES and has_own_users(configuration):
        return find_user(role, configuration.confinement.first_uid).uid
    return os.getuid()


def verify_all_readable(configuration: Configuration) -> None:
    """Check that every role's user may read what the role reads. Raises: StartRefused."""
    if not has_own_users(configuration):
        return
    for role in CONFINED_ROLES:
        for instance in range(len(configuration.engines) if role == "engine" else 1):
            profile = build_profile(role, _find_places(configuration, role, instance), Code(()))
            known = {*SYSTEM_FILES, *find_code_files(Code(()))}
            own = [path for path in (*profile.reads, *profile.writes) if path not in known]
            verify_readable(role, own, configuration)


def _find_places(configuration: Configuration, role: Role, instance: int) -> Places:
    engines = [configuration.engines[instance]] if role == "engine" else configuration.engines
    tls, telemetry = find_tls_identity(configuration), configuration.telemetry
    client_ca = (
        None if configuration.tls.client_ca_certificate is None else Path(configuration.tls.client_ca_certificate)
    )
    upstream = configuration.upstream
    console = configuration.console
    models = [path.absolute() for engine in engines for path in model_paths_of(engine)]
    return Places(
        state=configuration.state_path,
        models=tuple(dict.fromkeys((*models, *_find_evidence(configuration, models)))),
        definitions=(configuration.state_path / DATABASE_FILE).parent,
        credentials_key=configuration.state_path / CREDENTIALS_FILE,
        database_port=_database_port(configuration),
        database_files=_database_files(configuration),
        issuer_files=tuple(
            Path(path)
            for one in configuration.issuers
            for path in (one.jwks_file, one.jwks_signer_file, one.ca_certificate)
            if path is not None
        ),
        issuer_ports=tuple(found[1] for one in configuration.issuers if (found := address_of(one)) is not None),
        tls_files=tuple(path for path in (tls.certificate, tls.key, tls.ca_certificate, client_ca) if path is not None),
        authority_port=configuration.authority.port or urlsplit(issuer_of(configuration)).port or 443,
        uses_gpu=any(engine.device == "cuda" for engine in engines),
        kernels=tuple(
            Path(path).absolute()
            for engine in engines
            for path in (engine.kernels_path, engine.quantization_param_path)
            if path
        ),
        upstream_ports=() if upstream is None else (split_address(upstream.address)[1],),
        upstream_files=()
        if upstream is None
        else tuple(Path(path) for path in (upstream.ca_certificate, upstream.client_secret_file) if path is not None),
        recipient_files=tuple(Path(path).absolute() for path in configuration.audit.body_recipients),
        witness_ports=tuple(
            dict.fromkeys(
                found.port for _, found in parse_witnesses(configuration.audit.witnesses) if found is not None
            )
        ),
        witness_files=_find_authorities(configuration.audit.witness_ca_certificate),
        console_ports=(
            configuration.authority.port,
            configuration.gateway.port,
            configuration.administration.port,
        )
        if console.enabled
        else (),
        console_key=configuration.state_path / CLIENT_KEY if console.enabled else None,
        console_key_set=configuration.state_path / CLIENT_KEY_SET if console.enabled else None,
        collector_ports=(parse_collector(telemetry.otlp_endpoint).port,) if telemetry.otlp_endpoint else (),
        collector_files=_find_authorities(telemetry.otlp_ca_certificate) if telemetry.otlp_endpoint else (),
    )


def _find_authorities(configured: str | None) -> tuple[Path, ...]:
    """Who vouches for a server that is connected to: the file that is configured, or the machine's."""
    if configured is not None:
        return (Path(configured),)
    paths = ssl.get_default_verify_paths()
    return tuple(Path(path) for path in (paths.cafile, paths.capath) if path is not None)


def _find_evidence(configuration: Configuration, models: list[Path]) -> list[Path]:
    """What a process reads to verify a promoted model: its signature and approvals, and whom the host believes."""
    items = [found[1].path for model in models if (found := find_item(configuration, model)) is not None]
    return [*items, open_trust(configuration.state_path).path] if items else []


def _database_port(configuration: Configuration) -> int:
    """The port of a database server, of which the configuration's check allows one; 0 for a file."""
    url = configuration.policy.database_url
    return find_database_servers(url)[0].port if url is not None else 0


def _database_files(configuration: Configuration) -> tuple[Path, ...]:
    """The files that the URL of a database server names for TLS; for `sslrootcert=system` the machine's authorities."""
    asked = parse_qs(urlsplit(configuration.policy.database_url or "").query)
    named = [Path(asked[key][-1]) for key in ("sslcert", "sslkey", "sslcrl", "sslrootcert") if key in asked]
    return tuple(path for path in named if path.is_absolute()) + (
        _find_authorities(None) if Path("system") in named else ()
    )


def _find_code() -> Code:
    origins = [spec.origin for name in _PACKAGES if (spec := importlib.util.find_spec(name)) and spec.origin]
    environment = child_environment(is_confined=True)
    folders = [folder for name in _PATH_VARIABLES for folder in environment.get(name, "").split(os.pathsep) if folder]
    return Code(tuple(Path(origin).parent for origin in origins), tuple(os.path.abspath(folder) for folder in folders))
