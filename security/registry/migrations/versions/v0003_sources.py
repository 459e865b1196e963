"""Changes say from where they were asked for."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Of those that wait it is not known."""
    op.add_column("changes", sa.Column("source", sa.Text, nullable=False, server_default=""))
