"""The gateway's side of its three edges: engine, policy, auditor.

Reading order: `links` (what a link is to us), `questions` (asking and being answered), `auditor`, `policy`, `engines`.
Each peer object outlives its links: `run(link)` serves one link until it ends; while there is none, whoever asks is refused
at once with `PeerUnavailable`, and nothing is queued for later. Imports messages, errors and settings only.
"""
