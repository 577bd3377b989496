"""The refusals that end a call without success: one class, and a constructor for each kind.

A refusal is one clear sentence that names the field and the remedy. The HTTP status follows from the Message's, as in
Linkis (1 → 400, 3 → 403, -1 → 401). Only refusals about HTTP itself (no such path, a body too large, too many calls)
and those that are not the caller's fault (an engine or a server that does not answer) have another HTTP status, with
status 1. Must not know of requests or engines.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Refused(Exception):  # noqa: N818 - a result of the call, not a bug
    """The call is answered with this Message. `http`: the HTTP status, None where it follows from the Message's.
    `limit`: the bound that was reached, as the metric of refusals names it; "" for other refusals."""

    def __init__(
        self,
        sentence: str,
        *,
        status: int = 1,
        http: int | None = None,
        data: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        limit: str = "",
    ) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.status = status
        self.http = http
        self.data = dict(data or {})
        self.headers = dict(headers or {})
        self.limit = limit
        # The caller may not do this, whatever the answer says: it stands in the audit log.
        self.denied = status in (-1, 3)


def shown(text: str, limit: int = 256) -> str:
    """A caller's text as an answer may repeat it: printable, and at most `limit` characters."""
    return "".join(char if char.isprintable() else "?" for char in text[:limit])


def bad_request(sentence: str, **data: Any) -> Refused:
    """A parameter or the body cannot be used, or the engine is in a state that does not allow this."""
    return Refused(sentence, data=data)


def no_login(sentence: str) -> Refused:
    """The caller is not logged in: Linkis's status -1."""
    return Refused(sentence, status=-1)


def forbidden(sentence: str) -> Refused:
    """The caller may not do this: Linkis's status 3."""
    return Refused(sentence, status=3)


def denied(refusal: Refused) -> Refused:
    """The refusal, marked for the audit log: Linkis's calls say some denials with another status."""
    refusal.denied = True
    return refusal


def no_such_path(sentence: str) -> Refused:
    """The gateway serves no such path."""
    return Refused(sentence, http=404)


def too_large(sentence: str, *, limit: str = "") -> Refused:
    """The body is over the limit."""
    return Refused(sentence, http=413, limit=limit)


def too_many(sentence: str, *, limit: str = "") -> Refused:
    """A limit on concurrent work is reached; a second later it may not be."""
    return Refused(sentence, http=429, headers={"Retry-After": "1"}, limit=limit)


def upstream(sentence: str, **data: Any) -> Refused:
    """An engine's agent or the API server gave an answer that cannot be used, or broke the connection."""
    return Refused(sentence, http=502, data=data)


def unavailable(sentence: str, *, limit: str = "") -> Refused:
    """A server that the call needs does not answer now."""
    return Refused(sentence, http=503, headers={"Retry-After": "1"}, limit=limit)


def timed_out(sentence: str, **data: Any) -> Refused:
    """The call took longer than is allowed."""
    return Refused(sentence, http=504, data=data)
