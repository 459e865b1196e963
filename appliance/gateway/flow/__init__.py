"""The life of a request after it was parsed: reserved, recorded, submitted, delivered, recorded again, settled.

Reading order: `request` (what is asked), `mailbox` (what an engine gives, bounded), `choice` (ids to text, until a
stop), `coverage` (how far the quota reaches), `hashing` and `bodies` (what is kept of words: keyed hashes, sealed
bodies), `records` (intent and outcome), `generation` (one prompt's state), `desk` (what all answers of a worker share),
`opening` (steps (2), (4), (5)), `closing` (step (7)), `answer` (one HTTP request from end to end, step (6) in it; an
ordinary token is worded and written in the call that brings it and wakes no task). Step (1) is `gateway.application`
with `gateway.gate`, step (3) is in `api`.

What always holds: no token leaves before the intent is durable; every intent of ours gets an outcome unless the auditor
itself is gone; every reservation is settled; whatever ends an answer ends its generations in the engine.
"""
