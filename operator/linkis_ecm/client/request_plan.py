"""One method's request as data, and how its answer is read. Sans I/O: it neither sends nor waits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel

from linkis_ecm.api.models import ExecuteAnswer
from linkis_ecm.api.paths import BASE, PREFIX
from linkis_ecm.client.errors import EcmError, ResultGone, error_of, message_of
from linkis_ecm.client.protocol import Open

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestPlan(Generic[Model]):
    """A call of `method`. The gateway checks the parameters: its refusals name the remedy."""

    method: str
    verb: str
    answer: type[Model]
    fields: Mapping[str, Any] = field(default_factory=dict, repr=False)
    # Sending it twice has the effect of sending it once.
    repeatable: bool = True
    # The longest time of one try: more than the gateway's own limit, so that its refusal comes first.
    seconds: float = 40.0
    # The path of one of Linkis's own methods, below `linkisManager`.
    is_linkis: bool = False
    # The field whose value makes the call repeatable, if the caller gave none and the client fills it in.
    generated_id_field: str = ""

    @property
    def path(self) -> str:
        """The path of the request."""
        return f"{PREFIX}/linkisManager/{self.method}" if self.is_linkis else f"{BASE}/{self.method}"

    def with_id(self, new: str) -> Mapping[str, Any]:
        """The fields, with `new` as the id where the caller gave none."""
        return {**self.fields, self.generated_id_field: new} if self.generated_id_field else self.fields

    def request(self, fields: Mapping[str, Any], *, seconds: float, headers: Mapping[str, str] | None = None) -> Open:
        """The request step with these fields."""
        if self.verb == "GET":
            params = {name: _text(value) for name, value in fields.items()}
            return Open(verb="GET", path=self.path, params=params, headers=headers or {}, seconds=seconds)
        return Open(
            verb=self.verb,
            path=self.path,
            headers={"Content-Type": "application/json", **(headers or {})},
            # A lone surrogate is sent as it is: the gateway answers that it cannot be read.
            body=json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogatepass"),
            seconds=seconds,
        )

    def read(self, http: int, headers: Mapping[str, str], body: bytes) -> Model:
        """The answer's model. Raises EcmError."""
        message = message_of(body)
        if not 200 <= http < 300 or message is None:
            raise error_of(http, headers, body)
        data = message.get("data")
        if self.answer is ExecuteAnswer and isinstance(data, dict) and "outputs" not in data:
            # The key's task ended with an earlier pod of its engine: its status is known, its outputs are not.
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


def set_arguments(**values: Any) -> dict[str, Any]:
    """The parameters that were given, under their names in the REST. The gateway has defaults for the others."""
    return {to_camel(name): _plain(value) for name, value in values.items() if value is not None}


def _plain(value: Any) -> Any:
    return value.model_dump(by_alias=True, exclude_none=True) if isinstance(value, BaseModel) else value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
