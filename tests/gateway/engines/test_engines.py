"""getEngineStatus, listEngines, terminateEngine, getResourceUsage: what is told, to whom, and what it changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from linkis_ecm.gateway.inventory.view import KnownEngine, engine_of_record, view_of
from linkis_ecm.gateway.routes import METHODS, OURS
from linkis_ecm.kube.errors import NotFound, Unreachable
from tools.testkit.gateway.harness import BOB_TOKEN, EM, Harness

Make = Callable[..., Awaitable[Harness]]
PAST = engine_of_record(
    ticket_id="11111111-2222-3333-4444-555555555555", label_value="alice-IDE,python-3.11", user="alice",
    service_instance="gone-0.linkis-engines.linkis:9105", ecm_instance=EM, status="Failed",
    log_dir_suffix="alice/20261124/python/x/logs", create_time=datetime(2026, 11, 24, 4, tzinfo=UTC), used_time=None,
    release_time=datetime(2026, 11, 24, 5, tzinfo=UTC), reason="OOMKilled", message="Memory ran out.",
)  # fmt: skip


def some(gw: Harness) -> None:
    """Five engines of two users; their times tell their order."""
    for number, (user, state, kind) in enumerate(
        [("alice", "Idle", "python"), ("alice", "Busy", "python"), ("bob", "Idle", "python"),
         ("alice", "Idle", "shell"), ("alice", "Failed", "python")]
    ):  # fmt: skip
        gw.engine(
            name=f"e{number}",
            spec={"user": user, "engineType": kind},
            status={"engineState": state, "engineType": kind},
            metadata={"creationTimestamp": f"2026-11-24T04:00:0{number}Z"},
        )


async def names(gw: Harness, query: dict[str, Any], **more: Any) -> list[str]:
    return [engine["name"] for engine in (await gw.get("listEngines", query, **more)).data["engines"]]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["e4", "e3", "e1", "e0"]),
        ({"status": "Idle"}, ["e3", "e0"]),
        ({"engineType": "shell"}, ["e3"]),
        ({"status": "Busy", "engineType": "python", "user": "alice"}, ["e1"]),
        ({"status": "Unlock"}, ["e3", "e0"]),
    ],
)
async def test_users_list_their_own_the_newest_first_by_what_they_ask(
    gw: Harness, query: dict[str, str], expected: list[str]
) -> None:
    some(gw)
    assert await names(gw, query) == expected


async def test_admins_list_everybodys_or_one_users(gw: Harness) -> None:
    some(gw)
    assert await names(gw, {}, user="root") == ["e4", "e3", "e2", "e1", "e0"]
    assert await names(gw, {"user": "bob"}, user="root") == ["e2"]


async def test_pages_put_together_are_the_list_and_each_knows_how_many_there_are(gw: Harness) -> None:
    some(gw)
    found = []
    for page in (1, 2, 3):
        told = (await gw.get("listEngines", {"pageNow": page, "pageSize": 2})).data
        assert (told["total"], told["pageNow"], told["pageSize"]) == (4, page, 2)
        found += [engine["name"] for engine in told["engines"]]
    assert found == ["e4", "e3", "e1", "e0"]


@pytest.mark.parametrize(
    ("query", "http", "words"),
    [
        ({"user": "bob"}, 403, "leave user out"),
        ({"status": "Sleeping"}, 400, "give one of Starting, Unlock"),
        ({"status": "Idle", "pageSize": 501}, 400, "pageSize is '501': give 500 or less"),
        ({"pageNow": 0}, 400, "pageNow is '0': give 1 or more"),
        ({"owner": "bob"}, 400, "Unknown parameter 'owner'"),
    ],
)
async def test_list_parameters_that_are_invalid_are_refused(
    gw: Harness, query: dict[str, Any], http: int, words: str
) -> None:
    some(gw)
    answer = await gw.get("listEngines", query)
    assert answer.http == http
    assert words in answer.message


async def test_an_engine_is_known_by_ticket_instance_and_name(gw: Harness) -> None:
    engine = gw.engine()
    for engine_id in (engine["metadata"]["uid"], engine["status"]["serviceInstance"], "linkis/python-alice-abc123"):
        told = (await gw.get("getEngineStatus", {"engineId": engine_id})).data
        assert (told["status"], told["available"], told["ticketId"]) == ("Idle", True, engine["metadata"]["uid"])
    others = await gw.get("getEngineStatus", {"engineId": engine["metadata"]["uid"]}, user="bob", token=BOB_TOKEN)
    assert others.http == 403
    unknown = await gw.get("getEngineStatus", {"engineId": "nobody"})
    assert "is no engine that is known here" in unknown.message


async def test_an_ended_engine_is_told_of_from_its_record_with_the_reason_and_the_remedy(make: Make) -> None:
    gw = await make(find=lambda engine_id: PAST if engine_id == PAST.ticket_id else None)
    told = (await gw.get("getEngineStatus", {"engineId": PAST.ticket_id})).data
    assert (told["status"], told["reason"], told["message"]) == ("Failed", "OOMKilled", "Memory ran out.")
    assert told["remedy"]
    assert (told["engineType"], told["creator"], told["available"]) == ("python", "IDE", False)
    usage = await gw.get("getResourceUsage", {"engineId": PAST.ticket_id})
    assert "uses nothing" in usage.message


async def test_a_stop_is_asked_for_once_and_is_a_success_each_time(gw: Harness) -> None:
    engine = gw.engine()
    body = {"engineId": engine["metadata"]["uid"]}
    for _ in range(2):
        answer = await gw.post("terminateEngine", body)
        assert answer.body["message"] == "Kill engineConn succeed."
        assert answer.data["engine"]["stopRequested"] is True
    assert gw.cluster.writes == [("patch", engine["metadata"]["name"], {"spec": {"desiredState": "Stopped"}})]
    assert (await gw.post("terminateEngine", {"engineId": "nobody"}, user="root")).data["engine"] is None


async def test_what_is_anothers_answers_as_what_is_not_there(make: Make) -> None:
    """Finding S22: names can be guessed, so the answers must not tell which exist."""
    past = replace(PAST, user="bob", ticket_id="0000aaaa-0000-0000-0000-000000000000")
    gw = await make(find=lambda engine_id: past if engine_id == past.ticket_id else None)
    engine = gw.engine(name="python-bob-1", spec={"user": "bob"})
    ids = ["linkis/python-bob-1", "linkis/python-bob-2", engine["metadata"]["uid"], past.ticket_id, "nobody"]
    for method in OURS:
        fields = {} if method.request is None else method.request.model_fields
        if "engine_id" not in fields or method.by_engine:
            continue
        answers = []
        for engine_id in ids:
            body = {"engineId": engine_id} | {
                key: value
                for key, value in (
                    ("code", "1"),
                    ("runType", "python"),
                    ("command", "status"),
                    ("taskId", "t-1"),
                    ("resources", {"memory": "2Gi"}),
                )
                if key in {field.alias for field in fields.values()}
            }
            answer = await (gw.get if method.verb == "GET" else gw.post)(method.name, body)
            answers.append((answer.http, answer.message.replace(engine_id, "ID")))
        assert len(set(answers)) == 1, (method.name, answers)
        assert answers[0][0] == 403, method.name
    assert not gw.cluster.writes


# How each further method names an engine.
OPERATION = {"__operator_name__": "engineConnLog", "logType": "stdout"}
NAMES_ENGINE: dict[str, list[Callable[[str], Any]]] = {
    "downloadEngineLog": [
        lambda engine: {"emInstance": EM, "instance": engine, "logDirSuffix": "x/logs", "logType": "stdout"},
    ],
    "reportResourceUsage": [lambda engine: {"engineId": engine, "memoryBytes": 1, "cpuSeconds": 1}],
    "getEngineConn": [lambda engine: {"instance": engine}, lambda engine: {"ticketId": engine}],
    "killEngineConn": [lambda engine: {"instance": engine}],
    "rm/enginekill": [lambda engine: [{"engineInstance": engine}]],
    "rm/enginekillAsyn": [lambda engine: {"instances": [engine]}],
    "openEngineLog": [
        lambda engine: {"emInstance": EM, "instance": engine, "parameters": {"logType": "stdout"}},
        lambda engine: {"emInstance": EM, "parameters": {"logType": "stdout", "ticketId": engine}},
        lambda engine: {"emInstance": EM, "instance": engine, "parameters": {"logType": "stdout", "logDirSuffix": "x"}},
    ],
    "executeEngineConnOperation": [lambda engine: {"instance": engine, "parameters": OPERATION}],
    "executeECMOperation": [lambda engine: {"instance": EM, "parameters": OPERATION | {"engineConnInstance": engine}}],
    "executeECMOperationByEC": [lambda engine: {"instance": engine, "parameters": OPERATION}],
}  # fmt: skip
# They name no engine, or have tests of their own: a ticket that is taken cannot be given to a new engine, and records
# answer in one sentence (tests/gateway/engines/test_linkis.py).
NAMES_NONE = {
    "createEngineConnection", "listEngines", "previewCull", "askEngineConn", "createEngineConn", "listUserEngines",
    "listEMEngines", "listAllEMs", "modifyEMInfo", "listAllNodeHealthyStatus", "listAllECMHealthyStatus",
    "ecinfo/get", "ecinfo/delete", "ecinfo/ecrHistoryList", "ecinfo/ecList", "rm/engineType", "rm/userresources",
    "whoAmI", "watchEngines", "getOverview", "listEnginePlugins",
}  # fmt: skip


async def test_linkis_methods_too_answer_anothers_as_what_is_not_there(make: Make) -> None:
    """Finding S41: a refusal told another user's name and ticket, or that there is such an engine."""
    past = replace(PAST, user="bob", ticket_id="0000aaaa-0000-0000-0000-000000000000", service_instance="past:9105")
    records = {past.ticket_id: past, past.service_instance: past}
    gw = await make(find=records.get)
    engine = gw.engine(name="python-bob-1", spec={"user": "bob"}, status={"logDirSuffix": "bob/x/logs"})
    own = gw.engine(name="own")["status"]["serviceInstance"]
    ids = [
        "linkis/python-bob-1", engine["metadata"]["uid"], engine["status"]["serviceInstance"], past.ticket_id,
        past.service_instance, "nobody:1", "linkis/nobody", "11110000-0000-0000-0000-000000000000",
    ]  # fmt: skip
    for method in METHODS:
        if method.name in NAMES_NONE or (method.request and "engine_id" in method.request.model_fields):
            assert method.name not in NAMES_ENGINE or method.by_engine, method.name
            if not method.by_engine:
                continue
        for shape in NAMES_ENGINE[method.name]:
            answers = set()
            for engine_id in ids:
                body = {"params": shape(engine_id)} if method.verb == "GET" else {"json": shape(engine_id)}
                answer = await gw.call(method.verb, method.path, headers={"Authorization": "Bearer x"}, **body)
                answers.add((answer.http, answer.raw.decode().replace(engine_id, "ID")))
            ((http, text),) = answers
            assert http in (400, 401, 403), (method.name, text)
            assert "bob" not in text, method.name
    # A ticket of another user beside an own instance is as one that is not there.
    answers = set()
    for ticket in (engine["metadata"]["uid"], past.ticket_id, ids[-1]):
        answer = await gw.call(
            "POST", "/api/rest_j/v1/linkisManager/getEngineConn", json={"instance": own, "ticketId": ticket}
        )
        answers.add((answer.http, answer.data["engine"]["serviceInstance"]["instance"]))
    assert answers == {(200, own)}
    assert not gw.cluster.writes


