"""Zones and arrows: what is rendered, and what is no zone."""

import ipaddress
import json
import re
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from security.errors import SegmentsUnusable
from security.segmentation.egress import probe_egress
from security.segmentation.model import Ports, build_arrows, parse_endpoint
from security.segmentation.network_policy import render_network_policies
from security.segmentation.nftables import render_nftables
from security.segmentation.settings import SegmentsSettings
from tests.support.controls import control
from tests.support.waiting import GIVE_UP_S

PORTS = Ports(8443, 8444, console=8446, administration=8445)
SITE = SegmentsSettings(
    clients=("10.1.0.0/16", "fd00:1::/64"),
    admin=("10.9.0.0/24",),
    telemetry=("10.5.0.9",),
    witnesses=("10.7.0.1:443",),
    providers=("10.8.0.1:8443",),
    issuers=("10.8.0.2:443", "[fd00:8::2]:443"),
    databases=("10.6.0.1:5432",),
    receivers=("10.5.0.8:6514",),
)


@control(
    "3.1.3",
    "3.1.14",
    "3.1.20",
    "3.4.7",
    "3.13.6",
    "AC-4",
    "Article 26(6)",
    "AC-4(4)",
    "AC-17(3)",
    "AC-20",
    "AC-20(1)",
    "SC-7(3)",
    "SC-7(5)",
)
def test_nothing_named_means_nothing_allowed() -> None:
    """The default is a host that nobody reaches and that reaches nobody."""
    rules = render_nftables(build_arrows(SegmentsSettings(), PORTS))
    assert rules.count("policy drop;") == 3
    assert "dport" not in rules
    policies = json.loads(render_network_policies((), PORTS))["items"]
    assert [policy["metadata"]["name"] for policy in policies] == ["default-deny", "gateway-to-authority"]


@control("3.1.3", "3.1.14", "3.13.1", "AC-4", "AC-17(3)", "SC-7", "SC-7(3)", "SI-4(4)")
def test_every_arrow_has_one_rule_a_family_and_a_counter() -> None:
    """IPv4 and IPv6 apart; each connection is counted under its arrow's name."""
    arrows = build_arrows(SITE, PORTS)
    rules = render_nftables(arrows)
    for arrow in arrows:
        versions = {peer.version for peer in arrow.peers}
        assert rules.count(f"counter name {arrow.name} accept") == len(versions)
    assert "ip saddr { 10.1.0.0/16 } tcp dport 8443" in rules
    assert "ip6 saddr { fd00:1::/64 } tcp dport 8444" in rules
    assert "ip daddr { 10.7.0.1 } tcp dport 443" in rules
    assert "ip daddr { 10.8.0.1 } tcp dport 8443" in rules
    assert "ip6 daddr { fd00:8::2 } tcp dport 443" in rules
    assert "udp" not in rules  # No name resolution, no time, no QUIC.


def test_console_and_admin_api_have_arrows_where_they_are_on() -> None:
    """Operators reach them, and the authority where a browser signs in; nobody else does."""
    all_on = {arrow.name: arrow for arrow in build_arrows(SITE, PORTS)}
    assert {name for name, arrow in all_on.items() if arrow.port in (8445, 8446)} == {
        "admin_to_console",
        "admin_to_administration",
    }
    assert all_on["admin_to_authority"].port == 8444
    off = {arrow.name for arrow in build_arrows(SITE, Ports(8443, 8444))}
    assert set(all_on) - off == {"admin_to_console", "admin_to_administration", "admin_to_authority"}


def test_every_arrow_has_one_policy() -> None:
    """Beside the default, and those of arrows to the host itself, which is not Kubernetes' to decide."""
    arrows = build_arrows(SITE, PORTS)
    policies = {
        policy["metadata"]["name"]: policy["spec"]
        for policy in json.loads(render_network_policies(arrows, PORTS))["items"]
    }
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    expected = {arrow.name.replace("_", "-") for arrow in arrows if arrow.target != "host"}
    assert set(policies) == expected | {"default-deny", "gateway-to-authority"}
    assert policies["authority-to-provider-0"]["egress"] == [
        {"to": [{"ipBlock": {"cidr": "10.8.0.1/32"}}], "ports": [{"protocol": "TCP", "port": 8443}]}
    ]
    assert policies["gateway-to-issuer-1"]["egress"][0]["to"] == [{"ipBlock": {"cidr": "fd00:8::2/128"}}]
    assert policies["admin-to-console"]["ingress"] == [
        {"from": [{"ipBlock": {"cidr": "10.9.0.0/24"}}], "ports": [{"protocol": "TCP", "port": 8446}]}
    ]
    assert policies["admin-to-administration"]["ingress"][0]["ports"] == [{"protocol": "TCP", "port": 8445}]
    assert policies["policy-to-database-0"]["egress"][0]["to"] == [{"ipBlock": {"cidr": "10.6.0.1/32"}}]
    assert policies["host-to-receiver-0"]["egress"][0]["ports"] == [{"protocol": "TCP", "port": 6514}]
    assert policies["host-to-witness-0"]["egress"][0]["to"] == [{"ipBlock": {"cidr": "10.7.0.1/32"}}]


