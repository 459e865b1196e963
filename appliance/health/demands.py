"""What the configuration needs of the machine: sandbox, cryptography, certificates, models, ports, egress."""

import datetime
import socket
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509

from appliance.authority.credentials import find_tls_identity
from appliance.config import Configuration, served_name_of, what_is_lacking
from appliance.errors import ApplianceFault
from appliance.health.finding import Finding
from appliance.models.admission import admit_model, explain_weights
from appliance.models.places import utc_now
from security.errors import SecurityFault
from security.fips import find_modules
from security.sandbox.platform import probe_platform
from security.segmentation.egress import probe_egress

_SOON = datetime.timedelta(days=30)


def examine_demands(configuration: Configuration) -> Iterator[Finding]:
    """Everything that the configuration asks for, in a fixed order."""
    yield from _examine_sandbox(configuration)
    yield from _examine_cryptography(configuration)
    yield _examine_certificate(configuration)
    for engine in configuration.engines:
        yield _examine_model(configuration, served_name_of(engine), Path(engine.model_path))
    yield _examine_port("gateway", configuration.gateway.host, configuration.gateway.port)
    yield _examine_port("authority", configuration.authority.host, configuration.authority.port)
    if configuration.administration.enabled:
        yield _examine_port("administration", configuration.administration.host, configuration.administration.port)
    if configuration.console.enabled:
        yield _examine_port("console", configuration.console.host, configuration.console.port)
    yield _examine_egress(configuration)
    for lack in what_is_lacking(configuration):
        grade = "bad" if configuration.mode == "production" and not lack.waived else "note"
        yield Finding("protection", "bad" if grade == "bad" else "note", f"{lack.name}: {lack.consequence}")


def _examine_sandbox(configuration: Configuration) -> Iterator[Finding]:
    platform = probe_platform(configuration.confinement.first_uid)
    missing = platform.describe_missing()
    if not missing:
        yield Finding("sandbox", "ok", f"Landlock ABI {platform.landlock_abi}, empty networks, system call filters")
    for words in missing:
        yield Finding("sandbox", "note", words)
    if platform.no_own_users:
        yield Finding("sandbox", "note", f"all processes would be one user: {platform.no_own_users}")
    else:
        yield Finding(
            "sandbox", "ok", f"each process is a user of its own, from {configuration.confinement.first_uid} on"
        )


def _examine_cryptography(configuration: Configuration) -> Iterator[Finding]:
    for module in find_modules():
        if module.is_approved:
            yield Finding("cryptography", "ok", f"{module.name}: {module.version}, in FIPS-approved mode")
        else:
            grade = "bad" if configuration.fips else "ok"
            words = f"{module.name}: {module.version}, not in FIPS-approved mode"
            yield Finding("cryptography", "bad" if grade == "bad" else "ok", words)


def _examine_certificate(configuration: Configuration) -> Finding:
    path = find_tls_identity(configuration).certificate
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError:
        return Finding(
            "certificate", "note", f"{path}: is made at the first start, under an authority of this host's own"
        )
    except (OSError, ValueError) as error:
        return Finding("certificate", "bad", f"{path}: {error}")
    ends_at = certificate.not_valid_after_utc
    left = ends_at - utc_now()
    if left <= datetime.timedelta():
        return Finding("certificate", "bad", f"{path}: ended on {ends_at:%Y-%m-%d}")
    return Finding("certificate", "note" if left < _SOON else "ok", f"{path}: good until {ends_at:%Y-%m-%d}")


def _examine_model(configuration: Configuration, name: str, path: Path) -> Finding:
    try:
        admitted = admit_model(configuration, path)
    except (ApplianceFault, SecurityFault) as fault:
        return Finding("model", "bad", f"{name}: {str(fault).splitlines()[0]}")
    if admitted is None:
        return Finding("model", "note", f"{name}: a plain folder, verified by nobody")
    return Finding(
        "model",
        "ok",
        f"{name}: approved by {' and '.join(admitted.approvers)}, sha256:{admitted.root[:16]}…; "
        f"weights are verified by {explain_weights(configuration, admitted)}",
    )


def _examine_port(name: str, host: str, port: int) -> Finding:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return Finding(
                "port", "note", f"{name} at {host} port {port}: {error.strerror}; fine if the appliance is running"
            )
    return Finding("port", "ok", f"{name} at {host} port {port or 'of its choice'} is free")


def _examine_egress(configuration: Configuration) -> Finding:
    settings = configuration.segments
    if not settings.probes:
        return Finding(
            "egress", "note", "no segments.probes are named: nobody tries whether something can leave this host"
        )
    tested = probe_egress(settings)
    if tested.answered:
        return Finding(
            "egress", "bad", f"{', '.join(tested.answered)} answered: what must not leave this host can leave it"
        )
    return Finding("egress", "ok", f"none of {tested.num_tried} probes answered")
