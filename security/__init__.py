"""Decides: who may do what, with which key, and what a file or a process is allowed to be.

Reading order: `errors`, `keys`, `tls`, `scopes`, `clients`, `oauth` (authority and resource server), `policy` (roles, quotas).
Imports the standard library, cryptography, authlib, joserfc, msgspec; never `runtime`, `audit` or `appliance`, and no web framework.
"""