NETWORKS = st.lists(
    st.one_of(
        st.ip_addresses(v=4).map(str),
        st.ip_addresses(v=4).map(lambda one: str(ipaddress.ip_network(f"{one}/20", strict=False))),
        st.ip_addresses(v=6).map(lambda one: str(ipaddress.ip_network(f"{one}/64", strict=False))),
    ),
    max_size=3,
).map(tuple)
PORT_NUMBERS = st.integers(1, 65535)
ENDPOINTS = st.lists(
    st.builds("{}:{}".format, st.ip_addresses(v=4), PORT_NUMBERS)
    | st.builds("[{}]:{}".format, st.ip_addresses(v=6), PORT_NUMBERS),
    max_size=3,
).map(tuple)
INCOMING_ZONES = ("clients", "admin", "telemetry")
OUTGOING_ZONES = ("collectors", "witnesses", "providers", "issuers", "databases", "receivers")
Opened = set[tuple[bool, Any, int]]


def opened_by_nftables(rules: str) -> Opened:
    """(outgoing, network, port) of each accepting rule, out of the text alone."""
    found: Opened = set()
    for side, networks, port in re.findall(r"ip6? ([sd])addr \{ (.+) \} tcp dport (\d+) ct state new .* accept", rules):
        found |= {(side == "d", ipaddress.ip_network(one), int(port)) for one in networks.split(", ")}
    return found


def opened_by_policies(document: str) -> Opened:
    """The same of the NetworkPolicies that speak of addresses."""
    found: Opened = set()
    for policy in json.loads(document)["items"]:
        for kind, side in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(kind, ()):
                networks = [ipaddress.ip_network(one["ipBlock"]["cidr"]) for one in rule[side] if "ipBlock" in one]
                found |= {(kind == "egress", one, port["port"]) for one in networks for port in rule["ports"]}
    return found


@control("3.1.3", "3.13.6", "AC-4", "SC-7(5)")
@given(
    st.builds(
        SegmentsSettings,
        **dict.fromkeys(INCOMING_ZONES, NETWORKS),
        **dict.fromkeys(OUTGOING_ZONES, ENDPOINTS),
        admin_port=st.just(22),
    ),
    st.booleans(),
)
def test_nftables_and_network_policies_open_the_same(site: SegmentsSettings, is_administered: bool) -> None:
    """Whatever the site: each form is read back from its text, and both open the same connections and no others.

    Apart from the operators' shell, which is the host's and no pod's.
    """
    ports = Ports(8443, 8444, 8446, 8445) if is_administered else Ports(8443, 8444)
    arrows = build_arrows(site, ports)
    rules, policies = render_nftables(arrows), render_network_policies(arrows, ports)
    shell = {(False, ipaddress.ip_network(network), site.admin_port) for network in site.admin}
    assert opened_by_nftables(rules) == opened_by_policies(policies) | shell
    expected = {(arrow.is_outgoing, peer, arrow.port) for arrow in arrows for peer in arrow.peers}
    assert opened_by_nftables(rules) == expected


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0", "10.0.0.1/8", "example.org", "10.0.0.0/33", "1 or 2"])
def test_what_is_no_zone_is_refused(network: str) -> None:
    """Everybody is no zone; a name would be resolved by somebody outside; host bits are a slip."""
    with pytest.raises(SegmentsUnusable):
        build_arrows(SegmentsSettings(clients=(network,)), PORTS)


@pytest.mark.parametrize("text", ["10.0.0.1", "10.0.0.1:0", "10.0.0.1:70000", "10.0.0:1", "name:1", "::1:x"])
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    """An address and a port."""
    with pytest.raises(SegmentsUnusable):
        parse_endpoint(text, "probes")


def test_probe_that_answers_is_found() -> None:
    """One that listens, one that does not."""
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        open_one, closed_one = (f"127.0.0.1:{one.getsockname()[1]}" for one in (listening, bound))
        tested = probe_egress(SegmentsSettings(probes=(open_one, closed_one), probe_timeout_s=GIVE_UP_S))
    assert (tested.num_tried, tested.answered) == (2, (open_one,))
