"""OAuth 2.0: who issues access tokens, and how the gateway decides whether one is good.

Reading order: `algorithms`; `token_request` (the wire: forms and credentials), `signing_keys` (which key signs, which are
published), `minting` (what is signed), `grants` (the token endpoint on authlib), `authority` (the whole, without HTTP),
`failure_limit`; then the other side: `key_set` (what is accepted as a key), `key_ring` (keys held and refreshed), `access_token`
(what a token must say), `resource` (the validator), `https_source` (keys over TLS).

What always holds: signatures are ES256 or Ed25519; whatever is not stated here as accepted is refused; only `SecurityFault`s leave.
Sources: RFC 6749, 6750, 7517, 7519, 8414, 8707, 8725, 9068, 9700.
"""
