"""What both clients do when calls fail and streams are cut: on a scripted wire, in no time."""

from __future__ import annotations

import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from linkis_ecm.client import BadRequest, EcmError, Forbidden, ResultGone, TimedOut, TooMany, Unavailable
from tests.client.support import TOKEN, Clock, Cut, Script, engine_data, message, result_data, text

GONE = httpx.ReadError("broken")
UNREACHED = httpx.ConnectError("refused")


def refused(http: int, text: str = "Not now.", **more: Any) -> httpx.Response:
    return message({}, http=http, status=1, text=text, **more)


# -- calls -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [GONE, UNREACHED, httpx.ReadTimeout("slow"), refused(429), refused(503), refused(504)]
)
async def test_a_read_only_call_is_repeated(kind: str, fault: Any) -> None:
    script, clock = Script(fault, fault, message(engine_data())), Clock()
    assert (await script.client(kind, clock)("get_engine_status", "e")).status == "Idle"
    assert len(script.requests) == 3
    assert len(clock.slept) == 2


async def test_a_creation_is_repeated_with_the_same_ticket(kind: str) -> None:
    script = Script(UNREACHED, GONE, refused(503), message(engine_data()))
    await script.client(kind)("create_engine_connection", "python")
    assert {body["ticketId"] for body in script.bodies()} == {"id-0"}
    script = Script(GONE, message(engine_data()))
    await script.client(kind)("create_engine_connection", "python", ticket_id="mine")
    assert {body["ticketId"] for body in script.bodies()} == {"mine"}


async def test_code_that_may_run_is_sent_again_with_the_same_key(kind: str) -> None:
    script = Script(GONE, refused(429), refused(504), message(result_data(text("2"))))
    await script.client(kind)("execute_code", "e", "1+1")
    assert [body["idempotencyKey"] for body in script.bodies()] == ["id-0"] * 4


async def test_code_that_was_certainly_not_taken_gets_a_new_key_but_for_the_callers(kind: str) -> None:
    script = Script(refused(429), UNREACHED, message(result_data()))
    await script.client(kind)("execute_code", "e", "1+1")
    assert [body["idempotencyKey"] for body in script.bodies()] == ["id-0", "id-1", "id-2"]
    script = Script(refused(429), message(result_data()))
    await script.client(kind)("execute_code", "e", "1+1", idempotency_key="mine")
    assert {body["idempotencyKey"] for body in script.bodies()} == {"mine"}


async def test_an_interrupt_is_sent_again_only_where_it_was_not_taken(kind: str) -> None:
    done = message({"result": {}})
    script = Script(UNREACHED, refused(429), done)
    await script.client(kind)("send_engine_command", "e", "interrupt")
    assert len(script.requests) == 3
    for fault in (GONE, refused(503), httpx.ReadTimeout("slow")):
        script = Script(fault, done)
        with pytest.raises(EcmError):
            await script.client(kind)("send_engine_command", "e", "interrupt")
        assert len(script.requests) == 1


@pytest.mark.parametrize("http", [400, 401, 403, 404, 410, 413, 500, 502])
async def test_a_refusal_is_final(kind: str, http: int) -> None:
    script = Script(refused(http, "Do that."), message(engine_data()))
    with pytest.raises(EcmError, match=r"Do that\.") as error:
        await script.client(kind)("get_engine_status", "e")
    assert error.value.http == http
    assert len(script.requests) == 1


async def test_retry_after_is_honoured_as_far_as_patience_goes(kind: str) -> None:
    script, clock = Script(refused(429, Retry_After="9"), message(engine_data())), Clock()
    await script.client(kind, clock)("get_engine_status", "e")
    assert 9.0 <= clock.slept[0] < 9.5
    script, clock = Script(refused(429, "Later.", Retry_After="3600")), Clock()
    with pytest.raises(TooMany, match="Later") as error:
        await script.client(kind, clock)("get_engine_status", "e")
    assert (error.value.retry_after, error.value.can_retry, clock.slept) == (3600.0, True, [])


async def test_a_gateway_that_is_away_is_waited_for_as_long_as_patience_says(kind: str) -> None:
    script, clock = Script(UNREACHED), Clock()
    with pytest.raises(Unavailable, match=r"cannot be reached at http://gateway\.test:9102: ConnectError \(refused\)"):
        await script.client(kind, clock, patience=10.0)("get_engine_status", "e")
    assert 5.0 < sum(clock.slept) <= 10.0
    assert 3 < len(script.requests) < 30


