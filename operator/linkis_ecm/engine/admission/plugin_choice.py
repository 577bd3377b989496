"""Which entry of the catalogue an engine is made of: one rule for the operator and the gateway.

Pure: a catalogue and what the engine asks for in, an entry or None out. Must not know how either cache keeps entries.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar


class Entry(Protocol):
    """What the rule reads of an EngineConnPlugin."""

    @property
    def name(self) -> str: ...

    @property
    def engine_type(self) -> str: ...

    @property
    def engine_version(self) -> str: ...

    @property
    def default(self) -> bool: ...


E = TypeVar("E", bound=Entry)


def choose_plugin(
    catalogue: Iterable[E], *, plugin: str | None = None, engine_type: str | None = None, version: str | None = None
) -> E | None:
    """The entry for what is asked, or None where there is none or several fit.

    A `plugin` is taken by its name alone. Else the type decides, with the version where one is asked; without a version
    the type's default entry, or its only one. Of several entries that fit, the first by name.
    """
    if plugin:
        return next((entry for entry in catalogue if entry.name == plugin), None)
    offers = sorted((entry for entry in catalogue if entry.engine_type == engine_type), key=lambda entry: entry.name)
    if version:
        return next((entry for entry in offers if entry.engine_version == version), None)
    return next((entry for entry in offers if entry.default), offers[0] if len(offers) == 1 else None)
