"""Alembic's environment, and below it one module a schema version. Run by `migrating`, never imported by anybody else."""
