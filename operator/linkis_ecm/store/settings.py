"""The settings of commands that need the database alone (`migrate`, `record`), from the environment."""

from __future__ import annotations

from typing import Annotated

from pydantic import SecretStr

from linkis_ecm.process.environment import ProcessSettings, variable


class DatabaseSettings(ProcessSettings):
    """Where the database is."""

    database_url: Annotated[
        SecretStr,
        variable(
            "ECM_DATABASE_URL",
            "The database, as a SQLAlchemy URL.",
            unset="is not set: write a SQLAlchemy URL into it",
        ),
    ]
