"""Exchanges that end in one result: a call with its repetitions, and the wait for an engine.

Sans I/O: each is a generator of `protocol`'s steps, the same for the blocking and the asynchronous client.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel

from linkis_ecm.api.models import EngineInfo
from linkis_ecm.client.errors import BadRequest, EcmError, EngineFailed, Forbidden, TimedOut
from linkis_ecm.client.methods import get_engine_status
from linkis_ecm.client.protocol import Close, Exchange, Head, Open, Sleep, Terms, open_response, read
from linkis_ecm.client.request_plan import RequestPlan
from linkis_ecm.client.retry import RetryState
from linkis_ecm.model.states import RECORD_FINAL

Model = TypeVar("Model", bound=BaseModel)

# More than the largest answer of a gateway: 16 MiB of outputs, which JSON escaping makes six times as long at worst.
MAX_ANSWER_BYTES = 128 << 20
# Seconds between two looks, the first and the last. An engine starts within seconds, or it waits for a node.
POLL_FIRST, POLL_LAST = 0.25, 2.0
# After this, every replica of the gateway knows a new engine: their watches are milliseconds behind.
UNKNOWN_SECONDS = 3.0
_FINAL = frozenset(map(str, RECORD_FINAL))


def ask(plan: RequestPlan[Model], terms: Terms) -> Exchange[Model]:
    """The plan's answer, with as many tries as the policy allows. Raises EcmError, whose data has the id that was
    used."""
    deadline = terms.clock() + plan.seconds + terms.policy.patience
    tries = RetryState(terms.policy, repeatable=plan.repeatable, deadline=deadline, clock=terms.clock, rng=terms.rng)
    fields, may_run = plan.with_id(terms.new_id()), False
    while True:
        began = terms.clock()
        # The last try ends with the whole call; less than a second is not worth a request.
        ends = max(min(began + plan.seconds, deadline), began + 1.0)
        try:
            request = plan.request(fields, seconds=ends - began)
            head, body = yield from fetch(request, terms, ends=ends)
            return plan.read(head.http, head.headers, body)
        except EcmError as error:
            if plan.generated_id_field:
                error.data.setdefault(plan.generated_id_field, fields[plan.generated_id_field])
            wait = tries.wait(error, began=began)
            if wait is None:
                raise
            refused = not error.sent or error.http == 429
            may_run = may_run or not refused
            if plan.generated_id_field == "idempotencyKey" and not may_run:
                # The journal keeps the refused task of this key as Failed: the next try needs another key.
                fields = plan.with_id(terms.new_id())
        yield Sleep(wait)


def fetch(request: Open, terms: Terms, *, ends: float) -> Exchange[tuple[Head, bytes]]:
    """One request and its whole answer. Raises EcmError where it is not complete at `ends`."""
    head = yield from open_response(request)
    body = yield from read_body(terms, ends=ends)
    return head, body


def read_body(terms: Terms, *, ends: float) -> Exchange[bytes]:
    """The rest of the open response; it is closed then. Raises EcmError where it is too long or too late."""
    pieces, size = [], 0
    while data := (yield from read()):
        pieces.append(data)
        size += len(data)
        if size > MAX_ANSWER_BYTES:
            raise EcmError(f"The answer is over {MAX_ANSWER_BYTES >> 20} MiB: fetch less at once")
        if terms.clock() > ends:
            raise TimedOut("The answer did not come in time", can_retry=True)
    yield Close()
    return b"".join(pieces)


def require_stream(
    head: Head, terms: Terms, *, plan: RequestPlan[Model], expected: Mapping[int, str]
) -> Exchange[None]:
    """Returns where the response has one of the expected statuses; else reads the refusal and raises EcmError."""
    if head.http in expected:
        return
    body = yield from read_body(terms, ends=terms.clock() + plan.seconds)
    plan.read(head.http, head.headers, body)
    raise EcmError(f"{plan.method} was answered without a stream (HTTP {head.http}): check url", http=head.http)


def wait_until_ready(terms: Terms, engine_id: str, *, timeout: float = 300.0) -> Exchange[EngineInfo]:
    """The engine once it takes code. Raises EngineFailed where it ends before, TimedOut after `timeout` seconds."""
    began = terms.clock()
    ends = began + timeout
    pause = POLL_FIRST
    while True:
        try:
            info = yield from ask(get_engine_status(engine_id), terms)
        except (BadRequest, Forbidden):
            # A replica that does not know the engine yet answers as for another user's.
            if terms.clock() + pause > min(ends, began + UNKNOWN_SECONDS):
                raise
            yield Sleep(pause)
            continue
        if info.available:
            return info
        why = info.message or info.reason or "no reason was given"
        data = {"engine": info.model_dump(by_alias=True), "reason": info.reason, "remedy": info.remedy}
        if info.status in _FINAL:
            raise EngineFailed(f"The engine is {info.status}: {why}", data=data, can_retry=info.can_retry)
        if terms.clock() + pause > ends:
            raise TimedOut(
                f"The engine is {info.status} after {timeout:g} s ({why}): it goes on starting, so wait longer",
                data=data,
                can_retry=True,
            )
        yield Sleep(pause)
        pause = min(pause * 1.5, POLL_LAST)
