"""Asks again, while a long answer is being sent, whether its caller may still have it. Must not know logins or engines.

The one rule for streams, downloads and big results: a login that was withdrawn or has expired, and a right that is
gone, end them after RIGHTS_SECONDS at most.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from linkis_ecm.gateway.answers import Answer, LargeJson, Result, Stream
from linkis_ecm.gateway.http.errors import Refused
from linkis_ecm.gateway.http.streams import OpenStream, Streams

log = logging.getLogger(__name__)

# The login and the rights are asked again after so long, and when the login ends by itself. With the minute that an
# answer of Kubernetes counts, a withdrawn token ends its streams in six minutes.
RIGHTS_SECONDS = 300.0
# A login's end is no reason to ask more often than this.
LEAST_SECONDS = 1.0
# While nobody can say, such as when the API server does not answer, it is asked again after UNSURE_SECONDS; the answer
# goes on for another RIGHTS_SECONDS at most: an outage must not end everybody's streams at once, nor open them forever.
UNSURE_SECONDS = 15.0
# What has not ended in good order so long after it was told is cut: its client does not read.
LAST_SECONDS = 10.0
_UNSURE = frozenset({429, 502, 503, 504})

# The seconds until the login ends. Raises Refused where the caller may not have the answer any more.
Ask = Callable[[], Awaitable[float]]
# Ends the answer, for this reason.
End = Callable[[str], None]


@contextmanager
def while_allowed(
    result: Result, ask: Ask, *, login_seconds: float, streams: Streams | None, cut: End
) -> Iterator[Result]:
    """The result to send within the block. A stream of `streams` ends in good order with its caller's rights, any other
    long answer by `cut`, at once. `login_seconds`: until the login ends."""
    if isinstance(result, Answer) and not isinstance(result.data, LargeJson):
        yield result
        return
    end = cut
    if isinstance(result, Stream) and streams is not None:
        stream = OpenStream()
        result = replace(result, chunks=streams.until_end(result, stream))
        end = stream.end
    standing = _Standing(ask, end=end, cut=cut)
    standing.go_on(login_seconds)
    try:
        yield result
    finally:
        standing.close()


class _Standing:
    """One long answer: the timer of its next question."""

    def __init__(self, ask: Ask, *, end: End, cut: End) -> None:
        self._ask = ask
        self._end = end
        self._cut = cut
        self._timer: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None
        self._sure_until = 0.0

    def close(self) -> None:
        """The answer has ended."""
        if self._timer is not None:
            self._timer.cancel()
        if self._asking is not None:
            self._asking.cancel()

    def go_on(self, login_seconds: float) -> None:
        """The caller may have it now."""
        loop = asyncio.get_running_loop()
        self._sure_until = loop.time() + 2 * RIGHTS_SECONDS
        self._timer = loop.call_later(min(RIGHTS_SECONDS, max(LEAST_SECONDS, login_seconds)), self._start)

    def _start(self) -> None:
        self._asking = asyncio.create_task(self._check())

    async def _check(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            self.go_on(await self._ask())
        except Refused as why:
            if why.http in _UNSURE and loop.time() < self._sure_until:
                self._timer = loop.call_later(UNSURE_SECONDS, self._start)
            else:
                self._tell_end(why.sentence)
        except Exception:
            log.exception("the rights of a long answer's caller cannot be asked again: it ends")
            self._tell_end("The rights of this login cannot be asked again: call again")

    def _tell_end(self, why: str) -> None:
        self._timer = asyncio.get_running_loop().call_later(LAST_SECONDS, self._cut, why)
        self._end(why)
