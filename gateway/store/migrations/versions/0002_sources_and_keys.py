"""Sources that change while they live, and keys that expire.

Revision ID: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("sources", sa.Column("enabled", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("sources", sa.Column("version", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("api_keys", sa.Column("expires_at", sa.BigInteger(), nullable=True))
    op.add_column("api_keys", sa.Column("last_used_at", sa.BigInteger(), nullable=True))
    op.create_table(
        "secret_uses",
        sa.Column("source_id", sa.String(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("last_used_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("source_id", "n"),
    )
