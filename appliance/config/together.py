"""Rules between sections, which no section can check alone.

Pure, so that every process comes to the same result from the same bytes; what lies on disk is `disk`'s.
"""

from collections import defaultdict
from collections.abc import Iterator

from appliance.auditor.witnesses import parse_witnesses
from appliance.config.errors import Problem
from appliance.config.lacks import find_unwaived
from appliance.config.schema import Configuration, served_name_of
from appliance.telemetry.settings import parse_collector
from audit.errors import KeyUnusable
from runtime.deterministic import find_excluded
from runtime.errors import EngineMisconfigured
from runtime.speculative.options import speculation_options
from security.certificates import parse_general_name
from security.database_server import find_database_servers
from security.errors import SecurityMisconfigured
from security.segmentation.settings import SegmentsSettings

_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared with, never bound to
_NO_NAMES = (
    "expected the server's address: where processes are confined, policy looks no name up. Say hostaddr=ADDRESS in the query "
    "beside a name, which the certificate is then still checked against"
)
_NO_SOCKET = "expected the server's address: where processes are confined, policy finds no Unix socket"
_NO_PORTS = "expected the same port at every host: where processes are confined, policy connects to one port alone"


def find_conflicts(configuration: Configuration) -> list[Problem]:
    """Everything that contradicts something else, in the order of the checks."""
    return [
        *_find_shared_ports(configuration),
        *_find_console_alone(configuration),
        *_find_shared_names(configuration),
        *_find_impossible_restarts(configuration),
        *_find_half_certificates(configuration),
        *_find_unnameable_hosts(configuration),
        *_find_shared_issuers(configuration),
        *_find_thawed_bundles(configuration),
        *_find_random_weights(configuration),
        *_find_impossible_sizes(configuration),
        *_find_kernels_without_gpu(configuration),
        *_find_indeterminate_engines(configuration),
        *_find_idle_scales(configuration),
        *_find_conflicting_drafts(configuration),
        *_find_impossible_witnesses(configuration),
        *_find_bodies_nobody_opens(configuration),
        *_find_impossible_collector(configuration),
        *_find_identity_without_arrow(configuration),
        *_find_database_out_of_reach(configuration),
        *find_unwaived(configuration),
    ]


def _find_shared_ports(configuration: Configuration) -> Iterator[Problem]:
    listeners = [
        ("gateway", configuration.gateway.host, configuration.gateway.port),
        ("authority", configuration.authority.host, configuration.authority.port),
    ]
    if configuration.administration.enabled:
        listeners.append(("administration", configuration.administration.host, configuration.administration.port))
    if configuration.console.enabled:
        listeners.append(("console", configuration.console.host, configuration.console.port))
    for number, (name, host, port) in enumerate(listeners):
        for first, first_host, first_port in listeners[:number]:
            is_shared = host == first_host or host in _WILDCARDS or first_host in _WILDCARDS
            if port and port == first_port and is_shared:
                yield Problem(
                    f"{name}.port",
                    f"expected a port of its own, got {port}, which {first}.port has on {first_host} as well",
                )


def _find_console_alone(configuration: Configuration) -> Iterator[Problem]:
    """The console is a client of the other listeners, and must know where they are."""
    if not configuration.console.enabled:
        return
    if not configuration.administration.enabled:
        yield Problem("administration.enabled", "expected true, as console.enabled is, got false")
    for name in ("gateway", "authority", "administration"):
        if getattr(configuration, name).port == 0:
            yield Problem(f"{name}.port", "expected a port by number, as the console connects to it, got 0")


def _find_conflicting_drafts(configuration: Configuration) -> Iterator[Problem]:
    for index, engine in enumerate(configuration.engines):
        try:
            speculation_options(engine)
        except EngineMisconfigured as conflict:
            key, _, words = str(conflict).partition(": ")
            yield Problem(f"engines[{index}].{key}", words)


def _find_shared_names(configuration: Configuration) -> Iterator[Problem]:
    users: dict[str, list[int]] = defaultdict(list)
    for index, engine in enumerate(configuration.engines):
        users[served_name_of(engine)].append(index)
    for name, indices in users.items():
        for index in indices[1:]:
            first = f"engines[{indices[0]}]"
            yield Problem(
                f"engines[{index}].served_model_name", f'expected a name of its own, got "{name}", which {first} has'
            )


