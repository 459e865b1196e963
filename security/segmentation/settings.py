"""The section `[segments]`: the networks around this host, and what the self-test tries."""

from typing import Annotated

import msgspec

Network = Annotated[str, msgspec.Meta(min_length=2, max_length=64)]
"""An address or a network in CIDR notation."""
Endpoint = Annotated[
    str, msgspec.Meta(pattern=r"^(\d{1,3}(\.\d{1,3}){3}|\[[0-9a-fA-F:]{2,45}\]):\d{1,5}$", max_length=64)
]
"""`address:port`, or `[address]:port` for IPv6; never a name."""
Networks = Annotated[tuple[Network, ...], msgspec.Meta(max_length=256)]
Endpoints = Annotated[tuple[Endpoint, ...], msgspec.Meta(max_length=64)]


class SegmentsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Zones of the network: who may reach this host, and whom it may reach. Nothing else goes in or out."""

    clients: Annotated[
        Networks, msgspec.Meta(description="Networks of the applications: they reach gateway and authority.")
    ] = ()
    admin: Annotated[
        Networks,
        msgspec.Meta(
            description="Networks of the operators: they reach `admin_port`, and console, authority and admin API where these "
            "are on."
        ),
    ] = ()
    admin_port: Annotated[int, msgspec.Meta(ge=1, le=65535, description="TCP port of the operators' shell.")] = 22
    telemetry: Annotated[
        Networks, msgspec.Meta(description="Networks of the collectors that fetch metrics from the gateway.")
    ] = ()
    collectors: Annotated[
        Endpoints,
        msgspec.Meta(
            description="Addresses of OpenTelemetry collectors on site that the gateway sends spans and metrics to."
        ),
    ] = ()
    witnesses: Annotated[
        Endpoints, msgspec.Meta(description="Addresses of witnesses on site that this host sends checkpoints to.")
    ] = ()
    providers: Annotated[
        Endpoints,
        msgspec.Meta(description="Addresses of the provider by which people sign in: the authority asks there."),
    ] = ()
    issuers: Annotated[
        Endpoints, msgspec.Meta(description="Addresses where the gateway fetches the keys of other token issuers.")
    ] = ()
    databases: Annotated[
        Endpoints, msgspec.Meta(description="Addresses of the database server that holds the definitions.")
    ] = ()
    receivers: Annotated[
        Endpoints, msgspec.Meta(description="Addresses on site that `casemate audit forward` sends records to.")
    ] = ()
    probes: Annotated[
        Endpoints,
        msgspec.Meta(
            description="Addresses that must not answer: the self-test tries to connect to each, and stops serving if one does. "
            "Name some outside your site, and some inside that this host has no business with."
        ),
    ] = ()
    probe_interval_s: Annotated[
        float, msgspec.Meta(gt=0, le=86_400, description="Seconds between two self-tests; one runs at each start.")
    ] = 3600.0
    probe_timeout_s: Annotated[
        float, msgspec.Meta(gt=0, le=60, description="Seconds after which a probe counts as refused.")
    ] = 3.0
