"""The OpenAPI 3.1 document of the gateway, made from its table of methods and their models. Pure.

`python -m linkis_ecm.gateway.openapi docs/openapi.json` writes it; a test compares. Served at /openapi.json, and
shown by the page at /docs.
"""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from linkis_ecm.api import result_headers
from linkis_ecm.gateway.routes import METHODS, Method

REF = "#/components/schemas/{model}"
_PARAMETER = re.compile(r"\{(\w+):[^}]*\}")
# Methods that answer with a Message or, by a parameter, with one of these content types.
_OTHER_CONTENT_TYPES = {"getResultSet": ("application/vnd.apache.arrow.stream", "application/octet-stream")}
# What these answers say of their table in headers.
_RESULT_HEADERS = {
    result_headers.TRUNCATED: ("boolean", "arrow, dolphin: rows, columns or parts of cells of the table are not kept."),
    result_headers.RESULT_ROWS: ("integer", "arrow, dolphin: so many of the table's rows are kept."),
    result_headers.TOTAL_ROWS: ("integer", "arrow, dolphin: so many rows the table has; absent where nobody counted."),
}
# Methods that never answer with a Message, with their content type, and what a reader of it has to know.
_STREAMS = {
    "downloadEngineLog": ("text/plain", "The bytes that the log had when the download began."),
    "followEngineLog": (
        "text/plain",
        "The log's bytes as they come; the header X-Log-Offset says which of the log is the first. A reader that"
        " counts goes on by `fromByte`. The engine's end ends the answer; an answer that breaks off, without HTTP's"
        " last chunk, ended before: so ends the answer of a gateway that stops. Nothing is sent while nothing is"
        " written, since any byte would be one of the log: give proxies on the way an idle timeout that is longer than"
        " the engine's pauses, and where one ends the answer, call again with `fromByte`. The logs of an engine have 8"
        " followers at a time, together.",
    ),
    "taskEvents": (
        "text/event-stream",
        "Server-sent events, each with a name and a JSON object. `status`: `status`, `progress`, `progressMessage`."
        " `output`: `index` and `output`; text is to be appended to what was told of that index, and with"
        " `replaces: true` it replaces that. `reset`: all outputs that were told are void. `end`: the task as getTask"
        " has it; nothing comes behind it. An `end` with the status Unknown is the stream's and not the task's, and"
        " `message` says why."
        " Of events that belong together the last one has the `id`: apply them when it is there. The last id, in the"
        " header Last-Event-ID or as `lastEventId`, goes on behind it, here or at another replica; without one all is"
        " told from the beginning. Call again with it after such an `end`, and where the stream breaks off, without"
        " `end` and without HTTP's last chunk: so ends, too, the stream of a client that takes nothing for a minute, or"
        " for 2 s while other followers of its user need the room. One that reads slowly is waited for: a long event of"
        " another one of its user waits meanwhile, for 5 minutes at most. While nothing happens a comment (`: here`)"
        " comes each 10 s: 30 s without a byte are a dead connection. An output of more than 20 MiB is left out, with a"
        " comment: getResultSet has it when the task has ended.",
    ),
    "watchEngines": (
        "text/event-stream",
        "Server-sent events `engines`, and `end` as the last: call again then, and where the stream breaks off."
        " There are no ids: the first event of each stream has `reset`. A comment comes after 15 s without an event.",
    ),
}
_DOWNLOAD = ("emInstance", "instance", "logDirSuffix", "logType")
# Groups of methods, by the module that handles them.
_TAGS = (
    (
        "Engines",
        "From the wish for an engine to what is known of it after its end.",
        ("methods.create", "methods.engines", "methods.explain"),
    ),
    (
        "Code",
        "What an engine runs: at once, or as a task that can be followed.",
        ("methods.tasks", "methods.task_events", "methods.results", "methods.commands"),
    ),
    ("Logs", "An engine's files, live from its agent and afterwards from the archive.", ("methods.logs",)),
    ("Resources", "What an engine was given, what it uses, and giving it more or less.", ("methods.resources",)),
    (
        "Console",
        "What a console shows besides: the caller, all engines as they change, curves, the catalogue.",
        ("methods.console", "methods.watch"),
    ),
    ("Linkis: engines", "As Linkis's LinkisManager has it, for its SDK and console.", ("linkis.engines",)),
    ("Linkis: ECMs", "This ECM as Linkis's console lists it.", ("linkis.ems",)),
    ("Linkis: operations", "Linkis's operators, and its log viewer.", ("linkis.operations",)),
    ("Linkis: records", "Linkis's table of engines, and its catalogue.", ("linkis.records",)),
)
_TAG_OF = {f"linkis_ecm.gateway.{module}": name for name, _, modules in _TAGS for module in modules}
# The HTTP statuses of refusals, which every method may answer with.
_REFUSALS = {
    "400": "A parameter, the body or the engine's state does not allow it; `message` says which, and the remedy.",
    "401": "Nobody is logged in, or the token is not accepted.",
    "403": "Another user's engine, log or task.",
    "410": "It is not kept any more.",
    "413": "The body is too long.",
    "415": "The body is not JSON.",
    "429": "Too much is under way: again after Retry-After.",
    "502": "The engine's agent broke off or answered with garbage.",
    "503": "The API server, the database or the gateway itself is not to be had now: again after Retry-After.",
    "504": "It took longer than was allowed.",
}


