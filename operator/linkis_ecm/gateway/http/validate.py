"""Makes a request model of a caller's input, or a refusal that names the field and the remedy. Pure.

Unknown names and the lengths of lists and objects are checked first: pydantic makes an error, a dict of 400 bytes, for
each entry that is wrong, so what it sees must be short.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, TypeVar, get_args

import orjson
from annotated_types import MaxLen
from pydantic import BaseModel, RootModel, ValidationError
from pydantic.fields import FieldInfo

from linkis_ecm.api import models
from linkis_ecm.gateway.http.errors import Refused, bad_request, shown
from linkis_ecm.model import amounts, engineconn, formats, users

Model = TypeVar("Model", bound=BaseModel)

_NAMES = "letters, digits, '_' and '.', and begin with one of the first three"
# What to write instead, of each pattern of a request.
REMEDIES = {
    amounts.QUANTITY_PATTERN: "write cpu like 500m or 2, memory like 512Mi or 2Gi",
    amounts.AMOUNT_PATTERN: "write cpu like 500m or 2, memory like 512Mi or 2Gi",
    amounts.DURATION_PATTERN: "write it like 90s, 30m or 1h30m",
    engineconn.UUID_PATTERN: "give a UUID in lower case",
    # Of creators, tenants and versions.
    formats.VERSION_PATTERN: f"use {_NAMES}: {formats.LABEL_RULE}",
    users.LOGIN_PATTERN: "use printable characters, without '/', a first '.' and blanks at the ends",
    formats.ENGINE_TYPE_PATTERN: "use lower-case letters, digits and '_', and begin with a letter",
    formats.WRITTEN_RUN_TYPE_PATTERN: "name a language of the engine, such as python",
    formats.OBJECT_NAME_PATTERN: "use lower-case letters, digits, '-' and '.', and begin and end with one of the first"
    " two",
    formats.ENV_NAME_PATTERN: "use letters, digits and '_', and do not begin with a digit",
    formats.TASK_ID_PATTERN: "use up to 64 letters, digits and '-', and begin with one of the first two",
    formats.EVENT_ID_PATTERN: "give the id of an event as taskEvents has sent it",
    models.LABEL_NAME_PATTERN: "use up to 63 letters, digits, '-', '_' and '.', without a prefix",
    models.LABEL_VALUE_PATTERN: "use up to 63 letters, digits, '-', '_' and '.'",
}
# Characters of a caller's value that a refusal repeats.
_SHOWN = 80


def from_json(model: type[Model], body: bytes) -> Model:
    """The request in a JSON body. Raises Refused."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise bad_request("The body is not JSON: send a JSON object in UTF-8") from None
    if issubclass(model, RootModel):
        return validated(model, content)
    if not isinstance(content, dict):
        fields = _fields(model)
        raise bad_request(f"The body is not a JSON object: send {f'one with {fields}' if fields else 'an empty one'}")
    return validated(model, content)


def from_query(model: type[Model], query: Mapping[str, str], *, repeated: str | None) -> Model:
    """The request in a query string; `repeated` names a parameter that is given twice. Raises Refused."""
    if repeated is not None:
        raise bad_request(f"Parameter {_shown(repeated)} is given more than once: give it once")
    return validated(model, query)


def validated(model: type[Model], content: Mapping[str, Any]) -> Model:
    """The request in `content`. Raises Refused with the first error that was found."""
    _check_shape(model, content, ())
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise sentence(model, error) from None


