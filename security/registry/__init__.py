"""The definitions: who may do what, in SQL. Clients, people, static keys, limits, and the outbox of their changes.

Reading order: `tables`, `migrations` (a module a schema version) and `migrating` (which of them a database has),
`database` (transactions, and the outbox), `rows` (rows as values), then what changes the definitions: `clients`,
`users`, `static_keys`, `roles`, `limits`, `revocations`; `snapshot` (all of it, read at once for the policy process),
`archive` (all of it as a document, for backups).

SQLite is the default, PostgreSQL works the same. Only the policy process and commands import this package, as SQLAlchemy
costs each process that does 25 MB and a third of a second: the plain values that others need are in `security.clients`,
`security.users`, `security.static_keys` and `security.policy`.

The boundary lies outside: methods here check what is asked, not who asks. That whoever is `actor` may, the caller MUST have
seen: the admin API by scope and person, a command by who can open the database. Only that two people are two is judged here.

What always holds: every change is one transaction together with a row in `changes`, from which the policy process appends to the
audit log, so a change cannot happen without its record; a schema that is not exactly ours is refused and left alone.
"""
