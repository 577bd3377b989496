"""One method's call as data, and what its answer means. Pure: it neither sends nor waits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel

from linkis_ecm.api.models import ExecuteAnswer
from linkis_ecm.api.paths import BASE
from linkis_ecm.client.errors import EcmError, ResultGone, error_of, message_of
from linkis_ecm.client.wire import Open

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(Generic[Model]):
    """A call of `method`. Parameters are judged by the gateway, whose sentence names the remedy."""

    method: str
    verb: str
    answer: type[Model]
    fields: Mapping[str, Any] = field(default_factory=dict, repr=False)
    # Made twice, it is made once.
    repeatable: bool = True
    # The longest that one try may take: over the gateway's own bound, so that its sentence comes first.
    seconds: float = 40.0
    # The field whose value makes the call repeatable, where the caller has left that to us.
    own_id: str = ""

    @property
    def path(self) -> str:
        """Where it goes."""
        return f"{BASE}/{self.method}"

    def with_id(self, new: str) -> Mapping[str, Any]:
        """The fields, with an id of ours."""
        return {**self.fields, self.own_id: new} if self.own_id else self.fields

    def request(self, fields: Mapping[str, Any], *, seconds: float, headers: Mapping[str, str] | None = None) -> Open:
        """The call on the wire."""
        if self.verb == "GET":
            params = {name: _text(value) for name, value in fields.items()}
            return Open(verb="GET", path=self.path, params=params, headers=headers or {}, seconds=seconds)
        return Open(
            verb=self.verb,
            path=self.path,
            headers={"Content-Type": "application/json", **(headers or {})},
            # A lone surrogate stays what it is: the gateway says that it cannot be read.
            body=json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogatepass"),
            seconds=seconds,
        )

    def read(self, http: int, headers: Mapping[str, str], body: bytes) -> Model:
        """What was answered. Raises EcmError."""
        message = message_of(body)
        if not 200 <= http < 300 or message is None:
            raise error_of(http, headers, body)
        data = message.get("data")
        if self.answer is ExecuteAnswer and isinstance(data, dict) and "outputs" not in data:
            # A key's task that has ended with an earlier pod of its engine: how it ended is known, not what it gave.
            raise ResultGone(str(message.get("message")), http=http, status=message["status"], data={"task": data})
        try:
            return self.answer.model_validate(data)
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"]) or "data"
            raise EcmError(
                f"{self.method} was answered in another form ({where}): client and gateway are of different versions",
                http=http,
                status=message["status"],
            ) from None


def given(**values: Any) -> dict[str, Any]:
    """What was given, in the wire's names; what was not is left to the gateway."""
    return {to_camel(name): _plain(value) for name, value in values.items() if value is not None}


def _plain(value: Any) -> Any:
    return value.model_dump(by_alias=True, exclude_none=True) if isinstance(value, BaseModel) else value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