def document() -> dict[str, Any]:
    """The whole document."""
    models = [model for method in METHODS for model in (method.request, method.response) if model is not None]
    unique = sorted({model.__qualname__: model for model in models}.items())
    # Requests have the schema of validation, answers that of serialization. No model is both.
    answers = {method.response for method in METHODS}
    _, schemas = models_json_schema(
        [(model, "serialization" if model in answers else "validation") for _, model in unique],
        ref_template=REF,
    )
    components = schemas.get("$defs", {})
    components["Message"] = _message()
    paths: dict[str, Any] = {}
    for method in METHODS:
        paths.setdefault(_path(method), {})[method.verb.lower()] = _operation(method, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "linkis-ecm gateway",
            "version": "1",
            "description": "Engines as pods. Every answer is Linkis's Message; `status` 0 is success.",
        },
        "security": [{"tokenCode": [], "tokenUser": []}, {"bearer": []}],
        "tags": [{"name": name, "description": description} for name, description, _ in _TAGS],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "tokenCode": _key_in_header("Token-Code", "A token of this gateway."),
                "tokenUser": _key_in_header("Token-User", "The user for whom the token speaks."),
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Instead of both: a token of Kubernetes or of the OpenID Connect issuer.",
                },
            },
        },
    }


def _key_in_header(name: str, description: str) -> dict[str, Any]:
    return {"type": "apiKey", "in": "header", "name": name, "description": description}


def _path(method: Method) -> str:
    return _PARAMETER.sub(r"{\1}", method.path)


def _message(data: dict[str, Any] | None = None) -> dict[str, Any]:
    """Linkis's envelope around `data`."""
    return {
        "type": "object",
        "required": ["method", "status", "message", "data"],
        "properties": {
            "method": {"type": ["string", "null"]},
            "status": {"type": "integer", "enum": [-1, 0, 1, 2, 3, 4]},
            "message": {"type": "string"},
            "data": data or {"type": "object"},
        },
    }


def _operation(method: Method, components: dict[str, Any]) -> dict[str, Any]:
    """One method as an operation."""
    summary, description = _sentences(method.handler.__doc__ or method.name)
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W+(\w)", lambda part: part.group(1).upper(), method.name),
        "tags": [_TAG_OF.get(method.handler.__module__, "More")],
        "summary": summary,
        "responses": {"200": _success(method), **_refusals()},
    }
    if description:
        operation["description"] = description
    if method.by_engine:
        operation["security"] = [{"bearer": []}]
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(method.path)
    ]
    if method.request is not None and method.verb in ("POST", "PUT"):
        schema = {"$ref": REF.format(model=method.request.__name__)}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    elif method.request is not None:
        parameters += _query(method.request, components)
    elif method.name == "downloadEngineLog":
        parameters += [
            {"name": name, "in": "query", "required": True, "schema": {"type": "string", "minLength": 1}}
            for name in _DOWNLOAD
        ]
    if parameters:
        operation["parameters"] = parameters
    return operation


def _sentences(text: str) -> tuple[str, str]:
    """The first sentence, and the others."""
    first, *others = re.split(r"(?<=\.)\s+(?=[A-Z`])", " ".join(text.split()), maxsplit=1)
    return first, "".join(others)


def _query(model: type[BaseModel], components: dict[str, Any]) -> list[dict[str, Any]]:
    """A request model's fields as query parameters."""
    schema = components.get(model.__name__, {})
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": _without_null(field)}
        for name, field in schema.get("properties", {}).items()
    ]


def _without_null(field: dict[str, Any]) -> dict[str, Any]:
    """A field's schema without null, because a query parameter cannot be null, only absent."""
    options = [option for option in field.get("anyOf", []) if option.get("type") != "null"]
    if len(options) == 1:
        return {**{key: value for key, value in field.items() if key not in ("anyOf", "default")}, **options[0]}
    return field


def _success(method: Method) -> dict[str, Any]:
    if method.name in _STREAMS:
        kind, description = _STREAMS[method.name]
        # OpenAPI 3.1 has no schema for a stream of events.
        schema = {} if kind == "text/event-stream" else {"type": "string"}
        return {"description": description, "content": {kind: {"schema": schema}}}
    data = {"$ref": REF.format(model=method.response.__name__)} if method.response is not None else None
    content = {"application/json": {"schema": _message(data)}}
    content |= {
        kind: {"schema": {"type": "string", "format": "binary"}} for kind in _OTHER_CONTENT_TYPES.get(method.name, ())
    }
    done: dict[str, Any] = {"description": "Done.", "content": content}
    if method.name in _OTHER_CONTENT_TYPES:
        done["headers"] = {
            name: {"schema": {"type": kind}, "description": description}
            for name, (kind, description) in _RESULT_HEADERS.items()
        }
    return done


def _refusals() -> dict[str, Any]:
    schema = {"$ref": REF.format(model="Message")}
    return {
        code: {"description": description, "content": {"application/json": {"schema": schema}}}
        for code, description in _REFUSALS.items()
    }


@cache
def served() -> bytes:
    """The document as it is served. It is made once, at the first request."""
    return json.dumps(document()).encode()


def as_committed() -> str:
    """The document as it is committed in docs/openapi.json."""
    return json.dumps(document(), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(as_committed(), encoding="utf-8")
