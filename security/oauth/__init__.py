"""OAuth 2.0: who issues access tokens, and how the gateway decides whether one is good.

Reading order: `algorithms`, `jws`; `token_request` (the wire: forms and credentials), `authority_request` (a request as
authlib takes it); who asks: `registered_client`, `client_keys`, `client_assertion`, `client_certificates`,
`client_authentication`; `signing_keys` (which key signs, which are published), `token_binding`, `minting` (what is
signed), `grant_types` and `granting` (the rules of all), `grants` and `exchange` (on authlib's grant classes); people:
`authorization_request`, `redirects`, `interactions`, `consent` (the authorization endpoint), `waiting` (sign-ins under
way), `sessions` and `refresh_store`; `own_tokens` and `client_endpoints` (revocation, introspection, devices),
`grant_server` (authlib's server, and the policy of all grants), `dpop`, `dpop_nonces`, `metadata`, `authority` (the
whole, without HTTP), `failure_limit`.

Then the other side: `key_set` (what is accepted as a key), `key_ring` (keys held and refreshed), `access_token` (what a
token must say), `profiles` (of issuers elsewhere), `revocations`, `resource` (the validator), `https_source` and
`file_source` (where keys come from). As a client: `proving`, `https_client`, `id_token` (of the provider by which
people sign in).

What always holds: tokens, our own and others', are signed with what `algorithms` lists for them; whatever is not stated here as
accepted is refused; only `SecurityFault`s leave. Sources: RFC 6749, 6750, 7517, 7519, 8414, 8707, 8725, 9068, 9700.
"""
