"""Several manifests for an app, and which processes offer them.

Revision ID: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.rename_table("apps", "manifests")
    op.add_column("manifests", sa.Column("app", sa.String(), nullable=False, server_default="local"))
    op.execute("update manifests set app = id")
    op.add_column("processes", sa.Column("manifest_id", sa.String(), nullable=True))
