"""Plans, errors, logins, backoff, event parsing and rendering: nothing here waits or connects."""

from __future__ import annotations

import json
import random
from itertools import pairwise

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from linkis_ecm.api.models import ExecuteAnswer, ResourceRequest
from linkis_ecm.client import (
    BadRequest,
    EcmError,
    EngineFailed,
    Forbidden,
    NotLoggedIn,
    ResultGone,
    TimedOut,
    TooMany,
    Unavailable,
    methods,
    rows_of,
    tables_of,
    text_of,
)
from linkis_ecm.client.errors import error_of
from linkis_ecm.client.login import login_of
from linkis_ecm.client.protocol import ConnectionBroken, NotConnected
from linkis_ecm.client.retry import RetryPolicy, RetryRule, RetryState, retry_rule
from linkis_ecm.client.sse import SseEvent, SseParser
from linkis_ecm.client.streams import _Lines
from tests.client.support import TOKEN, URL, result_data, text

# -- plans -----------------------------------------------------------------------------------------------------------


def test_only_what_was_given_is_sent_in_the_wires_names() -> None:
    plan = methods.create_engine_connection("python", idle_timeout="30m", resources=ResourceRequest(cpu_limit="2"))
    assert plan.fields == {"engineType": "python", "idleTimeout": "30m", "resources": {"cpuLimit": "2"}}
    request = plan.request(plan.with_id("new"), seconds=1.0)
    assert json.loads(request.body or b"") == {**plan.fields, "ticketId": "new"}
    assert request.headers["Content-Type"] == "application/json"


def test_a_query_has_its_values_as_text() -> None:
    plan = methods.get_engine_logs("e", from_line=0, enable_tail=True)
    request = plan.request(plan.fields, seconds=1.0)
    assert (request.verb, request.body) == ("GET", None)
    assert request.params == {"engineId": "e", "fromLine": "0", "enableTail": "true"}


def test_an_id_of_the_callers_stays() -> None:
    assert methods.execute_code("e", "1", idempotency_key="mine").with_id("new")["idempotencyKey"] == "mine"
    assert methods.create_engine_connection("python", ticket_id="mine").with_id("new")["ticketId"] == "mine"


def test_code_with_half_a_character_is_sent_for_the_gateway_to_refuse() -> None:
    plan = methods.execute_code("e", "'\ud800'")
    assert b"\xed\xa0\x80" in (plan.request(plan.fields, seconds=1.0).body or b"")


def test_code_is_not_in_a_plans_repr() -> None:
    assert "secret" not in repr(methods.execute_code("e", "secret"))


def test_only_read_only_commands_are_repeated() -> None:
    assert methods.send_engine_command("e", "status").repeatable
    assert not methods.send_engine_command("e", "interrupt").repeatable
    assert not methods.send_engine_command("e", "restartKernel").repeatable


def test_an_answer_of_another_form_names_the_place_and_not_the_value() -> None:
    body = json.dumps({"status": 0, "data": {"taskId": "t", "engineId": ["secret"]}}).encode()
    with pytest.raises(EcmError, match=r"getTask was answered in another form \(engineId\)") as error:
        methods.get_task("e", "t").read(200, {}, body)
    assert "secret" not in str(error.value)


def test_a_task_that_ended_with_an_earlier_pod_has_no_result() -> None:
    task = {"taskId": "t", "status": "Lost", "final": True}
    body = json.dumps({"status": 0, "message": "the task of this idempotencyKey has ended: Lost", "data": task})
    with pytest.raises(ResultGone, match="has ended: Lost") as error:
        methods.execute_code("e", "1").read(200, {}, body.encode())
    assert error.value.data["task"]["status"] == "Lost"


