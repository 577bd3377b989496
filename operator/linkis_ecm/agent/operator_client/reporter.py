"""Calls home: posts the engine's report to the operator at once on a change and on a period.

A report is a level, so there is no queue: what is sent is the state at the moment of sending. A change soon after
another one waits for the rest of the gap, one during an outage for the next try. Must not hold up what it reports on.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import h11

from linkis_ecm.agent.identity import Identity
from linkis_ecm.agent.operator_client.client import READ_BYTES, answer

FIRST_RETRY, LAST_RETRY = 0.1, 5.0
POST_TIMEOUT = 5.0
# Tasks of a few milliseconds, one after the other, flip the state 300 times a second: told each time, they cost the
# operator more than the kernel. Nobody sees a state that lasts shorter.
MIN_INTERVAL = 0.05
# After an answer that had a report. The operator is writing it down, and a user waits for that, or for the first code.
AFTER_ANSWER = 0.5
# What a replica that does not lead answers means, and how often another one is looked for at once.
STANDBY_ANSWER = "this replica does not lead"
STANDBY_TRIES = 20
# An answer says its status, and the key after an enrolment.
_ANSWER_MAX = 64 << 10


class Reporter:
    """Posts `snapshot()`, which counts its own sequence, to `host:port`.

    The first report enrols the agent. `on_refused` is called with the operator's sentence where another agent of this
    pod has enrolled before.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        identity: Identity,
        on_refused: Callable[[str], None],
        period: float,
        snapshot: Callable[[], dict[str, Any]],
        log: Callable[[str, str], None],
        gap: float = MIN_INTERVAL,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._host = host
        self._port = port
        self._headers = [
            (b"host", f"{host}:{port}".encode()),
            (b"content-type", b"application/json"),
        ]
        self._identity = identity
        self._on_refused = on_refused
        self._period = period
        self._min_interval = gap
        self._snapshot = snapshot
        self._log = log
        self._uniform = uniform
        self._revision = 0
        # On the loop's clock.
        self._not_before = 0.0
        self._delivered = 0
        self._changed = asyncio.Event()
        self._urgent = asyncio.Event()
        self._success = asyncio.Event()
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter, h11.Connection] | None = None

    def changed(self) -> None:
        """Something new is to be told."""
        self._revision += 1
        self._changed.set()

    def answered(self) -> None:
        """The operator gets the state of now in an answer: the next report has what comes after it."""
        self._not_before = asyncio.get_running_loop().time() + AFTER_ANSWER

    async def flush(self, timeout: float) -> bool:
        """Tell the state of now, without waiting for a retry's turn; whether it was taken within `timeout` seconds."""
        if not self._host:
            return True
        self.changed()
        self._urgent.set()
        revision = self._revision
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._delivered < revision:
                    self._success.clear()
                    await self._success.wait()
        return self._delivered >= revision

    async def run(self) -> None:
        """Report until cancelled."""
        if not self._host:
            return
        retry = 0.0
        standby = 0
        clock = asyncio.get_running_loop().time
        last = -self._min_interval
        try:
            while True:
                if retry:
                    # Full jitter in the upper half: a thousand agents must not come back in step.
                    await _wait(self._urgent, self._uniform(retry / 2, retry))
                else:
                    await _wait(self._changed, self._period)
                    await _wait(self._urgent, max(last + self._min_interval, self._not_before) - clock())
                last = clock()
                self._changed.clear()
                self._urgent.clear()
                generation = self._revision
                problem = await self._post()
                if problem is None:
                    if retry:
                        self._log("INFO", "reports are taken again")
                    retry = 0.0
                    self._delivered = generation
                    self._success.set()
                else:
                    if not retry:
                        self._log("WARN", f"the report was not taken and is sent again: {problem}")
                    standby = standby + 1 if problem is STANDBY_ANSWER else 0
                    # Of two replicas a new connection finds the other one, sooner or later: not worth a longer wait.
                    grows = problem is not STANDBY_ANSWER or standby > STANDBY_TRIES
                    retry = min(max(retry * 2 if grows else 0.0, FIRST_RETRY), LAST_RETRY)
        finally:
            self._disconnect()

    async def _post(self) -> str | None:
        """Send one report; None where it was taken, else why not."""
        reused = self._connection is not None
        for fresh in (False, True) if reused else (True,):
            try:
                async with asyncio.timeout(POST_TIMEOUT):
                    body = self._snapshot() | self._identity.enrolment()
                    # Of the same moment as the body: a claim makes this agent another engine's.
                    key, authorization = self._identity.key, self._identity.authorization()
                    status, content = await self._exchange(json.dumps(body).encode(), authorization)
            except (OSError, TimeoutError, h11.ProtocolError, EOFError) as error:
                self._disconnect()
                if not fresh and not isinstance(error, TimeoutError):
                    continue  # the operator closed the connection while it was unused
                return f"{type(error).__name__}: {error}"
            if key and key != self._identity.key:
                return None  # an answer to the member that this agent was: the engine's report follows
            if status == 503:
                # A standby: over this connection the leader is never reached.
                self._disconnect()
                return STANDBY_ANSWER
            if status == 200 and self._identity.take(content):
                return None
            if status == 403:
                sentence = content[:500].decode(errors="replace")
                self._on_refused(sentence)
                return f"the operator refuses this agent: {sentence}"
            return None if status == 204 else f"the operator answered {status}"
        return "the connection was closed"

    async def _exchange(self, body: bytes, authorization: bytes) -> tuple[int, bytes]:
        if self._connection is None:
            reader, writer = await asyncio.open_connection(self._host, self._port, limit=READ_BYTES)
            self._connection = reader, writer, h11.Connection(h11.CLIENT, max_incomplete_event_size=READ_BYTES)
        reader, writer, http = self._connection
        headers = [*self._headers, (b"authorization", authorization), (b"content-length", b"%d" % len(body))]
        data = http.send(h11.Request(method=b"POST", target=b"/v1/report", headers=headers)) or b""
        data += http.send(h11.Data(data=body)) or b""
        data += http.send(h11.EndOfMessage()) or b""
        writer.write(data)
        await writer.drain()
        status, content = await answer(reader, http, most=_ANSWER_MAX)
        if http.our_state is h11.DONE and http.their_state is h11.DONE:
            http.start_next_cycle()
        else:
            self._disconnect()
        return status, content

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection[1].transport.abort()
            self._connection = None


async def _wait(event: asyncio.Event, seconds: float) -> None:
    if seconds <= 0:
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
