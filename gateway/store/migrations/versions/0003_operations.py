"""Live processes of every kind, paused functions, log lines of runs, counts, answers to repeat, and duties.

Revision ID: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.rename_table("workers", "processes")
    op.add_column("processes", sa.Column("kind", sa.String(), nullable=False, server_default="worker"))
    op.add_column("processes", sa.Column("claimed_to", sa.BigInteger(), nullable=False, server_default="9223372036854775807"))
    op.create_index(
        "queue_held",
        "queue",
        ["function_id", "run_id"],
        unique=False,
        sqlite_where=sa.text("held > 0"),
        postgresql_where=sa.text("held > 0"),
    )
    op.create_table(
        "pauses",
        sa.Column("function_id", sa.String(), nullable=False),
        sa.Column("paused_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("function_id"),
    )
    op.create_table(
        "run_logs",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("level", sa.String(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "fence", "n"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "stats",
        sa.Column("minute", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("total_us", sa.BigInteger(), nullable=False),
        *(sa.Column(f"b{n}", sa.BigInteger(), nullable=False) for n in range(8)),
        sa.PrimaryKeyConstraint("minute", "kind", "subject", "outcome"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "answers",
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("content_type", sa.String(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("key_hash"),
    )
    op.create_index("answers_by_age", "answers", ["created_at"], unique=False)
    op.create_table(
        "duties",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
