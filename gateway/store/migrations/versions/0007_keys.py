"""Idempotency keys in the order of what they begin with; those kept by their hash alone stay apart until they are old.

Revision ID: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.rename_table("idempotency_keys", "idempotency_hashes")
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="idempotency_keys_by_key"),
        sqlite_with_rowid=False,
    )
