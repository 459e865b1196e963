"""The authority's HTTP face, and what other processes need in order to believe its tokens.

Reading order: `addresses` (issuer, resource, names; pure), `credentials` (files made from the configuration),
`key_rotation`, `journal` (records before tokens), `records` (what a record says), `bookkeeping` (what is recorded
later), `directory` (who exists), `http` and `application` (the public routes); for people `browser`, `forms`, `pages`,
`passkey_pages`, `people` (their routes), `sign_in` and `upstream` (who they are); `listener` (uvicorn); for the
gateway: `token_check`, `foreign_issuers`.

What always holds: a token leaves only after its issue is durable in the audit log; no secret, token or Authorization header is
ever logged.
"""