# -- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("http", "kind", "can_retry"),
    [
        (400, BadRequest, False),
        (401, NotLoggedIn, False),
        (403, Forbidden, False),
        (404, BadRequest, False),
        (408, TimedOut, False),
        (410, ResultGone, False),
        (413, BadRequest, False),
        (429, TooMany, True),
        (500, EcmError, False),
        (502, Unavailable, False),
        (503, Unavailable, True),
        (504, TimedOut, True),
    ],
)
def test_an_error_is_the_gateways_sentence_and_of_the_statuss_kind(
    http: int, kind: type[EcmError], can_retry: bool
) -> None:
    body = json.dumps({"method": "/api/x", "status": 1, "message": "Do that.", "data": {"reason": "Why"}}).encode()
    error = error_of(http, {}, body)
    assert type(error) is kind
    assert (str(error), error.http, error.status, error.can_retry) == ("Do that.", http, 1, can_retry)
    assert error.data == {"reason": "Why"}


def test_can_retry_of_an_answer_decides_over_its_status() -> None:
    body = {"status": 1, "message": "Create engineConn failed", "data": {"canRetry": True, "engine": {}}}
    error = error_of(400, {}, json.dumps(body).encode())
    assert type(error) is EngineFailed
    assert error.can_retry


@pytest.mark.parametrize(
    ("http", "body", "said"),
    [
        (502, b"<html>Bad Gateway</html>", "something in front of the gateway: <html>Bad Gateway</html>"),
        (200, b"<html>\x1b[31mhello</html>", "no gateway of linkis-ecm: check url: <html>?[31mhello</html>"),
        (302, b"", "redirects are not followed with a token"),
        (200, b'{"status": "ok"}', "check url"),
        (200, b"\xff\xfe", "check url"),
    ],
)
def test_an_answer_that_is_no_message_is_said_to_be_none(http: int, body: bytes, said: str) -> None:
    error = error_of(http, {}, body)
    assert said in str(error)
    assert error.status is None


def test_retry_after_is_read_in_seconds_only() -> None:
    assert error_of(429, {"retry-after": "7"}, b"{}").retry_after == 7.0
    assert error_of(429, {"retry-after": "Tue, 24 Nov 2026 20:00:00 GMT"}, b"{}").retry_after is None
    assert error_of(429, {"retry-after": "-1"}, b"{}").retry_after is None


# -- who calls -------------------------------------------------------------------------------------------------------


def test_arguments_come_before_the_environment() -> None:
    environment = {"LINKIS_ECM_URL": URL, "LINKIS_ECM_TOKEN": TOKEN, "LINKIS_ECM_USER": "alice"}
    assert login_of(environment).headers() == {"Token-Code": TOKEN, "Token-User": "alice"}
    assert login_of(environment, user="bob").headers() == {"Token-Code": TOKEN, "Token-User": "bob"}
    assert login_of(environment, bearer="b").headers() == {"Authorization": "Bearer b"}
    assert login_of({"LINKIS_ECM_TOKEN": "b"}, url=URL).headers() == {"Authorization": "Bearer b"}


def test_a_bearer_function_is_asked_each_time() -> None:
    tokens = iter(["one", "two"])
    login = login_of({}, url=URL, bearer=lambda: next(tokens))
    assert [login.headers()["Authorization"] for _ in range(2)] == ["Bearer one", "Bearer two"]


@pytest.mark.parametrize(
    ("user", "sent"),
    [("jane-doe", "jane-doe"), ("jane@corp.com", "jane@corp.com"), ("张三", "_xe5_xbc_xa0_xe4_xb8_x89")],
)
def test_a_user_is_sent_by_a_name_that_a_header_holds(user: str, sent: str) -> None:
    assert login_of({}, url=URL, token=TOKEN, user=user).headers()["Token-User"] == sent


