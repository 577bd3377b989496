"""Linkis's three tables where they are missing, and our own two.

In a real Linkis's database its tables are there already and stay as they are.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from linkis_ecm.store import linkis

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes what is missing."""
    linkis.metadata.create_all(op.get_bind(), checkfirst=True)
    op.create_table(
        "linkis_ecm_engine",
        sa.Column("ticket_id", sa.String(100), primary_key=True),
        sa.Column("uid", sa.String(64), nullable=False),
        sa.Column("namespace", sa.String(63), nullable=False),
        sa.Column("name", sa.String(253), nullable=False),
        sa.Column("as_of", sa.BigInteger, nullable=False, comment="when the engine entered its state"),
        sa.Column("written", sa.BigInteger, nullable=False, comment="when this row was last written"),
        sa.Column("final", sa.Boolean, nullable=False, comment="nothing changes any more"),
        sa.Column("reason", sa.String(100), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
    )
    op.create_table(
        "linkis_ecm_engine_transition",
        sa.Column("ticket_id", sa.String(100), primary_key=True),
        sa.Column("at", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("state", sa.String(50), primary_key=True),
        sa.Column("reason", sa.String(100), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
    )
