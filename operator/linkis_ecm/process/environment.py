"""Settings from environment variables: the base class of each process's settings, by pydantic-settings.

A field names its variable, says what it means and how its text is read; docs/settings.md is made from that. A variable
that is empty counts as not set. The variables are passed in as a mapping, so nothing here reads the process's own
environment. Must not know what a setting is for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, GetCoreSchemaHandler, SecretBytes, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, ErrorDetails, core_schema
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from linkis_ecm.model.agent_key import master_key

KIB = 1 << 10
MIB = 1 << 20
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class SettingsError(ValueError):
    """A variable is missing or cannot be used; the text is one sentence with its name and what to write."""


@dataclass(frozen=True, slots=True)
class Form:
    """How a variable's text is read: `parse` raises ValueError with the sentence's end, such as "is 'x': write ...".

    `words` is for docs/settings.md. A value that is no text is not parsed: code gives fields their own types.
    """

    words: str
    parse: Callable[[str], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(
            lambda value: self.parse(value) if isinstance(value, str) else value, handler(source)
        )


def variable(name: str, meaning: str, *, unset: str = "", default: str = "") -> Any:
    """Names a field's variable. `unset` ends the sentence for a variable that must be set and is not; `default` is for
    docs/settings.md, where the field's own default is computed or says little."""
    extra: dict[str, Any] = {"unset": unset or f"is not set: write {meaning} into it", "default": default}
    return Field(validation_alias=name, description=meaning, json_schema_extra=extra)


def shown_value(text: str) -> str:
    """A value as a refusal may repeat it, in quotes: its beginning; of a URL scheme and host, for the rest may hold a
    password. A text with "@" is shown as a URL without a scheme, for it may be one with user and password."""
    if "://" not in text and "@" not in text:
        return repr(text[:100])
    scheme, found, rest = text.partition("://")
    if not found:
        return "a text with a user in it"
    authority, *path = re.split(r"[/?#]", rest, maxsplit=1)
    host = authority.rpartition("@")[2]
    # An "@" later on: the password has a "/" in it, and what looks like the host is the user.
    if any("@" in part for part in path) or not re.fullmatch(r"[A-Za-z0-9._-]{0,100}(:[0-9]{1,5})?", host):
        return "a URL"
    return repr(f"{scheme}://{host}") if re.fullmatch(r"[A-Za-z0-9+.-]{1,30}", scheme) else "a URL"


def whole(low: int, top: int, *, scale: int = 1) -> Form:
    """A whole number, multiplied by `scale` (a unit such as MIB)."""

    def parse(text: str) -> int:
        # The length first: int() refuses more than 4300 digits in other words.
        if not text.isascii() or not text.isdigit() or len(text) > 20 or not low <= int(text) <= top:
            raise ValueError(f"is {shown_value(text)}: write a whole number from {low} to {top}")
        return int(text) * scale

    return Form(f"whole number, {low} to {top}", parse)


def choice(*words: str) -> Form:
    """One of some words, in any case."""

    def parse(text: str) -> str:
        if text.upper() not in words:
            raise ValueError(f"is {shown_value(text)}: write {', '.join(words[:-1])} or {words[-1]}")
        return text.upper()

    return Form(f"{', '.join(words[:-1])} or {words[-1]}, in any case", parse)


# What may stand between two commas where nothing more is known: other separators and quotes are mistakes.
_NAME = r"[^\s\"';]+"


def names(pattern: str = _NAME, what: str = "name") -> Form:
    """Names with commas between them; each matches `pattern` whole, or is no `what`."""

    def parse(text: str) -> tuple[str, ...]:
        found = tuple(name for part in text.split(",") if (name := part.strip()))
        for name in found:
            if not re.fullmatch(pattern, name):
                raise ValueError(f"holds {shown_value(name)}, which is no {what}: write names with commas between them")
        if not found:
            # As a list of none it would mean all, or nobody.
            raise ValueError("holds no name: write names with commas between them, or leave it out")
        return found

    return Form("names with commas between them", parse)


def _switch(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError(f"is {shown_value(text)}: write true or false")
    return text.lower() in ("true", "1")


def _key_file(path: str) -> bytes:
    try:
        return master_key(Path(path).read_bytes())
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): mount the Secret") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


SWITCH = Form("true or false (or 1 or 0), in any case", _switch)
KEY_FILE = Form("path of a file", _key_file)
PORT = whole(1, 65535)


class _Variables(PydanticBaseSettingsSource):
    """The variables of a mapping that the fields of a class name."""

    def __init__(self, settings: type[BaseSettings], variables: Mapping[str, str]) -> None:
        super().__init__(settings)
        self._variables = variables

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        alias = field.validation_alias
        if not isinstance(alias, str):
            return None, field_name, False
        return self._variables.get(alias, "").strip() or None, alias, False

    def __call__(self) -> dict[str, Any]:
        found = [self.get_field_value(field, name) for name, field in self.settings_cls.model_fields.items()]
        return {name: value for value, name, _ in found if value is not None}


class ProcessSettings(BaseSettings):
    """Read by `read` from variables, or made by code from its fields' names."""

    model_config = SettingsConfigDict(frozen=True, populate_by_name=True, extra="forbid")

    log_level: Annotated[str, choice(*LOG_LEVELS), variable("ECM_LOG_LEVEL", "The lowest level that is logged.")] = (
        "INFO"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is passed in, and never the environment of whatever process this runs in."""
        return (init_settings,)

    @classmethod
    def read(cls, variables: Mapping[str, str], **more: Any) -> Self:
        """The settings in these variables. Raises SettingsError for the first field that cannot be used."""
        try:
            return cls(**_Variables(cls, variables)(), **more)
        except ValidationError as error:
            raise SettingsError(_sentence(cls, error.errors()[0])) from error.__cause__


def _sentence(settings: type[BaseSettings], error: ErrorDetails) -> str:
    name = str(error["loc"][0])
    if error["type"] == "missing":
        fields = settings.model_fields.items()
        field = next(field for own, field in fields if name in (own, field.validation_alias))
        return f"{name} {_extra(field, 'unset')}"
    return f"{name} {error.get('ctx', {}).get('error', error['msg'])}"


def _extra(field: FieldInfo, key: str) -> str:
    extra = field.json_schema_extra
    return str(extra.get(key, "")) if isinstance(extra, dict) else ""


@dataclass(frozen=True, slots=True)
class Described:
    """One variable as docs/settings.md shows it; a `default` that is a value stands between backticks."""

    name: str
    form: str
    default: str
    meaning: str


def described(settings: type[BaseSettings]) -> list[Described]:
    """The variables of a settings class, in the order of its fields."""
    found = []
    for field in settings.model_fields.values():
        if not isinstance(field.validation_alias, str):
            continue
        form = next((part.words for part in field.metadata if isinstance(part, Form)), "text")
        default = _extra(field, "default") or ("must be set" if field.is_required() else f"`{field.default}`")
        found.append(Described(field.validation_alias, form, default, field.description or ""))
    return found


class KeySettings(ProcessSettings):
    """Settings of a process that computes agents' keys."""

    token_key: Annotated[SecretBytes, KEY_FILE]
    previous_token_key: Annotated[
        SecretBytes | None,
        KEY_FILE,
        variable(
            "ECM_PREVIOUS_TOKEN_KEY_FILE",
            "During a rotation, the file with the master key before: engines that started with it keep their keys.",
            default="none",
        ),
    ] = None

    @property
    def master_keys(self) -> tuple[bytes, ...]:
        """The current one first."""
        keys = (self.token_key, self.previous_token_key)
        return tuple(key.get_secret_value() for key in keys if key is not None)
