"""The index of the post-mortem bundles in the archive."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "linkis_ecm_post_mortem",
        sa.Column("uid", sa.String(64), primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("ticket_id", sa.String(100), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False, comment="when the evidence was collected"),
        sa.Column("reason", sa.String(100), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("files", sa.Text, nullable=False, comment="JSON: name to bytes"),
        sa.Column("bytes", sa.BigInteger, nullable=False, comment="of all files"),
        sa.Column("missing", sa.Text, nullable=False, comment="JSON: what could not be had, and why"),
        sa.Column("expires", sa.BigInteger, nullable=False, comment="the bundle is removed then"),
    )
    op.create_index("idx_ecm_post_mortem_ticket", "linkis_ecm_post_mortem", ["ticket_id"])
    op.create_index("idx_ecm_post_mortem_expires", "linkis_ecm_post_mortem", ["expires"])
