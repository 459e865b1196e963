"""What all events have in common: the beginning of an event of a kind, a product, an endpoint, as OCSF says them.

Source: OCSF 1.9.0-dev.
"""

import ipaddress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

from audit.entry import Json
from audit.permissions import KINDS

OCSF_VERSION = "1.9.0-dev"
SUCCESS, FAILURE, UNKNOWN = 1, 2, 0
INFORMATIONAL, LOW, MEDIUM, HIGH = 1, 2, 3, 4
ALLOWED, DENIED = 1, 2
PERSON, SYSTEM_USER = 1, 3
"""OCSF's `user.type_id`."""
SUPERVISOR = "supervisor"
"""Who starts, measures, verifies and tests by itself, as an actor."""

try:
    PRODUCT_VERSION = version("casemate")
except PackageNotFoundError:  # Run from a checkout that is not installed.
    PRODUCT_VERSION = "unknown"


def new_event(kind: str, activity_id: int, status_id: int, severity_id: int, profiles: tuple[str, ...] = ()) -> Json:
    """The beginning of an event of a kind: class, activity, outcome, product."""
    class_uid = KINDS[kind].class_uid
    metadata: Json = {"product": dict(_PRODUCT), "version": OCSF_VERSION}
    if profiles:
        metadata["profiles"] = list(profiles)
    event: Json = {
        "activity_id": activity_id,
        "category_uid": class_uid // 1000,
        "class_uid": class_uid,
        "metadata": metadata,
        "severity_id": severity_id,
        "status_id": status_id,
        "type_uid": class_uid * 100 + activity_id,
        "unmapped": {"casemate": {"kind": kind}},
    }
    if activity_id == 99:
        event["activity_name"] = kind
    return event


def aggregate(event: Json, num_times: int, first_ms: int, last_ms: int) -> None:
    """Say in an event that it stands for so many of its kind, of which the first and the last came then (UTC, milliseconds).

    OCSF has its members for that only where there are several; `num_times` says it always.
    """
    event["unmapped"]["casemate"]["num_times"] = num_times
    if num_times > 1:
        last_ms = max(first_ms, last_ms)
        event |= {"count": num_times, "duration": last_ms - first_ms, "end_time": last_ms, "start_time": first_ms}


def application_of(name: str, uid: str) -> Json:
    """A program or a model, as OCSF's `product` names it."""
    product: Json = {"name": name, "version": PRODUCT_VERSION}
    return product | {"uid": uid} if uid else product


def endpoint_of(address: str, port: int) -> Json:
    """Where somebody came from, as OCSF's `network_endpoint` says it."""
    kind, value = _address_of(address)
    return {kind: value, "port": port}


def place_host_actor(event: Json, actor: str) -> None:
    """Who did something on the host, `supervisor` for what it does by itself; of an event with the profile `host`."""
    event["actor"] = {"user": {"name": actor, "type_id": SYSTEM_USER if actor == SUPERVISOR else PERSON}}


_PRODUCT = application_of("Casemate", "") | {"vendor_name": "Casemate"}


@lru_cache(maxsize=4096)
def _address_of(address: str) -> tuple[str, str]:
    try:
        return "ip", str(ipaddress.ip_address(address))
    except ValueError:
        return "name", address or "unknown"