def _find_impossible_restarts(configuration: Configuration) -> Iterator[Problem]:
    supervisor = configuration.supervisor
    if supervisor.restart_delay_s > supervisor.max_restart_delay_s:
        yield Problem(
            "supervisor.max_restart_delay_s",
            f"expected at least supervisor.restart_delay_s ({supervisor.restart_delay_s}), got {supervisor.max_restart_delay_s}",
        )


def _find_shared_issuers(configuration: Configuration) -> Iterator[Problem]:
    """Two issuers of one name, or one that says it is another, would be taken for each other."""
    upstream = configuration.upstream
    for key in ("name", "issuer"):
        values = [getattr(one, key) for one in configuration.issuers]
        if key == "name" and upstream is not None and upstream.name in values:
            yield Problem("upstream.name", f'expected one of its own, got "{upstream.name}", which is an issuer\'s')
        for index, value in enumerate(values):
            if value in values[:index] or (key == "issuer" and value == configuration.authority.issuer):
                yield Problem(f"issuers[{index}].{key}", f'expected one of its own, got "{value}", which is taken')


def _find_half_certificates(configuration: Configuration) -> Iterator[Problem]:
    tls = configuration.tls
    for given, other, name, missing in (
        (tls.certificate, tls.key, "tls.key", "tls.certificate"),
        (tls.key, tls.certificate, "tls.certificate", "tls.key"),
    ):
        if given is not None and other is None:
            yield Problem(name, f"expected a file, as {missing} names one, got none")


def _find_unnameable_hosts(configuration: Configuration) -> Iterator[Problem]:
    """The automatic certificate names all addresses and names that the appliance is reached by."""
    if configuration.tls.certificate is not None:
        return
    hosts = [(f"tls.extra_names[{index}]", name) for index, name in enumerate(configuration.tls.extra_names)]
    for section in ("gateway", "authority", "administration", "console"):
        hosts.append((f"{section}.host", getattr(configuration, section).host))
    for key, host in hosts:
        try:
            parse_general_name(host)
        except SecurityMisconfigured:
            yield Problem(key, f'expected a DNS name or an IP address, which a certificate can name, got "{host}"')


def _find_thawed_bundles(configuration: Configuration) -> Iterator[Problem]:
    for index, engine in enumerate(configuration.engines):
        if engine.frozen and not engine.kernels_path:
            yield Problem(
                f"engines[{index}].kernels_path", "expected the folder of a kernel bundle, as frozen is set, got none"
            )
        if engine.kernels_sha256 and not engine.frozen:
            yield Problem(
                f"engines[{index}].kernels_sha256", "expected frozen = true beside it: nothing else has a digest"
            )


def _find_random_weights(configuration: Configuration) -> Iterator[Problem]:
    """Answers of a model that nobody trained are for measurements, and no waiver makes them more."""
    for index, engine in enumerate(configuration.engines):
        if configuration.mode == "production" and engine.load_format == "dummy":
            yield Problem(
                f"engines[{index}].load_format", 'expected "auto", as mode is "production", got "dummy": random weights'
            )


def _find_impossible_sizes(configuration: Configuration) -> Iterator[Problem]:
    """What one option asks for and another does not give."""
    for index, engine in enumerate(configuration.engines):
        alone, mixed = engine.prefill_sizes
        if engine.mixed_prefill_size > mixed:
            yield Problem(
                f"engines[{index}].mixed_prefill_size",
                f"expected at most chunked_prefill_size ({alone}), got {engine.mixed_prefill_size}",
            )
        if engine.max_total_tokens and engine.context_length > engine.max_total_tokens:
            yield Problem(
                f"engines[{index}].context_length",
                f"expected at most max_total_tokens ({engine.max_total_tokens}), which the KV cache holds of all requests "
                f"together, got {engine.context_length}",
            )


def _find_kernels_without_gpu(configuration: Configuration) -> Iterator[Problem]:
    for index, engine in enumerate(configuration.engines):
        if engine.device == "cpu" and engine.attention_backend in ("flashinfer", "triton"):
            yield Problem(
                f"engines[{index}].attention_backend",
                f'expected "auto" or "reference", as device is "cpu", got "{engine.attention_backend}"',
            )


def _find_indeterminate_engines(configuration: Configuration) -> Iterator[Problem]:
    for index, engine in enumerate(configuration.engines):
        for key, problem in find_excluded(engine):
            yield Problem(f"engines[{index}].{key}", problem)


