"""The gateway's side of its edges: engine, policy, auditor, compiler, reader.

Reading order: `links` (what a link is to us), `questions` (asking and being answered), `auditor`, `policy`, `engines`,
`compiler`, `reader`. Each peer object outlives its links: `run(link)` serves one link until it ends; while there is
none, whoever asks is refused at once with `PeerUnavailable`, and nothing is queued for later. Imports messages, errors
and settings only.
"""
