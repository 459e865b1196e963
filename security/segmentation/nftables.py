"""The host's rules for nftables: drop by default in both directions, one accepting rule an arrow, counters for what is refused.

One table of our own, `inet casemate`, replaced as a whole by one transaction: other tables are left alone, and there is no moment
without rules. Nothing is passed on between other machines. Refused incoming packets are dropped silently; refused outgoing ones
are answered, so that a process of ours that tries fails at once. Source: nft(8); tested with nftables 1.0.6, which wants a line
end before every closing brace.
"""

from collections.abc import Sequence

from security.segmentation.model import Address, Arrow

TABLE = "casemate"
REFUSED_IN, REFUSED_OUT, REFUSED_THROUGH = "refused_in", "refused_out", "refused_through"
_NEIGHBOURS = "nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert"


def render_nftables(arrows: Sequence[Arrow]) -> str:
    """A ruleset for `nft -f`."""
    incoming = [arrow for arrow in arrows if not arrow.is_outgoing]
    outgoing = [arrow for arrow in arrows if arrow.is_outgoing]
    counters = [*(arrow.name for arrow in arrows), REFUSED_IN, REFUSED_OUT, REFUSED_THROUGH]
    lines = [
        "# Written by `casemate segments render`.",
        f"table inet {TABLE}",
        f"delete table inet {TABLE}",
        f"table inet {TABLE} {{",
        *(f"  counter {name} {{ }}" for name in counters),
        *_render_chain("input", "iif", incoming, REFUSED_IN, "drop"),
        *_render_chain("output", "oif", outgoing, REFUSED_OUT, "reject with icmpx type admin-prohibited"),
        "  chain forward {",
        "    type filter hook forward priority filter; policy drop;",
        f"    counter name {REFUSED_THROUGH} drop",
        "  }",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _render_chain(hook: str, interface: str, arrows: Sequence[Arrow], refused: str, verdict: str) -> list[str]:
    return [
        f"  chain {hook} {{",
        f"    type filter hook {hook} priority filter; policy drop;",
        f'    {interface} "lo" accept',
        "    ct state established,related accept",
        "    ct state invalid drop",
        f"    icmpv6 type {{ {_NEIGHBOURS} }} accept",
        *(line for arrow in arrows for line in _render_arrow(arrow)),
        f"    counter name {refused} {verdict}",
        "  }",
    ]


def _render_arrow(arrow: Arrow) -> list[str]:
    side = "daddr" if arrow.is_outgoing else "saddr"
    rules = []
    for version, family in ((4, "ip"), (6, "ip6")):
        peers = [peer for peer in arrow.peers if peer.version == version]
        if peers:
            match = f"{family} {side} {{ {', '.join(map(_format, peers))} }} tcp dport {arrow.port} ct state new"
            rules.append(f"    {match} counter name {arrow.name} accept")
    return rules


def _format(network: Address) -> str:
    return str(network.network_address) if network.num_addresses == 1 else str(network)