@pytest.mark.parametrize(
    "url",
    [
        "http://h:1/api/rest_j/v1/engineconnManager",
        "http://h:1/api/rest_j/v1/engineconnManager/",
        "http://h:1/api/rest_j/v1",
        "http://h:1/",
    ],
)
def test_the_url_may_have_the_rests_own_path(url: str) -> None:
    assert login_of({}, url=url, token=TOKEN).url == "http://h:1"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"url": ""}, "no url: give the gateway's"),
        ({"url": "gateway:9102"}, "no address of a gateway"),
        ({"url": "http://"}, "no address of a gateway"),
        ({"url": "http://h:99999"}, "no address of a gateway"),
        ({"url": "ftp://h"}, "no address of a gateway"),
        ({"url": "http://me:secret@h"}, "leave out names, passwords"),
        ({"url": URL}, "no token"),
        ({"url": URL, "token": "secret\nHost: x"}, "token cannot be sent"),
        ({"url": URL, "token": "t", "user": "secret ä"}, "user cannot be sent"),
        ({"url": URL, "token": "secret", "bearer": "secret"}, "both token and bearer"),
        ({"url": URL, "bearer": ""}, "bearer cannot be sent"),
    ],
)
def test_a_login_that_cannot_be_is_refused_without_its_secret(arguments: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        login_of({}, **arguments)
    assert "secret" not in str(error.value)


def test_secrets_are_in_no_repr() -> None:
    assert "secret" not in repr(login_of({}, url=URL, token="secret", user="alice"))
    assert "secret" not in repr(login_of({}, url=URL, bearer="secret"))


# -- trying again ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (NotConnected("", can_retry=True, sent=False), RetryRule.ALWAYS),
        (TooMany("", http=429, status=1, can_retry=True), RetryRule.ALWAYS),
        (Unavailable("", http=503, status=1, can_retry=True), RetryRule.IF_REPEATABLE),
        (TimedOut("", http=504, status=1, can_retry=True), RetryRule.IF_REPEATABLE),
        (Unavailable("", http=502, can_retry=True), RetryRule.IF_REPEATABLE),
        (Unavailable("", http=502, status=1), RetryRule.NEVER),
        (ConnectionBroken("", can_retry=True), RetryRule.IF_REPEATABLE),
        (BadRequest("", http=400, status=1), RetryRule.NEVER),
        (EngineFailed("", http=400, status=1, can_retry=True), RetryRule.NEVER),
        (EcmError("", http=500, status=1), RetryRule.NEVER),
    ],
)
def test_each_error_has_its_retry_rule(error: EcmError, expected: RetryRule) -> None:
    assert retry_rule(error) is expected


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def tries(time: Time, deadline: float = 1e9, seed: int = 1, **policy: float) -> RetryState:
    return RetryState(RetryPolicy(**policy), repeatable=True, deadline=deadline, clock=time, rng=random.Random(seed))


@drawn(st.integers(0, 2**32))
def test_waits_are_within_doubling_steps_and_end_with_patience(seed: int) -> None:
    time = Time()
    trying = tries(time, seed=seed, base=0.25, cap=5.0, patience=30.0)
    step, total = 0.25, 0.0
    while (wait := trying.wait(ConnectionBroken("", can_retry=True), began=time.now)) is not None:
        assert 0.0 <= wait <= step
        step, total = min(5.0, step * 2), total + wait
        time.now += wait
    assert 25.0 - 1e-9 <= total <= 30.0 + 1e-9, "the wait that was not taken would have gone over it"


def test_retry_after_is_the_least_and_not_over_patience() -> None:
    time = Time()
    wait = tries(time).wait(TooMany("", http=429, retry_after=7.0), began=0.0)
    assert wait is not None
    assert 7.0 <= wait <= 7.25
    assert tries(time).wait(TooMany("", http=429, retry_after=31.0), began=0.0) is None


def test_a_try_that_was_held_for_long_begins_patience_anew_and_the_deadline_does_not_move() -> None:
    time = Time()
    trying = tries(time, deadline=200.0, patience=30.0)
    held = 0
    while True:
        began = time.now
        time.now += 60.0
        wait = trying.wait(TimedOut("", http=504, can_retry=True), began=began)
        if wait is None:
            break
        held += 1
        time.now += wait
    assert held == 3
    # Connections that cannot be made, however long that takes, show nobody.
    trying = tries(Time(), patience=30.0)
    slow = Time()
    trying = RetryState(RetryPolicy(), repeatable=True, deadline=1e9, clock=slow, rng=random.Random(1))
    assert trying.wait(NotConnected("", can_retry=True, sent=False), began=0.0) is not None
    slow.now = 40.0
    assert trying.wait(NotConnected("", can_retry=True, sent=False), began=20.0) is None


# -- events ----------------------------------------------------------------------------------------------------------