async def test_a_lost_creation_tells_the_ticket_to_ask_for(kind: str) -> None:
    with pytest.raises(Unavailable) as error:
        await Script(GONE).client(kind)("create_engine_connection", "python")
    assert error.value.data["ticketId"] == "id-0"


async def test_a_gateway_that_hangs_ends_with_the_deadline(kind: str) -> None:
    clock = Clock()

    def hang(request: httpx.Request) -> Exception:
        seconds = request.extensions["timeout"]["read"]
        clock.now += seconds
        return httpx.ReadTimeout("slow", request=request)

    began = clock.now
    with pytest.raises(TimedOut, match="did not answer in time"):
        await Script(hang).client(kind, clock, patience=30.0)("get_engine_status", "e")
    assert 40.0 <= clock.now - began <= 71.0


async def test_an_answer_that_trickles_ends_with_the_deadline(kind: str) -> None:
    clock = Clock()

    class Trickle(Cut):
        def __iter__(self) -> Any:
            for _ in range(1000):
                clock.now += 5.0
                yield b" "

    script = Script(lambda _: httpx.Response(200, stream=Trickle()))
    with pytest.raises(TimedOut, match="did not come in time"):
        await script.client(kind, clock)("get_engine_status", "e")
    assert clock.now < 1000.0 + 90.0


async def test_an_answer_over_the_limit_is_not_read(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linkis_ecm.client.exchanges.MAX_ANSWER_BYTES", 1000)
    with pytest.raises(EcmError, match="fetch less"):
        await Script(lambda _: httpx.Response(200, stream=Cut(*[b"x" * 600] * 9))).client(kind)("list_engines")


async def test_an_answer_cut_in_the_middle_is_asked_for_again(kind: str) -> None:
    half = httpx.Response(200, stream=Cut(b'{"status": 0, ', GONE))
    script = Script(half, message(engine_data()))
    assert (await script.client(kind)("get_engine_status", "e")).available


async def test_the_token_goes_in_headers_and_into_no_error_and_no_redirect(kind: str) -> None:
    script = Script(httpx.Response(302, headers={"location": "http://elsewhere.test/"}))
    client = script.client(kind)
    with pytest.raises(EcmError, match="redirects are not followed") as error:
        await client("list_engines")
    (request,) = script.requests
    assert (request.headers["token-code"], request.headers["token-user"]) == (TOKEN, "alice")
    assert TOKEN not in str(request.url)
    assert TOKEN not in repr(client.client) + repr(error.value) + str(error.value) + repr(error.value.__dict__)
    assert error.value.__cause__ is None


async def test_a_request_that_cannot_be_sent_fails_at_once(kind: str) -> None:
    script = Script(message(engine_data()))
    with pytest.raises(EcmError, match="cannot be made"):
        await script.client(kind)("get_engine_status", "e" * 100_000)
    assert script.requests == []


async def test_an_engine_whose_making_is_refused_needs_no_end(kind: str) -> None:
    async def body(*_: Any) -> None:
        raise AssertionError("there is none")

    script = Script(refused(400, "Parameter engineType cannot be empty"))
    with pytest.raises(BadRequest):
        await script.client(kind).with_engine(body, engine_type="")
    assert len(script.requests) == 1
    # A ticket of the caller's may be an engine that others use.
    script = Script(refused(500))
    with pytest.raises(EcmError):
        await script.client(kind).with_engine(body, engine_type="python", ticket_id="mine")
    assert len(script.requests) == 1


async def test_an_engine_whose_making_is_lost_is_ended_in_haste(kind: str) -> None:
    async def body(*_: Any) -> None:
        raise AssertionError("there is none")

    script, clock = Script(GONE), Clock()
    with pytest.raises(Unavailable):
        await script.client(kind, clock).with_engine(body, engine_type="python")
    ends = [one for one in script.requests if one.url.path.endswith("terminateEngine")]
    assert ends
    assert json.loads(ends[0].content) == {"engineId": "id-0"}
    assert sum(clock.slept) <= 30.0 + 5.0


async def test_an_end_that_fails_does_not_hide_why_the_block_failed(kind: str) -> None:
    async def body(*_: Any) -> None:
        raise KeyError("mine")

    def answer(request: httpx.Request) -> httpx.Response:
        return message(engine_data()) if request.url.path.endswith("Connection") else refused(500, "Broken.")

    with pytest.raises(KeyError) as error:
        await Script(answer).client(kind).with_engine(body, engine_type="python")
    assert error.value.__notes__ == ["The engine id-0 was not ended: Broken."]

    async def well(*_: Any) -> None:
        return None

    with pytest.raises(EcmError, match="Broken"):
        await Script(answer).client(kind).with_engine(well, engine_type="python")


# -- a task's events -------------------------------------------------------------------------------------------------


def event(name: str, number: str = "", **data: Any) -> bytes:
    head = f"id: {number}\n" if number else ""
    return f"{head}event: {name}\ndata: {json.dumps({'event': name, **data})}\n\n".encode()


def stream(*pieces: bytes | Exception) -> httpx.Response:
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Cut(*pieces))


