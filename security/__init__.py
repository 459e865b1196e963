"""Decides: who may do what, with which key, and what a file or a process is allowed to be.

Reading order: `errors`, `settings`, `issuer_settings`, `json_object` (strict JSON), `scopes` (what a token may be good for), `keys`
(files), `acting` (root in somebody's folder), `certificates`, `tls`, `fips`, `clients`, `users`, `passwords`,
`passkeys`, `static_keys` (who may get in, and how), `oauth` (authorization server and resource server), `policy`
(quotas), `registry` (all of it in SQL), `database_server` (where that is, if elsewhere), `model_signing` (signed model
folders), `stewards` (who may bring a model in, who must agree), `bundles` (what a host believes), `supply_chain` (what
a release is made of), `tpm` (a chip's word for what runs), `segmentation` (who may talk to whom), `sandbox` (what a
process may touch).

Imports the standard library, cryptography, authlib, joserfc, fido2, msgspec, python-tuf, PyYAML, and in `registry` SQLAlchemy;
never `runtime`, `audit` or `appliance`, and no web framework. What always holds: untrusted bytes are bounded before they are
parsed, and only a `SecurityFault` leaves a parser.
"""
