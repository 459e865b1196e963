"""The auditor's work, apart from its sockets: what it does with each message of each peer.

Reading order: `peer` (whom it talks to), `ledger` (events become durable records; the full disk), `requests` (intents that are
open, requests whose receipts can be asked for), `history` (both, read back at a start), `receipts`, `service` (the rules).
`processes.auditor` joins it to the sockets.

What always holds: nothing is answered before it is durable; what cannot be recorded is refused.
"""
