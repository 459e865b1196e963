"""The web console: what admin API and gateway answer, as pages for people. A client like any other, with no rights of its own.

It runs as a process of its own and holds no definitions, no log and no signing key of the appliance's. A person signs in at the
authority (code with PKCE, RFC 6749 and 7636); the tokens stay here, bound to a key that exists for that session alone (DPoP), and
the browser has a cookie that means nothing elsewhere. Whatever is shown or changed is asked with that person's token, so that
policy and audit are those of the API, and nobody can do here what they could not do there.

Reading order: `settings`, `identity` (who the console is to the authority), `tokens` (the authority's client),
`appliance_api` (the other listeners' client), `sessions` (who is signed in), `routes` (what there is, by scope),
`pages` and `templates/` (what it looks like), `sign_in`, `overview`, `capacity`, `definitions`, `records` (what the
routes do), `application`.

What always holds: every route names its scope; no page loads anything, and none has a script; every change is a form with the
session's token, from a page of ours.
"""
