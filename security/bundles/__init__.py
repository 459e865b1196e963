"""What is carried over the air gap: signed, verified before it is unpacked, installed so that a power cut hurts nothing.

Reading order: `trust` (the roots that a host believes, and the role file under them), `root_document` (one of them), `roots`
(making them), `release`, `medium` (a bundle's folder), `building`, `refusals`, `verification`, `slots`, `installing`,
`downgrade` (leave to go back), `switching`.

What always holds: a host believes a root only by a digest that came another way; nothing is opened before its signed length
and digest are known; an interrupted installation leaves what ran before, running.
"""
