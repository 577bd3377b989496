"""The tables are Linkis's to the letter, and migrations make them on an empty and on a used database."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymysql
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from linkis_ecm.store import linkis, schema
from linkis_ecm.store.database import DatabaseError, check, open_engine
from linkis_ecm.store.migrate import upgrade
from tests.store.records import PATIENCE
from tools.testkit.servers.mariadb import PASSWORD, MariaDB

# Linkis's own DDL, word for word.
DDL = [
    """CREATE TABLE `linkis_cg_engine_conn_plugin_bml_resources` (
  `id` bigint(20) NOT NULL AUTO_INCREMENT COMMENT 'Primary key',
  `engine_conn_type` varchar(100) NOT NULL COMMENT 'Engine type',
  `version` varchar(100) COMMENT 'version',
  `file_name` varchar(255) COMMENT 'file name',
  `file_size` bigint(20)  DEFAULT 0 NOT NULL COMMENT 'file size',
  `last_modified` bigint(20)  COMMENT 'File update time',
  `bml_resource_id` varchar(100) NOT NULL COMMENT 'Owning system',
  `bml_resource_version` varchar(200) NOT NULL COMMENT 'Resource owner',
  `create_time` datetime NOT NULL DEFAULT CURRENT_TIMESTAMP COMMENT 'created time',
  `last_update_time` datetime NOT NULL DEFAULT CURRENT_TIMESTAMP COMMENT 'updated time',
  PRIMARY KEY (`id`)
)""",
    """CREATE TABLE `linkis_cg_manager_engine_em` (
  `id` int(20) NOT NULL AUTO_INCREMENT,
  `engine_instance` varchar(128) COLLATE utf8_bin DEFAULT NULL,
  `em_instance` varchar(128) COLLATE utf8_bin DEFAULT NULL,
  `update_time` datetime DEFAULT CURRENT_TIMESTAMP,
  `create_time` datetime DEFAULT CURRENT_TIMESTAMP,
  PRIMARY KEY (`id`)
)""",
    """CREATE TABLE `linkis_cg_ec_resource_info_record` (
    `id` INT(20) NOT NULL AUTO_INCREMENT,
    `label_value` VARCHAR(255) NOT NULL COMMENT 'ec labels stringValue',
    `create_user` VARCHAR(128) NOT NULL COMMENT 'ec create user',
    `service_instance` varchar(128) COLLATE utf8_bin DEFAULT NULL COMMENT 'ec instance info',
    `ecm_instance` varchar(128) COLLATE utf8_bin DEFAULT NULL COMMENT 'ecm instance info ',
    `ticket_id` VARCHAR(100) NOT NULL COMMENT 'ec ticket id',
    `status` varchar(50) DEFAULT NULL COMMENT 'EC status: Starting,Unlock,Locked,Idle,Busy,Running,ShuttingDown,Failed,Success',
    `log_dir_suffix` varchar(128) COLLATE utf8_bin DEFAULT NULL COMMENT 'log path',
    `request_times` INT(8) COMMENT 'resource request times',
    `request_resource` VARCHAR(1020) COMMENT 'request resource',
    `used_times` INT(8) COMMENT 'resource used times',
    `used_resource` VARCHAR(1020) COMMENT 'used resource',
    `metrics` TEXT DEFAULT NULL COMMENT 'ec metrics',
    `release_times` INT(8) COMMENT 'resource released times',
    `released_resource` VARCHAR(1020)  COMMENT 'released resource',
    `release_time` datetime DEFAULT NULL COMMENT 'released time',
    `used_time` datetime DEFAULT NULL COMMENT 'used time',
    `create_time` datetime DEFAULT CURRENT_TIMESTAMP COMMENT 'create time',
    PRIMARY KEY (`id`),
    KEY `idx_ticket_id` (`ticket_id`),
    UNIQUE KEY `uniq_tid_lv` (`ticket_id`,`label_value`),
    UNIQUE KEY `uniq_sinstance_status_cuser_ctime` (`service_instance`, `status`, `create_user`, `create_time`)
)""",  # noqa: E501
]
COLUMNS = """SELECT table_name, column_name, ordinal_position, column_default, is_nullable, column_type,
 character_set_name, collation_name, column_key, extra, column_comment FROM information_schema.columns
 WHERE table_schema = %s AND table_name LIKE 'linkis\\_cg%%' ORDER BY table_name, ordinal_position"""
KEYS = """SELECT table_name, index_name, non_unique, seq_in_index, column_name FROM information_schema.statistics
 WHERE table_schema = %s AND table_name LIKE 'linkis\\_cg%%' ORDER BY table_name, index_name, seq_in_index"""


def rows(url: str, query: str, *statements: str) -> list[Any]:
    parsed = open_engine(url).url
    with contextlib.closing(
        pymysql.connect(
            host=parsed.host, port=parsed.port or 3306, user=parsed.username, password=PASSWORD,
            database=parsed.database, autocommit=True,
        )
    ) as connection, connection.cursor() as cursor:  # fmt: skip
        for statement in statements:
            cursor.execute(statement)
        cursor.execute(query, (parsed.database,))
        return list(cursor.fetchall())


@pytest.mark.mariadb
def test_on_mariadb_columns_and_keys_are_those_of_linkis_ddl(mariadb: MariaDB) -> None:
    ours, theirs = mariadb.new_database(), mariadb.new_database()
    upgrade(ours)
    wanted = rows(theirs, COLUMNS, *DDL)
    assert len(wanted) == 33
    assert rows(ours, COLUMNS) == wanted
    assert rows(ours, KEYS) == rows(theirs, KEYS)


@pytest.mark.mariadb
def test_the_tables_of_a_real_linkis_are_left_as_they_are(mariadb: MariaDB) -> None:
    url = mariadb.new_database()
    before = rows(url, COLUMNS, *DDL)
    upgrade(url)
    assert rows(url, COLUMNS) == before
    check(open_engine(url))


def test_migrations_make_what_the_schema_says(new_url: Callable[[], str]) -> None:
    url = new_url()
    upgrade(url)
    with open_engine(url).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        # Neither side may have a table or column that the other lacks.
        found = compare_metadata(context, schema.metadata)
        foreign = {*linkis.metadata.tables, "linkis_ecm_alembic_version"}
        kept = [step for step in found if not (step[0] == "remove_table" and step[1].name in foreign)]
        kept = [step for step in kept if not (step[0] == "remove_index" and step[1].table.name in foreign)]
    assert kept == []


def test_migrating_twice_and_twice_at_once_is_harmless(new_url: Callable[[], str]) -> None:
    url = new_url()
    errors: list[Exception] = []
    # Eight first connections at one moment: of fewer, SQLite's switch to WAL seldom fails where it is not guarded.
    together = threading.Barrier(8)

    def migrate() -> None:
        together.wait(PATIENCE)
        try:
            upgrade(url)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=migrate) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    upgrade(url)
    assert set(linkis.metadata.tables) < set(inspect(open_engine(url)).get_table_names())


@pytest.mark.parametrize(
    ("url", "names"),
    [
        ("", "no database URL"),
        ("a database", "no database URL"),
        ("postgresql://u:s3cret-word@h/x", "begins with postgresql"),
        ("mysql://u:s3cret-word@h/x", "begins with mysql"),
        ("mysql+pymysql://u:s3cret-word@127.0.0.1:1/x", "cannot be reached"),
        ("sqlite:////no/such/folder/x", "cannot be reached"),
    ],
)
def test_a_database_that_cannot_be_used_is_reported_in_a_sentence_without_the_password(url: str, names: str) -> None:
    with pytest.raises(DatabaseError) as refusal:
        upgrade(url)
    sentence = str(refusal.value)
    assert names in sentence
    assert "ECM_DATABASE_URL" in sentence
    assert "\n" not in sentence
    assert "s3cret-word" not in sentence


@pytest.mark.mariadb
def test_a_wrong_password_is_reported_without_it(mariadb: MariaDB) -> None:
    url = mariadb.new_database().replace(PASSWORD, "wrong-word")
    with pytest.raises(DatabaseError, match="Access denied") as refusal:
        upgrade(url)
    assert "wrong-word" not in str(refusal.value)


@pytest.mark.parametrize(("umask", "mode"), [(0o007, 0o660), (0o022, 0o644)])
def test_the_umask_decides_who_may_write_the_sqlite_files(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        engine = open_engine(f"sqlite:///{tmp_path}/ecm.sqlite3")
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE t (n INTEGER)"))
            found = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    finally:
        os.umask(before)
        engine.dispose()
    assert found == dict.fromkeys(("ecm.sqlite3", "ecm.sqlite3-wal", "ecm.sqlite3-shm", "ecm.sqlite3.lock"), mode)
