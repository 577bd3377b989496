"""alembic's entry: migrates over the connection that `store.migrate` hands in."""

from __future__ import annotations

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, version_table="linkis_ecm_alembic_version")
with context.begin_transaction():
    context.run_migrations()
if connection.in_transaction():
    connection.commit()