STREAM = (
    b'\xef\xbb\xbf: a comment\r\n\r\nid: 0.1\r\nevent: output\r\ndata: {"a":\r\ndata:  1}\r\n\r\n'
    b"event: none\n\n: here\n\ndata: zw\xc3\xb6lf\rid: x\0y\rretry: 5\r\rdata\n\nid\nevent: end\ndata: {}\n\ndata: half"
)
EVENTS = [
    SseEvent("output", '{"a":\n 1}', "0.1"),
    SseEvent("message", "zwölf", ""),
    SseEvent("message", "", ""),
    SseEvent("end", "{}", ""),
]


def test_events_are_read_with_every_line_end_comments_and_what_is_unknown() -> None:
    assert SseParser().feed(STREAM) == EVENTS


@drawn(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_events_do_not_depend_on_where_the_bytes_are_cut(cuts: list[int]) -> None:
    parser, found = SseParser(), []
    edges = [0, *sorted(cuts), len(STREAM)]
    for begin, end in pairwise(edges):
        found += parser.feed(STREAM[begin:end])
    assert found == EVENTS


def test_events_are_the_same_if_read_byte_by_byte() -> None:
    parser = SseParser()
    assert [event for byte in STREAM for event in parser.feed(bytes([byte]))] == EVENTS


def test_an_event_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linkis_ecm.client.sse.MAX_EVENT_BYTES", 1000)
    parser = SseParser()
    parser.feed(b"data: " + b"x" * 900 + b"\n")
    with pytest.raises(EcmError, match="An event is over"):
        parser.feed(b"data: " + b"x" * 200 + b"\n")


@drawn(st.lists(st.text(alphabet="aö€\r ", max_size=5), max_size=8), st.lists(st.integers(0, 60), max_size=6))
def test_lines_do_not_depend_on_where_the_bytes_are_cut(lines: list[str], cuts: list[int]) -> None:
    content = "\n".join(lines).encode()
    reader, found = _Lines(), []
    edges = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    for begin, end in pairwise(edges):
        found += reader.feed(content[begin:end])
    rest = reader.rest()
    expected = [line.removesuffix("\r") for line in lines[:-1]]
    assert found == expected
    assert rest == (lines[-1] if lines else "")


# -- results ---------------------------------------------------------------------------------------------------------

TABLE = {
    "type": "table",
    "columns": [{"name": "n", "type": "int"}, {"name": "n", "type": "int"}, {"name": "long", "type": "str"}],
    "rows": [[1, 10, "x" * 50], [2, None, "a\nb"]],
    "totalRows": 2,
    "truncated": False,
}


def answer(*outputs: dict[str, object]) -> ExecuteAnswer:
    return ExecuteAnswer.model_validate(result_data(*outputs))


def test_a_table_is_rows_by_column_and_loses_none() -> None:
    assert tables_of(answer(text("x"), TABLE)) == [
        [{"n": 1, "n.1": 10, "long": "x" * 50}, {"n": 2, "n.1": None, "long": "a\nb"}]
    ]
    assert rows_of(TABLE | {"rows": []}) == []


def test_a_result_as_a_console_shows_it() -> None:
    shown = text_of(
        answer(
            text("printed", "stdout"),
            TABLE,
            {"type": "picture", "mime": "image/png", "data": "A" * 400},
            {"type": "html", "text": "<b>"},
            {"type": "error", "name": "ValueError", "value": "no", "traceback": ["Traceback:", "ValueError: no"]},
        )
    )
    assert shown.splitlines() == [
        "printed",
        "n  n.1                                      long",
        f"1   10  {'x' * 39}…",
        "2                                            a b",
        "[image/png, 300 bytes]",
        "[html]",
        "Traceback:",
        "ValueError: no",
    ]


def test_a_long_table_says_how_long_it_is() -> None:
    long = TABLE | {"rows": [[n, n, ""] for n in range(30)], "totalRows": None}
    assert text_of(answer(long)).splitlines()[-1] == "[more than 30 rows]"
    assert text_of(answer(TABLE | {"truncated": True, "totalRows": 99})).splitlines()[-1] == "[99 rows]"
    assert text_of(answer(TABLE | {"rows": []})).splitlines() == ["n  n.1  long"]
