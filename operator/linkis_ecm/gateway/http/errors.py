"""What a call can end as when it does not succeed: one class, and a constructor for each kind of refusal.

A refusal is one clear sentence that names the field and the remedy. The HTTP status follows from the Message's, as in
Linkis (1 → 400, 3 → 403, -1 → 401). Only what is about HTTP itself (no such path, a body too large, too many calls) or
not the caller's fault (an engine or a server that does not answer) has HTTP's own word, with status 1. Must not know of
requests or engines.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Refused(Exception):  # noqa: N818 - it says what happened to the call
    """The call is answered with this Message. `http`: None where it follows from the Message's status."""

    def __init__(
        self,
        sentence: str,
        *,
        status: int = 1,
        http: int | None = None,
        data: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.status = status
        self.http = http
        self.data = dict(data or {})
        self.headers = dict(headers or {})


def shown(text: str, limit: int = 256) -> str:
    """A caller's text as an answer may repeat it: printable, and not for ever."""
    return "".join(char if char.isprintable() else "?" for char in text)[:limit]


def bad_request(sentence: str, **data: Any) -> Refused:
    """A parameter or the body cannot be used, or the engine is in a state that does not allow this."""
    return Refused(sentence, data=data)


def no_login(sentence: str) -> Refused:
    """Nobody is logged in: Linkis's status -1."""
    return Refused(sentence, status=-1)


def forbidden(sentence: str) -> Refused:
    """The caller may not do this: Linkis's status 3."""
    return Refused(sentence, status=3)


def no_such_path(sentence: str) -> Refused:
    """Nothing is served there."""
    return Refused(sentence, http=404)


def too_large(sentence: str) -> Refused:
    """The body is over the limit."""
    return Refused(sentence, http=413)


def too_many(sentence: str) -> Refused:
    """Too much is under way already; a second later it may not be."""
    return Refused(sentence, http=429, headers={"Retry-After": "1"})


def upstream(sentence: str, **data: Any) -> Refused:
    """An engine's agent or the API server answered with what cannot be used, or broke off."""
    return Refused(sentence, http=502, data=data)


def unavailable(sentence: str) -> Refused:
    """Something that the call needs does not answer now."""
    return Refused(sentence, http=503, headers={"Retry-After": "1"})


def timed_out(sentence: str, **data: Any) -> Refused:
    """It took longer than was allowed."""
    return Refused(sentence, http=504, data=data)
