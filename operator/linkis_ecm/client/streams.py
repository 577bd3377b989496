"""Exchanges that emit items: a task's events, a log as it grows, a download. Each resumes after a broken connection.

Sans I/O: generators of `protocol`'s steps. A broken connection is retried under the same policy as a call; the policy's
patience starts again after each progress.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic_core import from_json

from linkis_ecm.api import result_headers
from linkis_ecm.api.models import EngineInfo, NoAnswer
from linkis_ecm.client.errors import BadRequest, EcmError, Forbidden, ResultTruncated
from linkis_ecm.client.exchanges import ask, require_stream
from linkis_ecm.client.methods import get_engine_status, get_task
from linkis_ecm.client.protocol import (
    ConnectionBroken,
    Emit,
    Exchange,
    Head,
    ReadTimedOut,
    Sleep,
    Stream,
    Terms,
    open_response,
    read,
)
from linkis_ecm.client.request_plan import RequestPlan, set_arguments
from linkis_ecm.client.retry import RetryState
from linkis_ecm.client.sse import SseEvent, SseParser

# An engine's agent sends something every 10 s: after three times that the connection counts as dead.
EVENTS_READ_TIMEOUT = 30.0
# A log may be silent for hours, but so is a connection that a firewall has dropped: it is opened again.
LOG_READ_TIMEOUT = 60.0
DOWNLOAD_READ_TIMEOUT = 60.0
# How often a download starts from the beginning because the log is another one each time.
MAX_RESTARTS = 3
ResultFormat = Literal["arrow", "dolphin"]
_IDENTITY = {"Accept-Encoding": "identity"}
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """`status`, `output` (index and output; `replaces` where it replaces that of its index, else a growing text's new
    part), `reset` (all outputs sent so far are void), and `end` as the last, with the task. `id` is where to resume,
    None if only a later event has it."""

    event: str
    data: dict[str, Any]
    id: str | None = None


def task_events(
    terms: Terms,
    engine_id: str,
    task_id: str | None = None,
    *,
    idempotency_key: str | None = None,
    last_event_id: str | None = None,
) -> Stream[TaskEvent]:
    """taskEvents: the task's status and outputs while it runs; ends with the task.

    A broken connection is resumed, and no output comes twice. `last_event_id` is an earlier event's `id`, to resume
    from there.
    """
    which = set_arguments(engine_id=engine_id, task_id=task_id, idempotency_key=idempotency_key)
    plan = RequestPlan(method="taskEvents", verb="GET", answer=NoAnswer, fields=which)
    return Stream(_events(plan, terms, set_arguments(last_event_id=last_event_id)))


def _events(plan: RequestPlan[NoAnswer], terms: Terms, since: dict[str, str]) -> Exchange[None]:
    tries = _retry_state(terms)
    was_open, cursor = False, ""
    while True:
        began = terms.clock()
        # The caller's id goes as a parameter, which the gateway checks; the gateway's own ids go as SSE's header.
        fields, headers = (plan.fields, {"Last-Event-ID": cursor}) if cursor else ({**plan.fields, **since}, {})
        try:
            head = yield from open_response(
                plan.request(fields, seconds=EVENTS_READ_TIMEOUT, headers=_IDENTITY | headers)
            )
            yield from require_stream(head, terms, plan=plan, expected={200: ""})
            was_open = True
            groups = _EventGroups()
            while data := (yield from read()):
                if terms.clock() - began >= terms.policy.alive:
                    tries.progress()  # an event or a heartbeat: the agent was there
                for group in groups.feed(data):
                    for event in group:
                        yield Emit(event)
                    if group[-1].event == "end":
                        return
                    if group[-1].id != cursor:
                        tries.progress()
                    cursor = group[-1].id or cursor
            raise ConnectionBroken("The task's events ended before the task", can_retry=True)
        except (BadRequest, Forbidden):
            if not was_open:
                raise
            # The engine has ended meanwhile. Its last events are lost, but the status of its task is kept.
            yield Emit((yield from _ended(plan, terms)))
            return
        except EcmError as error:
            wait = tries.wait(error, began=began)
            if wait is None:
                raise
        yield Sleep(wait)


class _EventGroups:
    """Groups events as they were sent together: only the last of a group has an id. If the others were emitted before
    it comes, they would be emitted again after a broken connection."""

    def __init__(self) -> None:
        self._parser = SseParser()
        self._group: list[TaskEvent] = []

    def feed(self, data: bytes) -> Iterator[list[TaskEvent]]:
        """The complete groups. Raises ConnectionBroken where the stream ends before the task: the gateway stops, has
        lost the engine, or the login's rights have ended or changed."""
        for sent in self._parser.feed(data):
            event = _event(sent)
            if event.event == "end" and event.data.get("status") == "Unknown":
                why = event.data.get("message") or "The gateway has lost the engine."
                raise ConnectionBroken(f"The task may still run, and its events have ended: {why}", can_retry=True)
            self._group.append(event)
            if event.id is not None or event.event == "end":
                yield self._group
                self._group = []