def _check_shape(model: type[BaseModel], content: Any, within: tuple[str, ...]) -> None:
    """Raises Refused for unknown names, and for lists and objects of more entries than their fields take."""
    if issubclass(model, RootModel):
        _check_length(model.model_fields["root"], content, within or ("body",))
        return
    if not isinstance(content, Mapping):
        return
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    if model.model_config.get("extra") == "forbid":
        known = {*fields, *model.model_fields}
        unknown = list(islice((name for name in content if name not in known), 5))
        if unknown:
            names = ", ".join(_shown(".".join((*within, name))) for name in unknown)
            raise bad_request(
                f"Unknown parameter {names}: this {'field' if within else 'method'} takes"
                f" {_fields(model) or 'no parameters'}"
            )
    for name, field in fields.items():
        if (value := content.get(name)) is not None:
            _check_length(field, value, (*within, name))
            for part in (field.annotation, *get_args(field.annotation)):
                if isinstance(part, type) and issubclass(part, BaseModel):
                    _check_shape(part, value, (*within, name))


def _check_length(field: FieldInfo, value: Any, where: tuple[str, ...]) -> None:
    if isinstance(value, list | dict):
        for rule in field.metadata:
            if isinstance(rule, MaxLen) and len(value) > rule.max_length:
                raise bad_request(
                    f"Parameter {'.'.join(where)} has {len(value)} entries: give {rule.max_length} entries at most"
                )


def sentence(model: type[BaseModel], error: ValidationError) -> Refused:
    """A pydantic error as one sentence."""
    fault = error.errors(include_url=False)[0]
    field = _where(fault["loc"])
    if fault["type"] == "missing":
        return bad_request(f"Parameter {field} is missing: this method takes {_fields(model)}")
    value = fault.get("input")
    if value == "" or value is None:
        return bad_request(f"Parameter {field} cannot be empty: {_remedy(fault)}")
    if fault["type"] == "value_error" and not isinstance(value, str | int | float):
        # A rule over several fields: its words name them.
        return bad_request(f"Parameter {field}: {_remedy(fault)}")
    return bad_request(f"Parameter {field} is {_shown(value)}: {_remedy(fault)}")


# Of a value of the wrong kind.
_KINDS_WANTED = {
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float", "int_parsing_size"), "give a whole number"),
    **dict.fromkeys(("float_parsing", "float_type", "finite_number"), "give a number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "give true or false"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "give a JSON object"),
    "list_type": "give a JSON list",
    "string_type": "give text",
}


def _remedy(fault: Mapping[str, Any]) -> str:
    context = fault.get("ctx") or {}
    pattern = context.get("pattern")
    if pattern in REMEDIES:
        return REMEDIES[pattern]
    match fault["type"]:
        case "string_too_long":
            return f"use {_counted(context['max_length'], 'character')} at most"
        case "string_too_short":
            return f"use {_counted(context['min_length'], 'character')} at least"
        case "greater_than_equal":
            return f"give {context['ge']} or more"
        case "less_than_equal":
            return f"give {context['le']} or less"
        case "literal_error" | "enum":
            return f"give {context['expected']}"
        case "string_pattern_mismatch":
            return f"it must match {pattern}"
        case "too_long":
            return f"give {context['max_length']} entries at most" if context["max_length"] != 1 else "give one entry"
    return _KINDS_WANTED.get(fault["type"]) or str(fault["msg"]).removeprefix("Value error, ")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


# Names of a value's kinds in a place of pydantic's, where several are taken: no field of ours is called so.
_KINDS = frozenset({"constrained-str", "constrained-int", "str", "int", "float", "bool", "none"})


def _where(location: tuple[int | str, ...]) -> str:
    # pydantic marks a key of a mapping with "[key]" behind it, and a value of several kinds with its kind.
    kind = len(location) > 2 and location[-1] in _KINDS
    parts = (str(part)[: _SHOWN + 1] for part in (location[:-1] if kind else location) if part != "[key]")
    return shown(".".join(parts), 2 * _SHOWN) or "body"


def _fields(model: type[BaseModel]) -> str:
    return ", ".join(field.alias or name for name, field in model.model_fields.items())


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else str(value) if isinstance(value, int | float) else ""
    text = text or f"a {type(value).__name__}"
    text = shown(text[: _SHOWN + 1].encode("utf-8", "replace").decode(), _SHOWN + 1)
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…") if isinstance(value, str) else text[:_SHOWN]
