"""The execution journal: what became of each request to run code."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "linkis_ecm_execution",
        sa.Column("task_id", sa.String(64), primary_key=True),
        sa.Column("ticket_id", sa.String(100), nullable=False),
        sa.Column("uid", sa.String(64), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("caller", sa.String(128), nullable=False, comment="who asked"),
        sa.Column("run_type", sa.String(50), nullable=False),
        sa.Column("code_sha256", sa.String(64), nullable=False),
        sa.Column("code_chars", sa.Integer, nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("final", sa.Boolean, nullable=False, comment="nothing changes any more"),
        sa.Column("reason", sa.String(100), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("accepted", sa.BigInteger, nullable=False),
        sa.Column("started", sa.BigInteger, nullable=False, comment="0: never, as far as is known"),
        sa.Column("ended", sa.BigInteger, nullable=False, comment="0: not yet"),
    )
    op.create_index("idx_ecm_execution_ticket", "linkis_ecm_execution", ["ticket_id", "accepted"])
    op.create_index("idx_ecm_execution_open", "linkis_ecm_execution", ["final", "accepted"])
