"""Alembic's environment: run by `migrating`, never by a command line of Alembic's. The connection and its transaction are
the caller's.
"""

from alembic import context

from security.registry.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"], target_metadata=METADATA, transaction_per_migration=False
)
context.run_migrations()