async def test_an_engine_of_ones_own_that_is_gone_is_stopped(make: Make) -> None:
    gw = await make(find=lambda engine_id: PAST if engine_id == PAST.ticket_id else None)
    assert (await gw.post("terminateEngine", {"engineId": PAST.ticket_id})).data["engine"] is None


async def test_an_engine_that_the_watch_lacks_is_stopped_where_the_api_server_has_it(make: Make) -> None:
    records: dict[str, KnownEngine] = {}
    gw = await make(find=records.get)
    engine = gw.engine()
    hidden = replace(view_of(engine), in_cluster=False)
    records[hidden.ticket_id] = hidden
    gw.cluster.cache.on_event("DELETED", view_of(engine))
    for engine_id in ("linkis/python-alice-abc123", hidden.ticket_id):
        gw.cluster.writes.clear()
        answer = await gw.post("terminateEngine", {"engineId": engine_id}, user="root")
        assert answer.data["engine"]["stopRequested"] is True
        assert gw.cluster.writes == [("patch", engine["metadata"]["name"], {"spec": {"desiredState": "Stopped"}})]
        gw.cluster.put(engine)
        gw.cluster.cache.on_event("DELETED", view_of(engine))
    gw.cluster.fail["get"] = Unreachable("reset")
    refused = await gw.post("terminateEngine", {"engineId": "linkis/python-alice-abc123"}, user="root")
    assert (refused.http, "try again" in refused.message) == (503, True)
    for engine_id in ("linkis/nobody", "../secrets/x", "linkis/../../secrets", "/", "nobody"):
        answer = await gw.post("terminateEngine", {"engineId": engine_id}, user="root")
        assert (answer.http, answer.data["engine"]) == (200, None)


