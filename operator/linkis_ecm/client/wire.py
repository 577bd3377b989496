"""What a conversation with the gateway consists of. A conversation is a generator of these steps; a driver, blocking or
not, does each and sends back what came of it. So what is said stands in one place and is tested without a network.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from linkis_ecm.client.errors import EcmError, TimedOut, Unavailable
from linkis_ecm.client.retry import RetryPolicy

T = TypeVar("T")
# Reaching a gateway takes milliseconds, or it is not there.
CONNECT_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Send a request and wait for the answer's head; a Head is sent back. `seconds`: the longest silence. The driver
    adds who is calling."""

    verb: str
    path: str
    seconds: float
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """An answer's head; the names of `headers` are in lower case."""

    http: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Read:
    """The next bytes of the body that is open, b"" at its end."""


@dataclass(frozen=True, slots=True)
class Close:
    """Let the answer go. The driver also does it at the conversation's end, however that comes."""


@dataclass(frozen=True, slots=True)
class Sleep:
    """Nothing for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Emit:
    """The next item, for whoever iterates."""

    item: Any


Step = Open | Read | Close | Sleep | Emit
Talk = Generator[Step, Any, T]


@dataclass(frozen=True, slots=True)
class Stream(Generic[T]):
    """A conversation that emits items of this type."""

    talk: Talk[None]


class NotReached(Unavailable):
    """There was no connection: the call has not been sent."""


class Broken(Unavailable):
    """The connection broke: nobody knows what became of the call."""


class Silent(TimedOut):
    """Nothing came for as long as was allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How a client talks: its patience, and where its time, chance and ids come from."""

    policy: RetryPolicy
    clock: Callable[[], float]
    rng: random.Random
    new_id: Callable[[], str]


def opened(request: Open) -> Talk[Head]:
    """Open, typed."""
    head = yield request
    assert isinstance(head, Head)  # noqa: S101 - the drivers' part of the agreement
    return head


def read() -> Talk[bytes]:
    """Read, typed."""
    data = yield Read()
    assert isinstance(data, bytes)  # noqa: S101
    return data


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """The conversation's end, and what it came to."""

    value: T


class Turns(Generic[T]):
    """A conversation, turn by turn: what the drivers share."""

    def __init__(self, talk: Talk[T]) -> None:
        self._talk = talk

    def send(self, came: Any) -> Step | Done[T]:
        """What to do after that came."""
        try:
            return self._talk.send(came)
        except StopIteration as end:
            return Done(end.value)

    def throw(self, error: EcmError) -> Step | Done[T]:
        """What to do after that failed. Raises EcmError where nothing is."""
        try:
            return self._talk.throw(error)
        except StopIteration as end:
            return Done(end.value)
