"""The admin API: the same changes as the commands make, over a listener of its own, for tokens with the scopes of administrators.

Reading order: `token_check` (who may), `bodies` (what is taken), `endpoints` (what is done), `application` (routes, errors).
 What always holds: every route needs `identity.read` or `identity.manage`; a change is recorded under whoever's token it
was; only people, not programs, grant and approve roles.
"""
