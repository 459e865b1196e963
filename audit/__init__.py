"""Records: a tamper-evident log that an auditor can verify with this package alone.

Reading order: `merkle`, `note`, `checkpoint`, `tiles`, `entry`, `events`, `permissions`, `append`, `proof`, `fsck`.
Imports the standard library, cryptography and msgspec; never `runtime`, `security` or `appliance`.
"""
