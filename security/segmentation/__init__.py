"""Who may talk to whom: one model of zones and arrows, rendered for nftables and for Kubernetes, and tested.

Reading order: `settings`, `model` (zones and the arrows of the design), `nftables` (the host's rules), `network_policy`
(Kubernetes), `reach` (whether an address answers), `rehearsal` (the rules tried in network namespaces), `egress` (the self-test).

What always holds: what no arrow names is refused and counted, in both directions; addresses are literals, since a name would be
resolved by somebody outside.
"""
