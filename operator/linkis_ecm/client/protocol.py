"""The sans-I/O protocol between exchanges and drivers.

An exchange is a generator that yields steps (open, read, close, sleep, emit). A driver, blocking or asynchronous, does
each step over the network and sends its result back into the generator. So the logic of calls stands in one place and
is tested without a network. Must not do I/O, nor import httpx.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from linkis_ecm.client.errors import EcmError, TimedOut, Unavailable
from linkis_ecm.client.retry import RetryPolicy

T = TypeVar("T")
# Connecting to a gateway takes milliseconds, or it is not there.
CONNECT_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Send a request and wait for the answer's head; the result is a Head. `seconds`: the longest time without a byte.
    The driver adds the login."""

    verb: str
    path: str
    seconds: float
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers of an answer; the names of `headers` are in lower case."""

    http: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Read:
    """Read the next bytes of the open response; the result is b"" at its end."""


@dataclass(frozen=True, slots=True)
class Close:
    """Close the open response. The driver also does this at the end of the exchange, after an error too."""


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Emit:
    """Give the next item to the caller who iterates."""

    item: Any


Step = Open | Read | Close | Sleep | Emit
Exchange = Generator[Step, Any, T]


@dataclass(frozen=True, slots=True)
class Stream(Generic[T]):
    """An exchange that emits items of this type."""

    exchange: Exchange[None]


class NotConnected(Unavailable):
    """No connection could be made: the call has not been sent."""


class ConnectionBroken(Unavailable):
    """The connection broke: the call may have been done or not."""


class ReadTimedOut(TimedOut):
    """No byte came for as long as is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What all exchanges of a client share: the retry policy, clock, randomness and ids."""

    policy: RetryPolicy
    clock: Callable[[], float]
    rng: random.Random
    new_id: Callable[[], str]


def open_response(request: Open) -> Exchange[Head]:
    """The Open step with the type of its result. Raises EcmError for a packed answer: none was asked for, and a few
    bytes would become any number."""
    head = yield request
    assert isinstance(head, Head)  # noqa: S101 - drivers send a Head back
    if head.headers.get("content-encoding", "identity") != "identity":
        yield Close()
        raise EcmError(
            "The answer is compressed or packed, which was not asked for: check the proxy in front of the gateway",
            http=head.http,
        )
    return head


def read() -> Exchange[bytes]:
    """The Read step with the type of its result."""
    data = yield Read()
    assert isinstance(data, bytes)  # noqa: S101
    return data


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """The end of an exchange, and its result."""

    value: T


class Stepper(Generic[T]):
    """Advances an exchange by one step; used by both drivers."""

    def __init__(self, exchange: Exchange[T]) -> None:
        self._exchange = exchange

    def send(self, result: Any) -> Step | Done[T]:
        """The step after one with this result; None begins."""
        try:
            return self._exchange.send(result)
        except StopIteration as end:
            return Done(end.value)

    def throw(self, error: EcmError) -> Step | Done[T]:
        """The step after one that failed. Raises EcmError where the exchange does not handle it."""
        try:
            return self._exchange.throw(error)
        except StopIteration as end:
            return Done(end.value)
