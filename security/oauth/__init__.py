"""OAuth 2.0: who issues access tokens, and how the gateway decides whether one is good.

Reading order: `algorithms`; `token_request` (the wire: forms and credentials), `authority_request` (a request as authlib takes
it), `client_authentication`, `signing_keys` (which key signs, which are published), `minting` (what is signed), `grants` and
`exchange` (on authlib's grant classes), `consent` (the authorization endpoint), `client_endpoints` (revocation, introspection,
devices), `grant_server` (authlib's server, and the policy of all grants), `dpop`, `refresh_store`, `authority` (the whole,
without HTTP), `failure_limit`; then the other side: `key_set` (what is accepted as a key), `key_ring` (keys held and
refreshed), `access_token` (what a token must say), `profiles` (of issuers elsewhere), `resource` (the validator),
`https_source` (keys over TLS).

What always holds: our own tokens are signed with ES256 or Ed25519, others' with what `algorithms` lists; whatever is not stated
here as accepted is refused; only `SecurityFault`s leave. Sources: RFC 6749, 6750, 7517, 7519, 8414, 8707, 8725, 9068, 9700.
"""
