"""The step that a run's log line was said in.

Revision ID: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("run_logs", sa.Column("step", sa.String(), nullable=True))
