"""The command `linkis-ecm operator|gateway|migrate|user|record`: each part of the system in its own process.

Imports a part only when it is asked for. A wrong setting, a database that cannot be reached, a missing cluster or
package is one sentence on standard error and exit code 2.
"""

# ruff: noqa: PLC0415 - each command imports what it runs, and nothing of the others
from __future__ import annotations

import asyncio
import dataclasses
import errno
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any, NoReturn

from linkis_ecm import __version__

HELP = """The Engine Connection Manager of Apache Linkis: engines as pods of a Kubernetes cluster.

operator and gateway are what the chart runs; each reads its settings from ECM_ variables (docs/settings.md).
migrate and record need the database alone, user needs nothing. From Python, use linkis_ecm.client.
"""
_MISSING = "pip install 'linkis-ecm[server]'"

try:
    import typer
except ModuleNotFoundError as error:  # the client alone is installed
    if sys.argv[1:] in (["--help"], ["-h"]):
        print(f"{HELP}\nThe commands need packages that are not here: {_MISSING}")  # noqa: T201 - there is no typer
        raise SystemExit(0) from None
    raise SystemExit(f"linkis-ecm: {error.name} is missing: {_MISSING}") from None

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=HELP)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"linkis-ecm {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    show: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="The version, and nothing else.")
    ] = False,
) -> None:
    """Options before the command."""


def _logging(level: str) -> None:
    logging.basicConfig(level=level, format="%(asctime)s [%(levelname)-5s] %(name)s - %(message)s", stream=sys.stderr)
    # kopf logs each event of each object at INFO.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)


# What the system says of an address that cannot be listened on.
_NO_PORT = (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL)


def _fail(sentence: object) -> NoReturn:
    typer.echo(f"linkis-ecm: {sentence}", err=True)
    raise typer.Exit(2)


@contextmanager
def _errors_as_sentences() -> Iterator[None]:
    """Ends the process with one sentence and exit code 2 for what a user can mend. Other errors are bugs: the traceback
    stays."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("linkis_ecm"):
            raise
        _fail(f"{error.name} is missing: {_MISSING}")
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _NO_PORT:
            _fail(f"a port cannot be listened on ({error.strerror}): see the ECM_ variables of ports and hosts")
        from linkis_ecm.archive.bundles import ArchiveError
        from linkis_ecm.kube.errors import KubeconfigError, Unreachable
        from linkis_ecm.process.environment import SettingsError
        from linkis_ecm.store.database import DatabaseError

        if isinstance(error, SettingsError | DatabaseError | ArchiveError | KubeconfigError | Unreachable):
            _fail(error)
        raise


def _warn_of_misspelled() -> None:
    """Log each ECM_ variable that none of the processes reads."""
    from linkis_ecm.controller.settings import OperatorSettings
    from linkis_ecm.gateway.settings import OidcSettings, Settings
    from linkis_ecm.process.environment import described
    from linkis_ecm.process.forms import misspelled

    known = {
        variable.name for settings in (OperatorSettings, Settings, OidcSettings) for variable in described(settings)
    }
    for sentence in misspelled(os.environ, known):
        logging.getLogger("linkis_ecm").warning("%s", sentence)


@app.command()
def operator() -> None:
    """Watches EngineConns and makes what they ask for."""
    with _errors_as_sentences():
        from linkis_ecm.controller import operator as process
        from linkis_ecm.controller.settings import from_environment

        settings = from_environment(os.environ)
        _logging(settings.log_level)
        _warn_of_misspelled()
        asyncio.run(process.run(settings))


@app.command()
def gateway() -> None:
    """Serves Linkis's REST."""
    with _errors_as_sentences():
        from linkis_ecm.gateway import main as process
        from linkis_ecm.gateway.settings import read_settings

        settings = read_settings(os.environ)
        _logging(settings.log_level)
        _warn_of_misspelled()
        asyncio.run(process.run(settings))


@app.command()
def migrate() -> None:
    """Brings the database's tables to this version."""
    with _errors_as_sentences():
        from linkis_ecm.store.migrate import upgrade
        from linkis_ecm.store.settings import DatabaseSettings

        settings = DatabaseSettings.read(os.environ)
        _logging(settings.log_level)
        upgrade(settings.database_url.get_secret_value())


@app.command()
def user(name: Annotated[str, typer.Argument(help="A name as the identity provider has it.")]) -> None:
    """Prints the user that a name is in Linkis: in rows, labels, log folders and resourceNames of roles."""
    with _errors_as_sentences():
        from linkis_ecm.model.users import is_login, linkis_user

        if not is_login(name):
            _fail("nobody can have that name: it is empty, too long, or has characters that cannot be printed")
        typer.echo(linkis_user(name))


@app.command()
def record(ticket: Annotated[str, typer.Argument(help="The engine's ticket id.")]) -> None:
    """Prints an engine's row and its transitions as JSON."""
    with _errors_as_sentences():
        from linkis_ecm.store.database import open_engine
        from linkis_ecm.store.queries import Queries
        from linkis_ecm.store.settings import DatabaseSettings

        queries = Queries(open_engine(DatabaseSettings.read(os.environ).database_url.get_secret_value()))
        row, engine = queries.record_by_ticket(ticket), queries.engine(ticket)
        steps = queries.transitions(ticket)
    if row is None:
        _fail(f"no record has the ticket {ticket}: `kubectl get ec -o wide` shows each engine's")
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
