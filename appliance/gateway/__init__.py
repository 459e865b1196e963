"""HTTP in front of everything: who may, what exactly, and what comes back. One or more worker processes share the port.

Reading order: `settings`, `errors` (and the one table to HTTP), `identity`, `routes`, `gate` (both decide before
anything is parsed), `asgi`, `framing`, `exchange` and `body` (one request, bounded), `quota_headers`, `trace_context`, `sse`,
`application`, `listening`, `protocol` and `server` (uvicorn's httptools), `text` (tokens and characters), `tools`
(calls and reasoning in it), `peers` (engine, policy, auditor, reader, compiler), `flow` (the life of a request), `api`
(the routes), `instruments` and `metrics`, `observing`, `rejections`, `models` and `loading`, `worker` (all of it
wired).

There is no web framework: routes, mounts and redirects that nobody asked for are how doors are left open, and a table
of routes needs none. Imports messages, `audit`'s events and hashes, `security.scopes`, and of `runtime` only what holds
no tensor.

Always holds: a path without an entry in the table does not exist; no token leaves before its intent is durable; nothing a
client sends is identity; one request's fault ends that request.
"""
