"""Steps and their failed tries, waits and what arrives for them, endings to tell, progress, keys of runs.

Revision ID: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "steps",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("due_at", sa.BigInteger(), nullable=True),
        sa.Column("output", sa.LargeBinary(), nullable=True),
        sa.Column("error", sa.LargeBinary(), nullable=True),
        sa.Column("subject", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("run_id", "key"),
        sa.CheckConstraint("status in ('succeeded', 'failed', 'retrying', 'waiting')", name="steps_status"),
        sa.CheckConstraint("(status in ('succeeded', 'failed')) = (finished_at is not null)", name="steps_final_has_time"),
    )
    op.create_table(
        "step_attempts",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=False),
        sa.Column("error", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "key", "fence"),
    )
    op.create_table(
        "waits",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("match_hash", sa.LargeBinary(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=True),
        sa.Column("condition", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("run_id", "key"),
        sqlite_with_rowid=False,
    )
    op.create_index("waits_by_match", "waits", ["match_hash"], unique=False)
    op.create_table(
        "wait_paths",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("mark", sa.BigInteger(), nullable=False),
        sa.Column("settled", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", "path"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "arrivals",
        sa.Column("match_hash", sa.LargeBinary(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("seen", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("match_hash", "event_id"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "arrivals_unseen",
        "arrivals",
        ["event_id"],
        unique=False,
        sqlite_where=sa.text("seen = 0"),
        postgresql_where=sa.text("seen = 0"),
    )
    op.create_index("arrivals_by_event", "arrivals", ["event_id"], unique=False)
    op.create_table(
        "endings",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("run_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "progress",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("done", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=True),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("run_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "run_keys",
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key_hash"),
        sqlite_with_rowid=False,
    )
    op.create_index("run_keys_by_age", "run_keys", ["until"], unique=False)
    op.add_column("runs", sa.Column("parent_id", sa.String(), nullable=True))
    op.add_column("runs", sa.Column("parent_key", sa.String(), nullable=True))
