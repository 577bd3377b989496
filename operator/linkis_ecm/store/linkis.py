"""Linkis's three tables, column for column, key for key, comment for comment as its DDL has them.

They are Linkis's: this module changes only when Linkis's DDL does, so a migration may import it. On SQLite the same
columns with its own types. A test compares them on MariaDB with tables made by the literal DDL.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects import mysql

metadata = MetaData()


def _int(width: int) -> Any:
    shown = mysql.INTEGER(display_width=width)
    return Integer().with_variant(shown, "mysql").with_variant(shown, "mariadb")


def _bigint() -> Any:
    shown = mysql.BIGINT(display_width=20)
    # SQLite counts up only in columns of exactly its INTEGER type.
    return BigInteger().with_variant(Integer(), "sqlite").with_variant(shown, "mysql").with_variant(shown, "mariadb")


def _binary(length: int) -> Any:
    """A varchar that compares byte by byte, as the DDL's utf8_bin does (SQLite's texts always do)."""
    shown = mysql.VARCHAR(length, collation="utf8_bin")
    return String(length).with_variant(shown, "mysql").with_variant(shown, "mariadb")


_NOW = text("CURRENT_TIMESTAMP")

record = Table(
    "linkis_cg_ec_resource_info_record",
    metadata,
    Column("id", _int(20), primary_key=True, autoincrement=True),
    Column("label_value", String(255), nullable=False, comment="ec labels stringValue"),
    Column("create_user", String(128), nullable=False, comment="ec create user"),
    Column("service_instance", _binary(128), comment="ec instance info"),
    Column("ecm_instance", _binary(128), comment="ecm instance info "),
    Column("ticket_id", String(100), nullable=False, comment="ec ticket id"),
    Column(
        "status",
        String(50),
        comment="EC status: Starting,Unlock,Locked,Idle,Busy,Running,ShuttingDown,Failed,Success",
    ),
    Column("log_dir_suffix", _binary(128), comment="log path"),
    Column("request_times", _int(8), comment="resource request times"),
    Column("request_resource", String(1020), comment="request resource"),
    Column("used_times", _int(8), comment="resource used times"),
    Column("used_resource", String(1020), comment="used resource"),
    Column("metrics", Text, comment="ec metrics"),
    Column("release_times", _int(8), comment="resource released times"),
    Column("released_resource", String(1020), comment="released resource"),
    Column("release_time", DateTime, comment="released time"),
    Column("used_time", DateTime, comment="used time"),
    Column("create_time", DateTime, server_default=_NOW, comment="create time"),
    Index("idx_ticket_id", "ticket_id"),
    UniqueConstraint("ticket_id", "label_value", name="uniq_tid_lv"),
    UniqueConstraint(
        "service_instance", "status", "create_user", "create_time", name="uniq_sinstance_status_cuser_ctime"
    ),
)

engine_em = Table(
    "linkis_cg_manager_engine_em",
    metadata,
    Column("id", _int(20), primary_key=True, autoincrement=True),
    Column("engine_instance", _binary(128)),
    Column("em_instance", _binary(128)),
    Column("update_time", DateTime, server_default=_NOW),
    Column("create_time", DateTime, server_default=_NOW),
)

materials = Table(
    "linkis_cg_engine_conn_plugin_bml_resources",
    metadata,
    Column("id", _bigint(), primary_key=True, autoincrement=True, comment="Primary key"),
    Column("engine_conn_type", String(100), nullable=False, comment="Engine type"),
    Column("version", String(100), comment="version"),
    Column("file_name", String(255), comment="file name"),
    Column("file_size", _bigint(), nullable=False, server_default=text("0"), comment="file size"),
    Column("last_modified", _bigint(), comment="File update time"),
    Column("bml_resource_id", String(100), nullable=False, comment="Owning system"),
    Column("bml_resource_version", String(200), nullable=False, comment="Resource owner"),
    Column("create_time", DateTime, nullable=False, server_default=_NOW, comment="created time"),
    Column("last_update_time", DateTime, nullable=False, server_default=_NOW, comment="updated time"),
)
