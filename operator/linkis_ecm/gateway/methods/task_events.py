"""taskEvents: what becomes of a task, as server-sent events for everybody who follows it.

Such a stream has one end, and breaks off where nobody can say it. Must not know HTTP.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import orjson

from linkis_ecm.agent.formats.cursors import Cursor
from linkis_ecm.agent_client.errors import AgentNotFound
from linkis_ecm.api.models import TaskEventsRequest
from linkis_ecm.gateway.agents.link import can_ask_agent, no_agent
from linkis_ecm.gateway.answers import EVENT_STREAM, Stream
from linkis_ecm.gateway.context import Call
from linkis_ecm.gateway.followers.places import Sending
from linkis_ecm.gateway.http.errors import Refused, bad_request, shown
from linkis_ecm.gateway.inventory.view import KnownEngine
from linkis_ecm.gateway.methods.tasks import find_task, record_task_report, task_of_request, unknown_task
from linkis_ecm.model.formats import as_sentence
from linkis_ecm.process import exact_json

log = logging.getLogger(__name__)


async def task_events(call: Call, request: TaskEventsRequest) -> Stream:
    """What becomes of a task, as server-sent events: `status`, `output`, `reset`, and `end` as the last. An `end` with
    the status Unknown is the stream's and not the task's: `message` says why, and a call with the last id goes on. The
    same holds for a stream that breaks off, without `end` and without HTTP's last chunk."""
    engine, task_id = await task_of_request(call, request)
    if not can_ask_agent(engine):
        if engine.in_cluster and not engine.has_agent:
            raise no_agent(engine)
        raise bad_request(f"{engine.title} has ended: ask getTask how its tasks ended")
    cursor = request.last_event_id or ""
    try:
        Cursor.parse(cursor or str(Cursor()))
    except ValueError:
        what = f"Last-Event-ID (lastEventId) is {shown(cursor, 64)!r}, which is no id of this stream"
        raise bad_request(f"{what}: give the last that you saw, or leave it out to see everything") from None

    def record_end(line: bytes) -> None:
        with suppress(orjson.JSONDecodeError):
            reported = exact_json.loads(line)
            record_task_report(call.gateway, engine, task_id, reported if isinstance(reported, dict) else {})

    sending = Sending()
    following = call.gateway.followers.follow(
        engine, task_id, cursor, user=call.caller.user, sending=sending, on_end=record_end
    )
    try:
        found = await call.held.enter_async_context(following)
    except AgentNotFound:
        raise unknown_task(engine, task_id) from None

    def last(why: str) -> bytes:
        # The word for a task of which the gateway cannot say more: a client asks again, and another replica answers.
        return _end(_unknown(task_id, why))

    return Stream(
        content_type=EVENT_STREAM,
        chunks=_until_end(call, engine, task_id, found),
        last=last,
        on_begin=sending.begin,
    )


async def _until_end(call: Call, engine: KnownEngine, task_id: str, found: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The events. If their source ends early and the engine has ended, the last event has how the task ended. Raises
    OSError or TimeoutError where the engine lives: the answer breaks off, and who follows comes back with the last id.
    An `end` would say that the task has no more events."""
    try:
        async for events in found:
            yield events
            del events  # they may be big, and the next may take long to come
        return
    except (OSError, TimeoutError) as error:
        why = error
    view = await call.gateway.agents.wait_for_end(engine)
    if view is not None and not view.is_final:
        log.info("%s: events of a task are cut, its follower has to come back: %r", engine.title, why)
        raise why
    yield _end(await _how_it_ended(call, engine, view, task_id))


async def _how_it_ended(call: Call, engine: KnownEngine, view: KnownEngine | None, task_id: str) -> dict[str, Any]:
    """A task whose engine has ended, or was deleted, where `view` is None; Unknown with the reason where nobody can
    say: the head of the stream is sent, so that a refusal would be too late."""
    why = f"{engine.title} {'was deleted' if view is None else 'has ended'}: ask getTask how its tasks ended"
    # Its agent is gone with its pod: the journal is asked alone.
    after = replace(engine, in_cluster=False, address="") if view is None else view
    try:
        info = await find_task(call, after, task_id)
    except Refused as refusal:
        info, why = None, refusal.sentence
    if info is not None and info.final:
        return info.model_dump(by_alias=True)
    return _unknown(task_id, why)


def _unknown(task_id: str, why: str) -> dict[str, Any]:
    return {"taskId": task_id, "status": "Unknown", "message": as_sentence(why)}


def _end(reported: dict[str, Any]) -> bytes:
    """The last event of a stream."""
    return b"event: end\ndata: " + orjson.dumps({"event": "end", **reported}) + b"\n\n"