async def test_another_users_engine_is_not_stopped(gw: Harness) -> None:
    engine = gw.engine()
    answer = await gw.post("terminateEngine", {"engineId": engine["metadata"]["uid"]}, user="bob", token=BOB_TOKEN)
    assert answer.http == 403
    assert not gw.cluster.writes
    assert (await gw.post("terminateEngine", {"engineId": engine["metadata"]["uid"]}, user="root")).http == 200


async def test_a_stop_that_the_api_server_does_not_take_says_so_and_one_of_a_gone_engine_is_done(gw: Harness) -> None:
    body = {"engineId": gw.engine()["metadata"]["uid"]}
    gw.cluster.fail["patch"] = Unreachable("reset")
    refused = await gw.post("terminateEngine", body)
    assert (refused.http, "try again" in refused.message) == (503, True)
    gw.cluster.fail["patch"] = NotFound(404, "NotFound", "gone")
    assert (await gw.post("terminateEngine", body)).http == 200


async def test_usage_is_measured_now_where_the_agent_answers(gw: Harness) -> None:
    async def agent(_: web.Request) -> web.Response:
        usage = {"memoryBytes": 100, "memoryPeakBytes": 200, "cpuSeconds": 1.5}
        return web.json_response({"state": "Idle", "attempt": 0, "sequence": 1, "usage": usage})

    _, engine = await gw.served(agent, spec={"resources": {"cpu": "250m", "memory": "2Gi"}})
    told = (await gw.get("getResourceUsage", {"engineId": engine["metadata"]["uid"]})).data
    assert told["requested"] == {"cpu": "250m", "cpuLimit": None, "memory": "2Gi", "extended": None}
    assert told["used"]["source"] == "agent"
    assert (told["used"]["memoryBytes"], told["used"]["cpuSeconds"]) == (100, 1.5)


async def test_usage_of_a_silent_agent_is_the_operators_last_word(gw: Harness) -> None:
    engine = gw.engine(status={"usage": {"memoryBytes": 7, "memoryPeakBytes": 9}, "address": ""})
    told = (await gw.get("getResourceUsage", {"engineId": engine["metadata"]["uid"]})).data
    assert (told["used"]["source"], told["used"]["memoryPeakBytes"]) == ("operator", 9)
    assert told["used"]["cpuSeconds"] is None, "nobody knows it"
    assert told["requested"] == {"cpu": "500m", "cpuLimit": None, "memory": "1Gi", "extended": None}, "the catalogue's"
