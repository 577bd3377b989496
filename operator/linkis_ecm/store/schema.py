"""Our own tables beside Linkis's: which records were written, and the history of each engine's states.

Times are microseconds since 1970 (BIGINT): Linkis's datetimes hold seconds, and an engine may change twice in one.
A change here needs a migration; a test compares both.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()
# Any text, compared byte by byte, whatever the database's own default is.
_CHARSET: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}

engine = Table(
    "linkis_ecm_engine",
    metadata,
    Column("ticket_id", String(100), primary_key=True),
    Column("uid", String(64), nullable=False),
    Column("namespace", String(63), nullable=False),
    Column("name", String(253), nullable=False),
    Column("as_of", BigInteger, nullable=False, comment="when the engine entered its state"),
    Column("written", BigInteger, nullable=False, comment="when this row was last written"),
    Column("final", Boolean, nullable=False, comment="nothing changes any more"),
    Column("reason", String(100), nullable=False),
    Column("message", Text, nullable=False),
    **_CHARSET,
)

transition = Table(
    "linkis_ecm_engine_transition",
    metadata,
    Column("ticket_id", String(100), primary_key=True),
    Column("at", BigInteger, primary_key=True, autoincrement=False),
    Column("state", String(50), primary_key=True),
    Column("reason", String(100), nullable=False),
    Column("message", Text, nullable=False),
    Index("idx_ecm_transition_at", "at"),
    **_CHARSET,
)

post_mortem = Table(
    "linkis_ecm_post_mortem",
    metadata,
    Column("uid", String(64), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("ticket_id", String(100), nullable=False),
    Column("at", BigInteger, nullable=False, comment="when the evidence was collected"),
    Column("reason", String(100), nullable=False),
    Column("message", Text, nullable=False),
    Column("files", Text, nullable=False, comment="JSON: name to bytes"),
    Column("bytes", BigInteger, nullable=False, comment="of all files"),
    Column("missing", Text, nullable=False, comment="JSON: what could not be had, and why"),
    Column("expires", BigInteger, nullable=False, comment="the bundle is removed then"),
    Index("idx_ecm_post_mortem_ticket", "ticket_id"),
    Index("idx_ecm_post_mortem_expires", "expires"),
    **_CHARSET,
)

execution = Table(
    "linkis_ecm_execution",
    metadata,
    Column("task_id", String(64), primary_key=True),
    Column("ticket_id", String(100), nullable=False),
    Column("uid", String(64), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("caller", String(128), nullable=False, comment="who asked"),
    Column("run_type", String(50), nullable=False),
    Column("code_sha256", String(64), nullable=False),
    Column("code_chars", Integer, nullable=False),
    Column("status", String(20), nullable=False),
    Column("final", Boolean, nullable=False, comment="nothing changes any more"),
    Column("reason", String(100), nullable=False),
    Column("message", Text, nullable=False),
    Column("accepted", BigInteger, nullable=False),
    Column("started", BigInteger, nullable=False, comment="0: never, as far as is known"),
    Column("ended", BigInteger, nullable=False, comment="0: not yet"),
    Index("idx_ecm_execution_ticket", "ticket_id", "accepted"),
    Index("idx_ecm_execution_open", "final", "accepted"),
    **_CHARSET,
)