def _find_idle_scales(configuration: Configuration) -> Iterator[Problem]:
    for index, engine in enumerate(configuration.engines):
        is_e4m3 = engine.kv_cache_dtype == "fp8_e4m3"
        if engine.quantization_param_path and not is_e4m3:
            yield Problem(
                f"engines[{index}].quantization_param_path",
                'expected kv_cache_dtype = "fp8_e4m3" beside it: no other KV cache has scales',
            )
        if is_e4m3 and engine.attention_backend == "flashinfer" and not engine.speculative_algorithm:
            yield Problem(
                f"engines[{index}].attention_backend",
                'expected auto or triton, as kv_cache_dtype is "fp8_e4m3", from which flashinfer does not decode, got flashinfer',
            )


def _find_impossible_witnesses(configuration: Configuration) -> Iterator[Problem]:
    audit, segments = configuration.audit, configuration.segments
    try:
        witnesses = parse_witnesses(audit.witnesses)
    except KeyUnusable as error:
        yield Problem("audit.witnesses", str(error).removeprefix("audit.witnesses: "))
        return
    names = {key.name for key, _ in witnesses}  # One that has a key of either kind is named twice, and has one voice.
    if witnesses and audit.witness_quorum > len(names):
        expected = f"expected at most {len(names)}, as audit.witnesses names so many, got {audit.witness_quorum}"
        yield Problem("audit.witness_quorum", expected)
    if segments != SegmentsSettings():
        for key, address in witnesses:
            if address is not None and address.endpoint not in segments.witnesses:
                yield Problem(
                    "segments.witnesses", f'expected "{address.endpoint}" among them, as {key.name} is asked there'
                )


def _find_bodies_nobody_opens(configuration: Configuration) -> Iterator[Problem]:
    audit = configuration.audit
    if audit.sealed_tenants and not audit.body_recipients:
        yield Problem(
            "audit.body_recipients",
            "expected the public key of an auditor, as audit.sealed_tenants names some, got none",
        )


def _find_impossible_collector(configuration: Configuration) -> Iterator[Problem]:
    telemetry, segments = configuration.telemetry, configuration.segments
    if not telemetry.otlp_endpoint:
        return
    try:
        collector = parse_collector(telemetry.otlp_endpoint)
    except ValueError as error:
        yield Problem("telemetry.otlp_endpoint", str(error))
        return
    if segments != SegmentsSettings() and collector.endpoint not in segments.collectors:
        yield Problem(
            "segments.collectors", f'expected "{collector.endpoint}" among them, as telemetry.otlp_endpoint is there'
        )


def _find_identity_without_arrow(configuration: Configuration) -> Iterator[Problem]:
    """Where zones are named, a provider or issuer that is asked over the network needs its arrow."""
    segments, upstream = configuration.segments, configuration.upstream
    if segments == SegmentsSettings():
        return
    if upstream is not None and upstream.address not in segments.providers:
        yield Problem("segments.providers", f'expected "{upstream.address}" among them, as upstream.address is there')
    for index, issuer in enumerate(configuration.issuers):
        if issuer.jwks_address is not None and issuer.jwks_address not in segments.issuers:
            yield Problem(
                "segments.issuers",
                f'expected "{issuer.jwks_address}" among them, as issuers[{index}].jwks_address is there',
            )


def _find_database_out_of_reach(configuration: Configuration) -> Iterator[Problem]:
    """A database server that a confined policy process cannot find, or that lacks its arrow where zones are named."""
    segments, url = configuration.segments, configuration.policy.database_url
    if url is None:
        return
    try:
        servers = find_database_servers(url)
    except SecurityMisconfigured as error:
        yield Problem("policy.database_url", str(error))
        return
    if configuration.confinement.enabled and len({server.port for server in servers}) > 1:
        yield Problem("policy.database_url", _NO_PORTS)
    for server in servers:
        address = server.address
        if address is None:
            if configuration.confinement.enabled:
                yield Problem("policy.database_url", _NO_SOCKET if server.is_socket else _NO_NAMES)
            continue  # What is no address says nothing of the network.
        endpoint = f"{f'[{address}]' if address.version == 6 else address}:{server.port}"
        if segments != SegmentsSettings() and not address.is_loopback and endpoint not in segments.databases:
            yield Problem("segments.databases", f'expected "{endpoint}" among them, as policy.database_url is there')