def _ended(plan: RequestPlan[NoAnswer], terms: Terms) -> Exchange[TaskEvent]:
    """The task's `end` event, made from getTask. Raises EcmError where the task has not ended."""
    which = plan.fields
    asked = get_task(which["engineId"], which.get("taskId"), idempotency_key=which.get("idempotencyKey"))
    info = yield from ask(asked, terms)
    if not info.final:
        raise BadRequest(f"The task's events cannot be followed any more, and it is {info.status}: ask get_task")
    return TaskEvent("end", {"event": "end", **info.model_dump(by_alias=True)})


def _event(sent: SseEvent) -> TaskEvent:
    try:
        data = from_json(sent.data)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise EcmError("An event is no JSON object: this is no stream of a gateway")
    return TaskEvent(sent.name, data, sent.id or None)


def follow_engine_log(
    terms: Terms,
    engine_id: str,
    log_type: str | None = None,
    *,
    from_byte: int | None = None,
    tail_bytes: int | None = None,
) -> Stream[str]:
    """followEngineLog: the log's lines, without their line ends, from `from_byte` or the last `tail_bytes` (4096) on,
    and those written later; ends with the engine. The first may be the rest of a line."""
    fields = set_arguments(engine_id=engine_id, log_type=log_type, tail_bytes=tail_bytes)
    plan = RequestPlan(method="followEngineLog", verb="GET", answer=NoAnswer, fields=fields)
    return Stream(_follow(plan, terms, from_byte))


def _follow(plan: RequestPlan[NoAnswer], terms: Terms, offset: int | None) -> Exchange[None]:
    tries = _retry_state(terms)
    lines = _Lines()
    attempt = -1
    while True:
        began = terms.clock()
        streams = False
        try:
            info = yield from ask(get_engine_status(plan.fields["engineId"]), terms)
            if 0 <= attempt < info.attempt and offset is not None:
                offset = 0  # a new pod of the engine has started its log again
            attempt = max(attempt, info.attempt)
            fields = plan.fields if offset is None else {**plan.fields, "fromByte": offset}
            head = yield from open_response(plan.request(fields, seconds=LOG_READ_TIMEOUT, headers=_IDENTITY))
            yield from require_stream(head, terms, plan=plan, expected={200: ""})
            streams = True
            # As the gateway counts: a log that has dropped its beginning starts later than was asked for.
            offset = _number(head, "x-log-offset")
            while data := (yield from read()):
                offset += len(data)
                tries.progress()
                for line in lines.feed(data):
                    yield Emit(line)
            if rest := lines.rest():
                yield Emit(rest)
            return
        except EcmError as error:
            if streams and isinstance(error, ReadTimedOut):
                tries.progress()
                continue
            wait = tries.wait(error, began=began)
            if wait is None:
                raise
        yield Sleep(wait)


class _Lines:
    """Decodes lines from pieces of bytes."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._pieces: list[str] = []

    def feed(self, data: bytes) -> list[str]:
        first, *more = self._decode(data).split("\n")
        self._pieces.append(first)
        if not more:
            return []
        found = ["".join(self._pieces), *more[:-1]]
        self._pieces = [more[-1]]
        return [line.removesuffix("\r") for line in found]

    def rest(self) -> str:
        """The last line, which has no line end."""
        return "".join([*self._pieces, self._decode(b"", True)])


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a file; `restarts`: the pieces before are void, the file begins here."""

    data: bytes
    restarts: bool = False


def downloaded(terms: Terms, engine: str | EngineInfo, log_type: str) -> Stream[Piece]:
    """downloadEngineLog: the log's bytes, as many as it had when the download began."""
    return Stream(_download(terms, engine, log_type))


