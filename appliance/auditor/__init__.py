"""The auditor's work, apart from its sockets: what it does with each message of each peer.

Reading order: `peer` (whom it talks to), `ledger` (events become durable records; the full disk), `requests` (intents
that are open, requests whose receipts can be asked for), `history` (both, read back at a start), `intents` and
`outcomes` (what becomes of each), `receipts`, `usage` and
`usage_desk` (what policy is told after a loss), `rations` (what strangers may
cause), `service` (the rules). As time passes: `watches` over `clock_watch`, `vouching` (whose word the clock has), `space`,
`reconciliation`, `witness_watch` and `quorum_watch`, told by `alerts`. Witnesses: `witnesses`, `cosigning`, and
`witness_listener` for who is one. Two people: `stewardship` over `bodies` and `governing`. `processes.auditor` joins it
to the sockets.

What always holds: nothing is answered before it is durable; what cannot be recorded is refused.
"""
