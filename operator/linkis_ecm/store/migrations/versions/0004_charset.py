"""Our tables take any text and compare it byte by byte, whatever charset and collation the database has.

A database of charset utf8 refused a row whose message had an emoji, and with it the engine's end.
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TABLES = (
    "linkis_ecm_engine",
    "linkis_ecm_engine_transition",
    "linkis_ecm_post_mortem",
    "linkis_ecm_execution",
)


def upgrade() -> None:
    """Converts them on MySQL and MariaDB; SQLite's texts are so already."""
    if op.get_bind().dialect.name == "sqlite":
        return
    for table in _TABLES:
        op.execute(f"ALTER TABLE {table} CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
