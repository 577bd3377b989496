"""The errors of calls, made from answers. Pure.

The message is the gateway's own sentence where it gave one. No error contains a token: errors are made of answers and
of the network's errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

# Characters of an answer that is no Message which the error repeats.
_MAX_MESSAGE_CHARS = 200


class TruncatedTable(UserWarning):
    """The rows of an executed code's table are not all of it."""


class EcmError(Exception):
    """A call that did not succeed. `http` and `status` are the answer's, None where there was none; `data` is the
    Message's; `can_retry` says whether the same call may succeed later."""

    def __init__(
        self,
        message: str,
        *,
        http: int | None = None,
        status: int | None = None,
        data: Mapping[str, Any] | None = None,
        can_retry: bool = False,
        retry_after: float | None = None,
        sent: bool = True,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.http = http
        self.status = status
        self.data = dict(data or {})
        self.can_retry = can_retry
        self.retry_after = retry_after
        # False: the gateway has certainly not received the call.
        self.sent = sent


class NotLoggedIn(EcmError):  # noqa: N818 - it says what happened to the call, as its neighbours do
    """The gateway does not accept the login."""


class Forbidden(EcmError):  # noqa: N818
    """The caller may not do this."""


class BadRequest(EcmError):  # noqa: N818
    """A parameter cannot be used, there is no such thing, or the engine is in a state that does not allow this."""


class EngineFailed(EcmError):  # noqa: N818
    """The engine did not become ready; `data` has reason, remedy and engine."""


class ResultGone(EcmError):  # noqa: N818
    """The task's outputs are not kept any more; `data["task"]` says how it ended, where that is known."""


class ResultTruncated(EcmError):  # noqa: N818
    """The table has more than what is kept of it; `data` has `resultRows` and `totalRows` (None: nobody counted)."""


class TooMany(EcmError):  # noqa: N818
    """The gateway or the engine had too many calls, for the whole time that the call was repeated."""


class Unavailable(EcmError):  # noqa: N818
    """The gateway, or a server that it needs, does not answer."""


class TimedOut(EcmError):  # noqa: N818
    """It took longer than is allowed. The call may have been done."""


_BY_HTTP: dict[int, type[EcmError]] = {
    401: NotLoggedIn,
    403: Forbidden,
    408: TimedOut,
    410: ResultGone,
    429: TooMany,
    502: Unavailable,
    503: Unavailable,
    504: TimedOut,
}


def error_of(http: int, headers: Mapping[str, str], body: bytes) -> EcmError:
    """The error that this answer stands for. `headers` have lower-case names."""
    message = message_of(body)
    retry_after = _seconds(headers.get("retry-after"))
    if message is None:
        # Not the gateway's answer: a proxy's, or another server's.
        kind = _BY_HTTP.get(http, EcmError)
        return kind(
            f"{_without_message(http)}: {_plain(body) or 'an empty answer'}",
            http=http,
            can_retry=http in (429, 502, 503, 504),
            retry_after=retry_after,
        )
    data = message.get("data")
    data = data if isinstance(data, dict) else {}
    kind = _BY_HTTP.get(http, BadRequest if 400 <= http < 500 else EcmError)
    if kind is BadRequest and "canRetry" in data and "engine" in data:
        kind = EngineFailed
    return kind(
        str(message.get("message") or f"HTTP {http} without a reason"),
        http=http,
        status=message["status"],
        data=data,
        can_retry=bool(data["canRetry"]) if "canRetry" in data else http in (429, 503, 504),
        retry_after=retry_after,
    )


def message_of(body: bytes) -> dict[str, Any] | None:
    """The body as Linkis's Message; None where it is no Message."""
    try:
        found = from_json(body)
    except ValueError:
        return None
    if not isinstance(found, dict) or type(found.get("status")) is not int:
        return None
    return found


def _without_message(http: int) -> str:
    if 300 <= http < 400:
        return f"HTTP {http}, and redirects are not followed with a token: give the url that it leads to"
    if http in (502, 503, 504):
        return f"HTTP {http} from something in front of the gateway"
    return f"HTTP {http} from what is no gateway of linkis-ecm: check url"


def _plain(body: bytes) -> str:
    text = " ".join(body[: _MAX_MESSAGE_CHARS * 4].decode("utf-8", "replace").split())
    return "".join(char if char.isprintable() else "?" for char in text)[:_MAX_MESSAGE_CHARS]


def _seconds(header: str | None) -> float | None:
    """Retry-After in seconds; None for the form with a date."""
    text = (header or "").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 7 else None
