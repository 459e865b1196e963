"""People may register passkeys."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Nobody has one yet."""
    op.add_column("users", sa.Column("passkeys", sa.Text, nullable=False, server_default="[]"))