async def told(script: Script, kind: str, **options: Any) -> list[tuple[str, Any]]:
    return [(one.event, one.data.get("n")) for one in await script.client(kind)("task_events", "e", "t", **options)]


async def test_events_go_on_where_they_were_cut_and_none_comes_twice(kind: str) -> None:
    script = Script(
        stream(event("status", "0.1", n=1), event("output", n=2)[:20], GONE),
        # Sent together, with the id on the last: it was cut before that came.
        stream(event("output", n=2), event("output", n=3), GONE),
        refused(503),
        stream(b": here\n\n", event("output", n=2), event("output", "0.3", n=3)),
        stream(event("end", "0.3", n=4)),
    )
    assert await told(script, kind) == [("status", 1), ("output", 2), ("output", 3), ("end", 4)]
    assert [one.headers.get("last-event-id") for one in script.requests] == [None, "0.1", "0.1", "0.1", "0.3"]
    assert all(one.headers["accept-encoding"] == "identity" for one in script.requests)


async def test_a_place_of_the_callers_is_a_parameter(kind: str) -> None:
    script = Script(stream(event("output", "0.9", n=1), GONE), stream(event("end", n=2)))
    assert await told(script, kind, last_event_id="0.5") == [("output", 1), ("end", 2)]
    first, second = script.requests
    assert (first.url.params["lastEventId"], first.headers.get("last-event-id")) == ("0.5", None)
    assert (second.url.params.get("lastEventId"), second.headers["last-event-id"]) == (None, "0.9")


async def test_events_that_break_off_for_ever_end_with_patience(kind: str) -> None:
    script, clock = Script(lambda _: stream(event("status", "0.1", n=1), GONE)), Clock()
    with pytest.raises(Unavailable, match="broke"):
        await script.client(kind, clock)("task_events", "e", "t")
    assert sum(clock.slept) <= 31.0


async def test_a_gateway_that_hangs_before_a_stream_is_not_asked_for_ever(kind: str) -> None:
    clock = Clock()

    def hang(request: httpx.Request) -> Exception:
        clock.now += request.extensions["timeout"]["read"]
        return httpx.ReadTimeout("slow", request=request)

    for method in (("task_events", "e", "t"), ("follow_engine_log", "e")):
        began = clock.now
        with pytest.raises(TimedOut):
            await Script(hang).client(kind, clock)(*method)
        assert clock.now - began < 150.0


async def test_answers_from_the_gateway_renew_the_patience(kind: str) -> None:
    clock = Clock()

    class Alive(Cut):
        def __iter__(self) -> Any:
            for _ in range(3):
                clock.now += 10.0
                yield b": here\n\n"
            raise GONE

    script = Script(*[httpx.Response(200, stream=Alive())] * 9, stream(event("end", "0.1", n=1)))
    assert [one.event for one in await script.client(kind, clock)("task_events", "e", "t")] == ["end"]


async def test_an_engine_that_ended_while_its_task_was_followed_is_told_as_its_task(kind: str) -> None:
    task = {"taskId": "t", "engineId": "e", "status": "Lost", "final": True, "reason": "OOMKilled"}
    script = Script(
        stream(event("output", "0.1", n=1), GONE),
        refused(400, "engine has ended: ask getTask how its tasks ended"),
        message(task),
    )
    client = script.client(kind)
    found = await client("task_events", "e", "t")
    assert [one.event for one in found] == ["output", "end"]
    assert (found[-1].data["status"], found[-1].data["reason"]) == ("Lost", "OOMKilled")
    assert script.requests[-1].url.params["taskId"] == "t"


async def test_a_task_of_an_ended_engine_has_no_events(kind: str) -> None:
    with pytest.raises(BadRequest, match="ask getTask"):
        await told(Script(refused(400, "engine has ended: ask getTask how its tasks ended")), kind)