def _download(terms: Terms, engine: str | EngineInfo, log_type: str) -> Exchange[None]:
    tries = _retry_state(terms)
    info = engine if isinstance(engine, EngineInfo) else (yield from ask(get_engine_status(engine), terms))
    plan = RequestPlan(
        method="downloadEngineLog",
        verb="GET",
        answer=NoAnswer,
        fields={
            "emInstance": info.ecm_instance,
            "instance": info.service_instance,
            "logDirSuffix": info.log_dir_suffix,
            "logType": log_type,
        },
    )
    got, total, tag, beginnings = 0, -1, "", 0
    while got != total:
        began = terms.clock()
        headers = _IDENTITY | ({"Range": f"bytes={got}-{total - 1}", "If-Range": tag} if got else {})
        try:
            head = yield from open_response(plan.request(plan.fields, seconds=DOWNLOAD_READ_TIMEOUT, headers=headers))
            yield from require_stream(head, terms, plan=plan, expected={200: "all of it", 206: "the rest"})
            if head.http == 200:
                beginnings += 1
                if beginnings > MAX_RESTARTS:
                    raise EcmError(f"The log was another one each time it broke off, {MAX_RESTARTS} times: try later")
                if beginnings > 1:
                    yield Emit(Piece(b"", restarts=True))
                got, total, tag = 0, _number(head, "content-length"), head.headers.get("etag", "")
            else:
                _continues(head, got)
            while data := (yield from read()):
                got += len(data)
                tries.progress()
                yield Emit(Piece(data))
            if got != total:
                raise ConnectionBroken("The log broke off", can_retry=True)
        except EcmError as error:
            wait = tries.wait(error, began=began)
            if wait is None:
                raise
            yield Sleep(wait)


def result_downloaded(
    terms: Terms,
    engine_id: str,
    task_id: str | None = None,
    *,
    format: ResultFormat = "arrow",
    idempotency_key: str | None = None,
    output: int | None = None,
    from_row: int | None = None,
    rows: int | None = None,
    allow_truncated: bool = False,
) -> Stream[Piece]:
    """getResultSet as bytes: an Arrow IPC stream, or Linkis's result set. Raises ResultTruncated for a table, or named
    rows of one, of which not all is kept, unless that is allowed."""
    fields = set_arguments(
        engine_id=engine_id,
        task_id=task_id,
        idempotency_key=idempotency_key,
        output=output,
        from_row=from_row,
        rows=rows,
        format=format,
    )
    end = None if rows is None else (from_row or 1) - 1 + rows
    plan = RequestPlan(method="getResultSet", verb="GET", answer=NoAnswer, fields=fields)
    return Stream(_download_result(plan, terms, end=end, allow_truncated=allow_truncated))


def _download_result(
    plan: RequestPlan[NoAnswer], terms: Terms, *, end: int | None, allow_truncated: bool
) -> Exchange[None]:
    tries = _retry_state(terms)
    restarts = False
    while True:
        began = terms.clock()
        try:
            head = yield from open_response(plan.request(plan.fields, seconds=DOWNLOAD_READ_TIMEOUT, headers=_IDENTITY))
            yield from require_stream(head, terms, plan=plan, expected={200: ""})
            if not allow_truncated:
                _require_whole(head, end)
            if restarts:
                yield Emit(Piece(b"", restarts=True))
            restarts = True  # the gateway encodes it again each time: the pieces before a break are void
            while data := (yield from read()):
                yield Emit(Piece(data))
            return
        except EcmError as error:
            wait = tries.wait(error, began=began)
            if wait is None:
                raise
        yield Sleep(wait)


def _require_whole(head: Head, end: int | None) -> None:
    """Raises ResultTruncated where the table, or the rows up to `end`, are not all there: the bytes would look
    complete."""
    if head.headers.get(result_headers.TRUNCATED.lower()) != "true":
        return
    kept, total = (
        int(text) if (text := head.headers.get(name.lower(), "")).isascii() and text.isdigit() else None
        for name in (result_headers.RESULT_ROWS, result_headers.TOTAL_ROWS)
    )
    if kept is not None and kept != total and end is not None and end <= kept:
        return
    whole = "its rows (nobody has counted them)" if total is None else f"its {total} rows"
    what = "parts of its cells or columns are not kept" if kept == total else f"the first {kept} of {whole} are kept"
    raise ResultTruncated(
        f"The table is not whole: {what}; allow_truncated=True downloads what is kept",
        http=head.http,
        data={"resultRows": kept, "totalRows": total},
    )


def _number(head: Head, name: str) -> int:
    """A header that counts the log's bytes. Raises EcmError where they were changed on the way."""
    text = head.headers.get(name, "")
    if not (text.isascii() and text.isdigit()) or "content-encoding" in head.headers:
        raise EcmError(f"The log came without {name}, or packed: something between here and the gateway has changed it")
    return int(text)


def _continues(head: Head, got: int) -> None:
    found = _RANGE.fullmatch(head.headers.get("content-range", ""))
    if found is None or int(found.group(1)) != got:
        raise EcmError("Another part of the log came than was asked for: something between here and the gateway errs")


def _retry_state(terms: Terms) -> RetryState:
    """The tries of a stream, which has no deadline. Only received bytes count as progress, not the time of a try."""
    policy = replace(terms.policy, alive=float("inf"))
    return RetryState(policy, repeatable=True, deadline=float("inf"), clock=terms.clock, rng=terms.rng)
