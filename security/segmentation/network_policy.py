"""The same arrows for Kubernetes: everything refused by default, one NetworkPolicy an arrow.

Written as JSON, which is YAML, so that no writer of YAML is needed. Between our own pods the design's arrows are added: a gateway
reaches the authority. Source: Kubernetes NetworkPolicy, networking.k8s.io/v1.
"""

import json
from collections.abc import Sequence
from typing import Any

from security.segmentation.model import Arrow, Ports

_LABEL = "app.kubernetes.io/component"


def render_network_policies(arrows: Sequence[Arrow], ports: Ports, namespace: str = "casemate") -> str:
    """A List of policies for `kubectl apply -f`."""
    policies = [_deny_all(namespace), _inside(namespace, ports)]
    policies += [_policy(arrow, namespace) for arrow in arrows if arrow.target != "host"]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": policies}, indent=2) + "\n"


def _deny_all(namespace: str) -> dict[str, Any]:
    spec = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    return _object("default-deny", namespace, spec)


def _inside(namespace: str, ports: Ports) -> dict[str, Any]:
    """The gateway fetches keys from the authority, in one pod or in two."""
    port = [{"protocol": "TCP", "port": ports.authority}]
    spec = {
        "podSelector": {"matchLabels": {_LABEL: "appliance"}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": {_LABEL: "appliance"}}}], "ports": port}],
        "egress": [{"to": [{"podSelector": {"matchLabels": {_LABEL: "appliance"}}}], "ports": port}],
    }
    return _object("gateway-to-authority", namespace, spec)


def _policy(arrow: Arrow, namespace: str) -> dict[str, Any]:
    peers = [{"ipBlock": {"cidr": str(peer)}} for peer in arrow.peers]
    ports = [{"protocol": "TCP", "port": arrow.port}]
    spec: dict[str, Any] = {"podSelector": {"matchLabels": {_LABEL: "appliance"}}}
    if arrow.is_outgoing:
        spec |= {"policyTypes": ["Egress"], "egress": [{"to": peers, "ports": ports}]}
    else:
        spec |= {"policyTypes": ["Ingress"], "ingress": [{"from": peers, "ports": ports}]}
    return _object(arrow.name.replace("_", "-"), namespace, spec)


def _object(name: str, namespace: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}