async def test_an_engine_that_the_gateway_lost_is_asked_for_again(kind: str) -> None:
    script = Script(
        stream(event("output", "0.1", n=1), event("end", status="Unknown")), stream(event("end", "0.1", n=2))
    )
    assert await told(script, kind) == [("output", 1), ("end", 2)]


async def test_a_stream_of_something_else_is_no_stream(kind: str) -> None:
    with pytest.raises(EcmError, match="no JSON object"):
        await told(Script(stream(b"data: hello\n\n")), kind)
    with pytest.raises(EcmError, match="without a stream"):
        await told(Script(message({}, http=206)), kind)


# -- logs ------------------------------------------------------------------------------------------------------------

LOG = b"".join(b"line %d\n" % n for n in range(100))


class LogServer:
    """downloadEngineLog as the gateway does it; `cuts` says after how many bytes each answer breaks off."""

    def __init__(self, *cuts: int | None) -> None:
        self.content, self.tag = LOG, '"one-790"'
        self.cuts = list(cuts)
        self.ranges: list[tuple[str | None, str | None]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("getEngineStatus"):
            return message(engine_data())
        assert request.url.params["logDirSuffix"] == "alice/20261124/python/t/logs"
        wanted, tag = request.headers.get("range"), request.headers.get("if-range")
        self.ranges.append((wanted, tag))
        headers, http, body = {"etag": self.tag}, 200, self.content
        if wanted and tag == self.tag:
            begin, end = map(int, wanted.removeprefix("bytes=").split("-"))
            http, body = 206, self.content[begin : end + 1]
            headers["content-range"] = f"bytes {begin}-{end}/{len(self.content)}"
        cut = self.cuts.pop(0) if self.cuts else None
        pieces: list[Any] = [body[:cut][:50], body[:cut][50:]] + ([GONE] if cut is not None else [])
        return httpx.Response(http, headers=headers | {"content-length": str(len(body))}, stream=Cut(*pieces))


async def test_a_download_goes_on_where_it_was_cut(kind: str, tmp_path: Path) -> None:
    server = LogServer(100, 0, 300)
    target = tmp_path / "log"
    assert await Script(server).client(kind)("download_engine_log", "e", str(target)) == len(LOG)
    assert target.read_bytes() == LOG
    end = len(LOG) - 1
    assert [wanted for wanted, _ in server.ranges] == [None, *(f"bytes={n}-{end}" for n in (100, 100, 400))]
    assert [tag for _, tag in server.ranges] == [None, *['"one-790"'] * 3]


async def test_a_download_begins_again_if_the_log_was_replaced_after_the_cut(kind: str) -> None:
    server = LogServer(200)
    script = Script(server)

    def change(request: httpx.Request) -> httpx.Response:
        answer = server(request)
        if server.ranges:
            server.content, server.tag = b"new\n", '"two-4"'
        return answer

    script.answers = [change]
    target = io.BytesIO()
    assert await script.client(kind)("download_engine_log", "e", target) == 4
    assert target.getvalue() == b"new\n"


async def test_a_file_that_cannot_begin_again_says_so(kind: str) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    server = LogServer(200)
    script = Script(server)

    def change(request: httpx.Request) -> httpx.Response:
        server.tag = f'"{len(script.requests)}-790"'
        return server(request)

    script.answers = [change]
    with pytest.raises(EcmError, match="cannot begin again"):
        await script.client(kind)("download_engine_log", "e", Pipe())


async def test_a_download_fails_if_the_log_is_replaced_each_time(kind: str, tmp_path: Path) -> None:
    server = LogServer(*[200] * 50)
    script = Script(server)

    def change(request: httpx.Request) -> httpx.Response:
        server.tag = f'"{len(script.requests)}-790"'
        return server(request)

    script.answers = [change]
    target = tmp_path / "log"
    target.write_text("as it was")
    with pytest.raises(EcmError, match="another one each time"):
        await script.client(kind)("download_engine_log", "e", target)
    assert os.listdir(tmp_path) == ["log"]
    assert target.read_text() == "as it was"


async def test_another_part_than_asked_for_is_not_taken(kind: str) -> None:
    script = Script(
        message(engine_data()),
        httpx.Response(200, headers={"content-length": "9"}, stream=Cut(b"abc", GONE)),
        httpx.Response(206, headers={"content-range": "bytes 0-8/9"}, stream=Cut(b"abcdefghi")),
    )
    with pytest.raises(EcmError, match="Another part"):
        await script.client(kind)("download_engine_log", "e", io.BytesIO())


async def test_a_missing_log_is_the_gateways_sentence_and_leaves_no_file(kind: str, tmp_path: Path) -> None:
    script = Script(message(engine_data()), refused(400, "LogFile gc does not exist"))
    with pytest.raises(BadRequest, match="LogFile gc"):
        await script.client(kind)("download_engine_log", "e", tmp_path / "log", "gc")
    assert os.listdir(tmp_path) == []


def following(offset: int, *pieces: bytes | Exception) -> httpx.Response:
    return httpx.Response(200, headers={"x-log-offset": str(offset)}, stream=Cut(*pieces))


async def test_a_followed_log_goes_on_by_its_bytes_and_silence_is_no_fault(kind: str) -> None:
    status = message(engine_data())
    silence = httpx.ReadTimeout("silence")
    script, clock = Script(
        status, following(100, "zwö".encode()[:-1], GONE),
        status, following(103, "zwö".encode()[-1:] + b"lf\r\nnext", silence),
        status, following(112, silence),
        status, following(112, b"\nlast"),
    ), Clock()  # fmt: skip
    assert await script.client(kind, clock)("follow_engine_log", "e", tail_bytes=7) == ["zwölf", "next", "last"]
    asked = [one.url.params for one in script.requests if one.url.path.endswith("followEngineLog")]
    assert (asked[0].get("fromByte"), asked[0]["tailBytes"]) == (None, "7")
    assert [one.get("fromByte") for one in asked[1:]] == ["103", "112", "112"]
    assert len(clock.slept) == 1, "after the cut alone"


async def test_a_new_pods_log_is_followed_from_its_beginning(kind: str) -> None:
    script = Script(
        message(engine_data()), following(500, b"old\n", GONE),
        message(engine_data(attempt=1)), following(0, b"new\n"),
    )  # fmt: skip
    assert await script.client(kind)("follow_engine_log", "e") == ["old", "new"]
    assert script.requests[-1].url.params["fromByte"] == "0"


async def test_a_packed_answer_is_not_unpacked(kind: str) -> None:
    """A megabyte of zeros in a kilobyte, twice packed."""
    body = gzip.compress(gzip.compress(b" " * (1 << 20)))
    packed = httpx.Response(200, headers={"content-encoding": "gzip, gzip"}, stream=Cut(body))
    script = Script(packed)
    with pytest.raises(EcmError, match="packed"):
        await script.client(kind)("get_engine_status", "e")
    assert script.requests[0].headers["accept-encoding"] == "identity"


async def test_a_packed_log_is_not_taken(kind: str) -> None:
    packed = httpx.Response(200, headers={"content-length": "3", "content-encoding": "br"}, stream=Cut(b"abc"))
    with pytest.raises(EcmError, match="or packed"):
        await Script(message(engine_data()), packed).client(kind)("download_engine_log", "e", io.BytesIO())


@pytest.mark.parametrize(("http", "error"), [(400, BadRequest), (403, Forbidden)])
async def test_an_engine_that_was_just_made_may_be_unknown_for_a_moment(
    kind: str, http: int, error: type[EcmError]
) -> None:
    unknown = refused(http, "no such engine")
    script, clock = Script(unknown, unknown, message(engine_data())), Clock()
    assert (await script.client(kind, clock)("wait_until_ready", "e")).available
    clock = Clock()
    with pytest.raises(error, match="no such engine"):
        await Script(unknown).client(kind, clock)("wait_until_ready", "e")
    assert sum(clock.slept) <= 3.0


async def test_an_engine_that_goes_on_starting_is_waited_for_as_long_as_asked(kind: str) -> None:
    starting = message(engine_data(status="Starting", available=False, message="waits for a node"))
    clock = Clock()
    with pytest.raises(TimedOut, match=r"Starting after 60 s \(waits for a node\)") as error:
        await Script(starting).client(kind, clock)("wait_until_ready", "e", timeout=60.0)
    assert (error.value.can_retry, error.value.data["engine"]["status"]) == (True, "Starting")
    assert 55.0 < sum(clock.slept) <= 60.0


async def test_a_result_that_is_gone_is_no_error_of_the_call(kind: str) -> None:
    task = {"task": {"status": "Succeed"}}
    gone = message(task, http=410, status=1, text="its outputs are gone")
    with pytest.raises(ResultGone, match="outputs are gone") as error:
        await Script(gone).client(kind)("get_task_result", "e", "t")
    assert error.value.data == task
