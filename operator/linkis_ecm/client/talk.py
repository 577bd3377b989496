"""Conversations that end in one answer: a call with its repetitions, and the wait for an engine.

Each is a generator of `wire`'s steps, the same for the blocking and the asynchronous client.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel

from linkis_ecm.api.models import EngineInfo
from linkis_ecm.client.errors import BadRequest, EcmError, EngineFailed, TimedOut
from linkis_ecm.client.methods import get_engine_status
from linkis_ecm.client.plan import Plan
from linkis_ecm.client.retry import Tries
from linkis_ecm.client.wire import Close, Head, Open, Sleep, Talk, Terms, opened, read
from linkis_ecm.model.states import RECORD_FINAL

Model = TypeVar("Model", bound=BaseModel)

# Over the biggest answer of a gateway: 16 MiB of outputs, which JSON escapes at worst sixfold.
MAX_ANSWER_BYTES = 128 << 20
# An engine starts within seconds, or it waits for a node.
LOOK_FIRST, LOOK_LAST = 0.25, 2.0
# What was just made is known to every replica of the gateway by then: their watches are behind by milliseconds.
UNKNOWN_SECONDS = 3.0
_FINAL = frozenset(map(str, RECORD_FINAL))


def ask(plan: Plan[Model], terms: Terms) -> Talk[Model]:
    """The plan's answer, after as many tries as the policy allows. Raises EcmError, with the id that was used."""
    deadline = terms.clock() + plan.seconds + terms.policy.patience
    tries = Tries(terms.policy, repeatable=plan.repeatable, deadline=deadline, clock=terms.clock, rng=terms.rng)
    fields, doubtful = plan.with_id(terms.new_id()), False
    while True:
        began = terms.clock()
        # The last try ends when the whole does; a second is the least that is worth sending for.
        ends = max(min(began + plan.seconds, deadline), began + 1.0)
        try:
            request = plan.request(fields, seconds=ends - began)
            head, body = yield from exchange(request, terms, ends=ends)
            return plan.read(head.http, head.headers, body)
        except EcmError as error:
            if plan.own_id:
                error.data.setdefault(plan.own_id, fields[plan.own_id])
            wait = tries.wait(error, began=began)
            if wait is None:
                raise
            refused = not error.sent or error.http == 429
            doubtful = doubtful or not refused
            if plan.own_id == "idempotencyKey" and not doubtful:
                # The journal has the refused task of this key as Failed for good: what runs gets another.
                fields = plan.with_id(terms.new_id())
        yield Sleep(wait)


def exchange(request: Open, terms: Terms, *, ends: float) -> Talk[tuple[Head, bytes]]:
    """One request and its whole answer. Raises EcmError where it does not come by `ends`."""
    head = yield from opened(request)
    body = yield from whole(terms, ends=ends)
    return head, body


def whole(terms: Terms, *, ends: float) -> Talk[bytes]:
    """The body that is open, and closes it."""
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


def refuse(head: Head, terms: Terms, *, plan: Plan[Model], expected: Mapping[int, str]) -> Talk[None]:
    """Goes on where a stream begins with one of the expected statuses; else reads why not, and raises EcmError."""
    if head.http in expected:
        return
    body = yield from whole(terms, ends=terms.clock() + plan.seconds)
    plan.read(head.http, head.headers, body)
    raise EcmError(f"{plan.method} was answered without a stream (HTTP {head.http}): check url", http=head.http)


def wait_until_ready(terms: Terms, engine_id: str, *, timeout: float = 300.0) -> Talk[EngineInfo]:
    """The engine once it takes code. Raises EngineFailed where it ends before, TimedOut after `timeout` seconds."""
    began = terms.clock()
    ends = began + timeout
    pause = LOOK_FIRST
    while True:
        try:
            info = yield from ask(get_engine_status(engine_id), terms)
        except BadRequest:
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
        pause = min(pause * 1.5, LOOK_LAST)
