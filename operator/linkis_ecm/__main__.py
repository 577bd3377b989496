"""`python -m linkis_ecm operator|gateway|migrate|record`: each part of the system in its own process.

Imports a part only when it is asked for. A wrong setting or a database that cannot be reached is one sentence on
standard error and exit code 2.
"""

# ruff: noqa: PLC0415 - each command imports what it runs, and nothing of the others
from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
import sys
from datetime import datetime
from typing import Annotated, Any

try:
    import typer
except ModuleNotFoundError as error:  # the client alone is installed
    raise SystemExit(f"linkis-ecm: {error.name} is missing: pip install 'linkis-ecm[server]'") from None

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


def _logging(level: str) -> None:
    logging.basicConfig(level=level, format="%(asctime)s [%(levelname)-5s] %(name)s - %(message)s", stream=sys.stderr)
    # kopf logs each event of each object at INFO.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)


def _fail(error: Exception) -> None:
    typer.echo(f"linkis-ecm: {error}", err=True)
    raise typer.Exit(2) from error


@app.command()
def operator() -> None:
    """Watches EngineConns and makes what they ask for."""
    from linkis_ecm.archive.bundles import ArchiveError
    from linkis_ecm.controller import operator as process
    from linkis_ecm.controller.settings import SettingsError, from_environment
    from linkis_ecm.kube.errors import KubeconfigError
    from linkis_ecm.store.database import DatabaseError

    try:
        settings = from_environment(os.environ)
        _logging(settings.log_level)
        asyncio.run(process.run(settings))
    except (SettingsError, DatabaseError, ArchiveError, KubeconfigError) as error:
        _fail(error)


@app.command()
def gateway() -> None:
    """Serves Linkis's REST."""
    from linkis_ecm.archive.bundles import ArchiveError
    from linkis_ecm.gateway import main as process
    from linkis_ecm.gateway.settings import SettingsError, read_settings
    from linkis_ecm.kube.errors import KubeconfigError
    from linkis_ecm.store.database import DatabaseError

    try:
        settings = read_settings(os.environ)
        _logging(settings.log_level)
        asyncio.run(process.run(settings))
    except (SettingsError, DatabaseError, ArchiveError, KubeconfigError) as error:
        _fail(error)


@app.command()
def migrate() -> None:
    """Brings the database's tables to this version."""
    from linkis_ecm.process.environment import SettingsError
    from linkis_ecm.store.database import DatabaseError
    from linkis_ecm.store.migrate import upgrade
    from linkis_ecm.store.settings import DatabaseSettings

    try:
        settings = DatabaseSettings.read(os.environ)
        _logging(settings.log_level)
        upgrade(settings.database_url.get_secret_value())
    except (SettingsError, DatabaseError) as error:
        _fail(error)


@app.command()
def record(ticket: Annotated[str, typer.Argument(help="The engine's ticket id.")]) -> None:
    """Prints an engine's row and its transitions as JSON."""
    from linkis_ecm.process.environment import SettingsError
    from linkis_ecm.store.database import DatabaseError, open_engine
    from linkis_ecm.store.queries import Queries
    from linkis_ecm.store.settings import DatabaseSettings

    try:
        queries = Queries(open_engine(DatabaseSettings.read(os.environ).database_url.get_secret_value()))
        row, engine = queries.record_by_ticket(ticket), queries.engine(ticket)
        steps = queries.transitions(ticket)
    except (SettingsError, DatabaseError) as error:
        _fail(error)
    if row is None:
        _fail(LookupError(f"no record has the ticket {ticket}: `kubectl get ec -o wide` shows each engine's"))
        return
    body = {
        "record": dataclasses.asdict(row),
        "final": engine.final if engine is not None else None,
        "reason": engine.reason if engine is not None else None,
        "transitions": [dataclasses.asdict(step) for step in steps],
    }
    typer.echo(json.dumps(body, default=_plain, ensure_ascii=False, indent=1))


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


if __name__ == "__main__":
    # Operator and gateway are two users of one group: both write the SQLite file, and the gateway reads the archive.
    # Nobody else may.
    os.umask(0o007)
    app()
