"""Transitions are purged by their age."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the index."""
    op.create_index("idx_ecm_transition_at", "linkis_ecm_engine_transition", ["at"])
