"""Linkis's own REST: its paths, shapes and texts, and nobody else's engine, log or record."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy import insert

from linkis_ecm.gateway.main import finder
from linkis_ecm.gateway.settings import Settings
from linkis_ecm.store import schema
from linkis_ecm.store.linkis import record
from linkis_ecm.store.queries import Queries
from linkis_ecm.store.rows import naive
from tools.testkit.gateway.harness import BOB_TOKEN, EM, Answer, Harness
from tools.testkit.gateway.replicas import NOW
from tools.testkit.gateway.stores import database_in

Make = Callable[..., Awaitable[Harness]]
LINKIS = "/api/rest_j/v1/linkisManager"
ECM = "linkis-cg-engineconnmanager"
LABELS = {"engineType": "python-3.11", "userCreator": "alice-IDE"}
USED = '{"instance":1,"memory":"512.0 MB","cpu":2}'


def row(ticket: str, user: str = "alice", **more: Any) -> dict[str, Any]:
    return {
        "label_value": f"{user}-IDE,python-3.11", "create_user": user, "service_instance": f"{ticket}.engines:9105",
        "ecm_instance": EM, "ticket_id": ticket, "status": "Success", "log_dir_suffix": f"{user}/python/{ticket}/logs",
        "request_times": 1, "request_resource": USED, "used_times": 1, "used_resource": USED,
        "metrics": '{"ticketId":"t"}', "release_times": 1, "released_resource": None, "release_time": naive(NOW),
        "used_time": naive(NOW), "create_time": naive(NOW),
    } | more  # fmt: skip


@pytest.fixture
def queries(tmp_path: Path) -> Iterator[Queries]:
    old = row("t-old", create_time=naive(NOW - timedelta(days=40)))
    with database_in(tmp_path) as database:
        with database.begin() as connection:
            connection.execute(insert(record), [row("t-1"), row("t-2", status="Failed"), row("t-bob", "bob"), old])
        yield Queries(database)


@pytest.fixture
async def gw(make: Callable[..., Awaitable[Harness]], queries: Queries) -> Harness:
    return await make(find=finder(queries), database={"records": queries}, now=NOW)


async def send(gw: Harness, path: str, body: Any, *, verb: str = "POST", **more: Any) -> Answer:
    return await gw.call(verb, f"{LINKIS}/{path}", json=body, **more)


async def get(gw: Harness, path: str, query: Any = None, **more: Any) -> Answer:
    return await gw.call("GET", f"{LINKIS}/{path}", params=query or {}, **more)


def becomes_ready(gw: Harness) -> None:
    """An operator that makes each new engine Idle at once."""

    def ready(item: dict[str, Any]) -> None:
        status = {
            "engineState": "Idle", "address": "127.0.0.1:1", "engineType": "python", "engineVersion": "3.11",
            "serviceInstance": f"{item['metadata']['name']}:9105",
        }  # fmt: skip
        gw.cluster.put(item | {"status": status})

    gw.cluster.on_create = ready


async def test_an_engine_is_created_asked_for_again_and_killed(gw: Harness) -> None:
    becomes_ready(gw)
    properties = {"wds.linkis.engineconn.java.driver.memory": "1g", "of.another": "engine"}
    asked = {"labels": LABELS, "properties": properties, "timeout": 5000, "user": "root"}
    made = await send(gw, "createEngineConn", asked)
    assert made.message == "create engineConn succeed."
    engine = made.data["engine"]
    assert (engine["ecAsyncStartResult"], engine["nodeStatus"]) == ("success", "Unlock")
    assert engine["serviceInstance"]["applicationName"] == "linkis-cg-engineconn"
    assert engine["ecmServiceInstance"]["instance"] == EM
    view = gw.engines.resolve(engine["ticketId"])
    assert view is not None
    assert (view.user, view.memory_bytes) == ("alice", 1 << 30), "the login, whatever the request says"
    again = await send(gw, "askEngineConn", {"labels": LABELS, "timeOut": 5000})
    assert again.message == "reuse engineConn ended."
    assert again.data["engine"]["ticketId"] == engine["ticketId"]
    other = await send(gw, "askEngineConn", {"labels": LABELS | {"userCreator": "alice-job"}, "timeOut": 5000})
    assert other.message == "create engineConn ended."
    listed = (await get(gw, "listUserEngines")).data["engines"]
    assert {node["ticketId"] for node in listed} == {engine["ticketId"], other.data["engine"]["ticketId"]}
    assert (await get(gw, "listUserEngines", user="bob")).data["engines"] == []
    body = {"applicationName": "linkis-cg-engineconn", "instance": engine["serviceInstance"]["instance"]}
    refused = await send(gw, "killEngineConn", body, user="bob")
    assert (refused.http, refused.body["status"]) == (403, 3)
    killed = await send(gw, "killEngineConn", body)
    assert (killed.http, killed.message) == (200, "Kill engineConn succeed.")
    after = gw.engines.resolve(engine["ticketId"])
    assert after is not None
    assert after.stop_requested


async def test_an_engine_that_cannot_be_created_is_refused_in_linkis_words(gw: Harness) -> None:
    refused = await send(gw, "createEngineConn", {"labels": {"engineType": "cobol-1", "userCreator": "alice-IDE"}})
    assert refused.http == 400
    assert refused.message.startswith("Create engineConn failed, caused by ")
    late = await send(gw, "createEngineConn", {"labels": LABELS, "timeout": 1000})
    assert late.body["data"]["canRetry"] is True
    left = gw.engines.resolve(late.body["data"]["ticketId"])
    assert left is not None
    assert left.stop_requested, "Linkis's client cannot name the engine when it asks again"
    for labels in ({}, {"engineType": ""}, {"engineType": 7}):
        answer = await send(gw, "askEngineConn", {"labels": labels})
        assert answer.http == 400
        assert "engineType" in answer.message


@pytest.mark.parametrize(
    ("label", "value"),
    [
        ("userCreator", "hadoop"), ("userCreator", "-IDE"), ("userCreator", "hadoop-"), ("userCreator", " -IDE"),
        ("userCreator", {"user": "hadoop"}), ("userCreator", {"creator": "IDE", "user": ""}),
        ("userCreator", {"creator": 5}),
        ("userCreator", {"stringValue": "hadoop"}), ("engineType", "-3.11"), ("engineType", "python-"),
        ("engineType", {"version": "3.11"}), ("engineType", {"stringValue": "python-"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["askEngineConn", "createEngineConn"])
async def test_a_label_with_one_part_of_two_is_refused_by_its_name_and_form(
    gw: Harness, method: str, label: str, value: Any
) -> None:
    refused = await send(gw, method, {"labels": LABELS | {label: value}})
    assert refused.http == 400
    form = {"userCreator": "user-creator, such as hadoop-IDE", "engineType": "type-version, such as python-3.11"}
    assert f"Label {label} is " in refused.message
    assert f"give labels.{label} as {form[label]}" in refused.message
    assert not gw.cluster.writes


async def test_a_creator_by_its_name_is_the_callers_own(gw: Harness) -> None:
    """As our client asks, which does not know whose a bearer token is."""
    becomes_ready(gw)
    await send(gw, "createEngineConn", {"labels": LABELS | {"userCreator": {"creator": "nightly"}}, "timeout": 5000})
    (written,) = [body for verb, _, body in gw.cluster.writes if verb == "create"]
    assert (written["spec"]["creator"], written["spec"]["user"]) == ("nightly", "alice")
    for creator in ("", "-", "a-b"):
        refused = await send(gw, "createEngineConn", {"labels": LABELS | {"userCreator": {"creator": creator}}})
        assert refused.http == 400
        assert "reator" in refused.message


@pytest.mark.parametrize("value", ["python", {"engineType": "python"}, {"stringValue": "python"}])
async def test_an_engines_type_alone_is_its_default_version(gw: Harness, value: Any) -> None:
    becomes_ready(gw)
    made = await send(gw, "createEngineConn", {"labels": LABELS | {"engineType": value}, "timeout": 5000})
    assert made.message == "create engineConn succeed."


@pytest.mark.parametrize("method", ["askEngineConn", "createEngineConn"])
@pytest.mark.parametrize("name", ["timeOut", "timeout"])
@pytest.mark.parametrize(("millis", "used"), [(3_600_000, 600_000), (600_001, 600_000), (999, 1000), (1, 1000)])
async def test_a_timeout_out_of_bounds_is_told_with_what_it_counts_as(
    gw: Harness, method: str, name: str, millis: int, used: int
) -> None:
    becomes_ready(gw)
    made = await send(gw, method, {"labels": LABELS, name: millis})
    assert made.http == 200, "Linkis's clients go by the status"
    word = "create engineConn ended." if method == "askEngineConn" else "create engineConn succeed."
    assert made.message == (f"{word} The timeout of {millis} ms counts as {used}: give 1000 to 600000 milliseconds.")
    (written,) = [body for verb, _, body in gw.cluster.writes if verb == "create"]
    assert written["spec"]["creator"] == "IDE"


@pytest.mark.parametrize(("method", "name"), [("askEngineConn", "timeout"), ("createEngineConn", "timeOut")])
async def test_the_other_calls_name_of_the_timeout_counts_and_a_short_one_is_told_in_the_refusal(
    gw: Harness, method: str, name: str
) -> None:
    late = await send(gw, method, {"labels": LABELS, name: 10})
    assert "after 1 s: it is stopped" in late.message
    assert late.message.endswith("The timeout of 10 ms counts as 1000: give 1000 to 600000 milliseconds.")


async def test_an_engine_for_a_once_job_is_told_of_at_once(gw: Harness) -> None:
    made = await send(gw, "createEngineConn", {"labels": LABELS | {"engineConnMode": "once"}, "timeout": 1000})
    engine = made.data["engine"]
    assert (engine["nodeStatus"], engine["serviceInstance"]["instance"]) == ("Starting", engine["ticketId"])
    view = gw.engines.resolve(engine["ticketId"])
    assert view is not None
    assert not view.stop_requested


async def test_a_killed_engine_is_no_success_to_linkis(gw: Harness) -> None:
    ends = {"StoppedByUser": "ShuttingDown", "Deleted": "ShuttingDown", "IdleTimeout": "Success"}
    for reason, word in ends.items():
        ticket = gw.engine(name=reason.lower(), status={"engineState": "Success", "reason": reason})["metadata"]["uid"]
        told = (await send(gw, "getEngineConn", {"ticketId": ticket})).data["engine"]
        assert told["nodeStatus"] == word


async def test_a_node_is_told_where_its_agent_does_not_answer(gw: Harness) -> None:
    ticket = gw.engine(name="dead")["metadata"]["uid"]
    told = (await send(gw, "getEngineConn", {"ticketId": ticket})).data
    assert (told["engine"]["nodeStatus"], told["ecMetrics"]) == ("Unlock", "{}")
    assert told["engine"]["ecmServiceInstance"]["instance"] == EM


async def test_a_token_with_a_name_like_an_admins_makes_nobody_an_admin(settings: Settings, make: Make) -> None:
    """Linkis takes any token with ADMIN- in it for an admin's; ours are admins by name alone."""
    Path(settings.tokens_file).write_text(json.dumps({"TEAM-ADMIN-7": {"users": ["alice"]}}))  # noqa: ASYNC240
    gw = await make()
    engine = gw.engine(name="python-bob-1", spec={"user": "bob"})
    body = {"instances": [engine["status"]["serviceInstance"]]}
    refused = await gw.call("POST", f"{LINKIS}/rm/enginekillAsyn", json=body, token="TEAM-ADMIN-7")
    assert "has no permission to asyn kill engines" in refused.message
    assert not gw.cluster.writes


@pytest.mark.parametrize("path", ["rm/enginekill", "rm/enginekillAsyn"])
async def test_killing_another_users_engine_is_refused(gw: Harness, path: str) -> None:
    instance = gw.engine(name="python-bob-1", spec={"user": "bob"})["status"]["serviceInstance"]

    def body(name: str) -> Any:
        return [{"engineInstance": name}] if path == "rm/enginekill" else {"instances": [name]}

    def stopped() -> bool:
        view = gw.engines.resolve(instance)
        return view is not None and view.stop_requested

    assert (await send(gw, path, body(instance))).http in (400, 403)
    assert not stopped()
    assert (await send(gw, path, body(instance), user="root")).message == "Kill engineConn succeed."
    assert stopped()
    assert (await send(gw, path, body("gone:1"), user="root")).http == 200


async def test_an_own_engine_that_has_ended_is_killed_and_one_that_nobody_knows_is_no_strangers_to_ask_for(
    gw: Harness,
) -> None:
    assert (await send(gw, "killEngineConn", {"instance": "t-1.engines:9105"})).message == "Kill engineConn succeed."
    for instance in ("t-bob.engines:9105", "nobody:1"):
        refused = await send(gw, "killEngineConn", {"instance": instance})
        assert (refused.http, refused.message) == (403, f"You have no permission to kill EngineConn {instance}")
    assert not gw.cluster.writes


REFUSED = {"engineState": "Failed", "reason": "InvalidSpec", "message": "The ticket is taken.", "address": ""}


@pytest.mark.parametrize("status", [REFUSED, {"engineState": None, "startup": None, "address": ""}])
async def test_the_ticket_that_an_author_wrote_gives_no_metrics_of_another_and_takes_no_access(
    gw: Harness, status: dict[str, Any]
) -> None:
    """Finding S42: alice's EngineConn names bob's ticket in its spec."""
    status = status | {"serviceInstance": None, "logDirSuffix": None}
    thief = gw.engine(name="thief", uid="uid-thief", spec={"ticketId": "t-bob"}, status=status)
    for engine_id in ("linkis/thief", "t-bob"):
        answer = await gw.get("getEngineMetrics", {"engineId": engine_id})
        if engine_id == "t-bob":
            assert answer.http == 403
        else:
            assert answer.data["kept"] == {}
    node = await send(gw, "getEngineConn", {"instance": "linkis/thief"})
    assert node.data["ecMetrics"] == "{}"
    # The owner still has his record by its ticket and by its instance.
    for engine_id in ("t-bob", "t-bob.engines:9105"):
        told = (await gw.get("getEngineStatus", {"engineId": engine_id}, user="bob", token=BOB_TOKEN)).data
        assert (told["user"], told["status"]) == ("bob", "Success")
    kept = (await gw.get("getEngineMetrics", {"engineId": "t-bob"}, user="bob", token=BOB_TOKEN)).data["kept"]
    assert kept == {"ticketId": "t"}
    body = {"instance": "t-bob", "parameters": {"__operator_name__": "status"}}
    refused = await gw.call("POST", f"{LINKIS}/killEngineConn", json=body | {"parameters": None})
    assert refused.http in (400, 403)
    made = await gw.post(
        "createEngineConnection", {"engineType": "python", "ticketId": "t-bob"}, user="bob", token=BOB_TOKEN
    )
    assert thief["metadata"]["name"] not in made.message
    # And may delete it, whatever engine of another user names its ticket.
    assert (await gw.call("DELETE", f"{LINKIS}/ecinfo/delete/t-bob", user="bob", token=BOB_TOKEN)).http == 200


async def test_a_refused_engine_is_still_found_by_a_ticket_that_is_nobody_elses(gw: Harness) -> None:
    gw.engine(name="bad", uid="uid-bad", spec={"ticketId": "t-new"}, status=REFUSED)
    told = (await gw.get("getEngineStatus", {"engineId": "t-new"})).data
    assert (told["reason"], told["message"]) == ("InvalidSpec", "The ticket is taken.")


async def test_metrics_are_of_the_uid_that_the_store_has_for_the_ticket(gw: Harness, queries: Queries) -> None:
    """Of one user too: the store says whose row it is, and not the ticket."""
    with queries._engine.begin() as connection:
        connection.execute(
            insert(schema.engine),
            [{"ticket_id": "t-1", "uid": "uid-1", "namespace": "linkis", "name": "first", "as_of": 1, "written": 1,
              "final": True, "reason": "", "message": ""}],
        )  # fmt: skip
    ended = {"engineState": "Success", "address": "", "reason": "StoppedByUser"}
    for name, uid, expected in (("first", "uid-1", {"ticketId": "t"}), ("second", "uid-2", {})):
        gw.engine(name=name, uid=uid, spec={"ticketId": "t-1"}, status=ended)
        answer = await gw.get("getEngineMetrics", {"engineId": f"linkis/{name}"})
        assert answer.data["kept"] == expected, name
        unknown = ("totalIdleTimeMills", "totalBusyTimeMills", "tasksStarted", "tasksSucceeded", "tasksFailed")
        assert [answer.data[figure] for figure in unknown] == [None] * 5, "what nobody knows is no zero"


async def test_a_node_is_told_from_the_cluster_or_its_record(gw: Harness) -> None:
    ticket = gw.engine(name="x", status={"address": ""})["metadata"]["uid"]
    assert (await send(gw, "getEngineConn", {"instance": ticket})).data["engine"]["nodeStatus"] == "Unlock"
    past = await send(gw, "getEngineConn", {"instance": "t-1.engines:9105"})
    assert past.data["engine"]["nodeStatus"] == "Success"
    assert past.data["ecMetrics"] == '{"ticketId":"t"}'
    other = await send(gw, "getEngineConn", {"ticketId": "t-bob"})
    assert other.message == "You have no permission to access EngineConn t-bob"
    none = await send(gw, "getEngineConn", {"instance": "nobody:1"}, user="root")
    assert none.message == "Instance does not exist nobody:1"


async def test_an_admin_reads_the_ecm_with_the_resources_of_its_engines(gw: Harness) -> None:
    refused = await get(gw, "listAllEMs")
    assert refused.body["data"]["errorMsg"]["errCode"] == 210003
    gw.engine(name="a", spec={"resources": {"cpu": "1500m", "memory": "1Gi"}})
    gw.engine(name="b", spec={"resources": {"cpu": "500m", "memory": "1Gi"}})
    quota = {
        "metadata": {"name": "q"},
        "spec": {"hard": {"requests.cpu": "8", "requests.memory": "16Gi", "pods": "10"}},
    }
    gw.cluster.other_pods["resourcequotas", "q"] = quota
    (em,) = (await get(gw, "listAllEMs", user="root")).data["EMs"]
    assert (em["applicationName"], em["instance"], em["nodeHealthy"]) == (ECM, EM, "Healthy")
    assert em["usedResource"] == {"memory": 2 << 30, "cores": 2, "instance": 2, "instances": 2}
    assert em["leftResource"] == {"memory": 14 << 30, "cores": 6, "instance": 8, "instances": 8}
    assert (em["quota"], em["usedCpuMilli"]) == ({"cpuMilli": 8000, "memory": 16 << 30, "instance": 10}, 2000)
    assert (await get(gw, "listAllEMs", {"instance": "other"}, user="root")).data["EMs"] == []
    gw.cluster.other_pods["resourcequotas", "r"] = {
        "metadata": {"name": "r"},
        "spec": {"hard": {"limits.memory": "9Gi"}},
    }
    (em,) = (await get(gw, "listAllEMs", user="root")).data["EMs"]
    assert em["leftResource"]["memory"] == 7 << 30
    body = {"em": {"serviceInstance": {"applicationName": ECM, "instance": EM}}, "engineType": "python"}
    engines = (await send(gw, "listEMEngines", body, user="root")).data["engines"]
    assert {vo["usedResource"]["memory"] for vo in engines} == {1 << 30}
    assert "Only admin can search engine information" in (await send(gw, "listEMEngines", body)).message


async def test_an_ecm_without_quotas_says_that_nothing_limits_it(gw: Harness) -> None:
    gw.engine(name="a", spec={"resources": {"cpu": "500m", "memory": "1Gi"}})
    (em,) = (await get(gw, "listAllEMs", user="root")).data["EMs"]
    assert (em["quota"], em["usedCpuMilli"]) == ({"cpuMilli": None, "memory": None, "instance": None}, 500)
    assert em["maxResource"] == em["usedResource"], "Linkis's own fields have no word for it"


async def test_an_ecm_that_an_admin_has_drained_takes_no_engines(gw: Harness) -> None:
    body = {"applicationName": ECM, "instance": EM, "emStatus": "UnHealthy", "labels": [], "description": "night"}
    assert "Only admin can modify ECMs" in (await send(gw, "modifyEMInfo", body, verb="PUT")).message
    assert (await send(gw, "modifyEMInfo", body, verb="PUT", user="root")).message == "success"
    (em,) = (await get(gw, "listAllEMs", user="root")).data["EMs"]
    assert (em["nodeHealthy"], em["description"]) == ("UnHealthy", "night")
    refused = await send(gw, "createEngineConn", {"labels": LABELS})
    assert "this ECM is UnHealthy" in refused.message
    assert refused.body["data"]["canRetry"] is True
    assert (await send(gw, "modifyEMInfo", body | {"emStatus": "Asleep"}, verb="PUT", user="root")).http == 400
    twice = [{"labelKey": "tenant", "stringValue": "a"}] * 2
    repeat = await send(gw, "modifyEMInfo", body | {"labels": twice}, verb="PUT", user="root")
    assert "include repeat labels" in repeat.message


async def test_the_names_of_states(gw: Harness) -> None:
    names = (await get(gw, "listAllNodeHealthyStatus", {"onlyEditable": "true"})).data["nodeStatus"]
    assert names[:3] == ["Starting", "Unlock", "Locked"]
    healthy = (await get(gw, "listAllECMHealthyStatus")).data["nodeHealthy"]
    assert healthy == ["Healthy", "UnHealthy", "WARN", "StockAvailable", "StockUnavailable"]


async def page(_: web.Request) -> web.StreamResponse:
    return web.json_response({"logs": ["a", "b"], "endLine": 2, "rows": 2})


async def test_a_log_is_opened_from_its_end_for_its_owner(gw: Harness) -> None:
    agent, engine = await gw.served(page)
    suffix = engine["status"]["logDirSuffix"]
    parameters = {"logType": "stdout", "fromLine": 0, "pageSize": 1000, "logDirSuffix": suffix}
    body = {"emInstance": EM, "instance": engine["status"]["serviceInstance"], "parameters": parameters}
    assert (await send(gw, "openEngineLog", body)).data == {
        "result": {"logs": ["a", "b"], "rows": 2, "endLine": 2, "logPath": f"{suffix}/stdout"},
        "errorMsg": "", "isError": False,
    }  # fmt: skip
    assert "tail=true" in agent.requests[0][1]
    refused = await send(gw, "openEngineLog", body, user="bob")
    assert refused.message.startswith("You have no permission to get log with path:")
    for wrong in ("/etc", "../../x", suffix + "/.."):
        other = await send(gw, "openEngineLog", body | {"parameters": parameters | {"logDirSuffix": wrong}})
        assert "You have no permission" in other.message
    bad = await send(gw, "openEngineLog", body | {"parameters": {"logType": "passwd"}})
    assert bad.body["data"]["errorMsg"]["errCode"] == 210003
    told = (await send(gw, "openEngineLog", body | {"parameters": parameters | {"lastRows": 5001}})).data
    assert told["isError"] is True
    assert "Cannot fetch more than 5000 lines" in told["errorMsg"]


async def test_operations_answer_in_data_and_run_no_shell(gw: Harness) -> None:
    _, engine = await gw.served(page)
    instance = engine["status"]["serviceInstance"]
    unknown = await send(gw, "executeEngineConnOperation", {"instance": "no:1", "parameters": {}}, user="root")
    assert unknown.data == {"result": {}, "errorMsg": "Ec : no:1 not found.", "isError": True}
    refused = await send(gw, "executeEngineConnOperation", {"instance": instance, "parameters": {}}, user="bob")
    assert refused.message == f"You have no permission to execute Engine Operation {instance}"
    shell = {"__operator_name__": "engineConnYarnLog", "yarnApplicationId": "x; id", "creator": "root"}
    told = (await send(gw, "executeECMOperation", {"instance": EM, "parameters": shell})).data
    assert (told["isError"], told["result"]) == (True, {})
    assert "20030" in told["errorMsg"]
    log = {"__operator_name__": "engineConnLog", "engineConnInstance": instance, "logType": "stdout"}
    assert (await send(gw, "executeECMOperation", {"instance": EM, "parameters": log})).data["result"]["rows"] == 2
    by_ec = {"instance": instance, "parameters": {"__operator_name__": "engineConnLog"}}
    assert (await send(gw, "executeECMOperationByEC", by_ec)).data["result"]["logs"] == ["a", "b"]
    assert (await send(gw, "executeECMOperationByEC", by_ec, user="bob")).http == 400


async def test_records_are_their_owners_and_admins(gw: Harness) -> None:
    mine = (await get(gw, "ecinfo/get", {"ticketid": "t-1"})).data["ecResourceInfoRecord"]
    assert (mine["usedResource"], mine["engineType"]) == (USED, "python")
    for ticket in ("t-bob", "nobody"):
        refused = await get(gw, "ecinfo/get", {"ticketid": ticket})
        assert refused.message == f"tickedId not exist:{ticket}"
    assert (await get(gw, "ecinfo/get", {"ticketid": "t-bob"}, user="root")).http == 200


async def test_the_history_is_todays_and_ones_own_unless_asked(gw: Harness) -> None:
    listed = (await get(gw, "ecinfo/ecrHistoryList")).data
    assert {vo["ticketId"] for vo in listed["engineList"]} == {"t-1", "t-2"}
    assert listed["totalPage"] == 2
    assert listed["engineList"][0]["usedResource"] == {"cores": 2, "memory": 512 << 20, "instance": 1}
    assert "metrics" not in listed["engineList"][0]
    failed = (await get(gw, "ecinfo/ecrHistoryList", {"status": "Failed"})).data
    assert [vo["ticketId"] for vo in failed["engineList"]] == ["t-2"]
    start = (NOW - timedelta(days=50)).strftime("%Y-%m-%d %H:%M:%S")
    old = (await get(gw, "ecinfo/ecrHistoryList", {"startDate": start, "creator": "bob"})).data
    assert {vo["ticketId"] for vo in old["engineList"]} == {"t-1", "t-2", "t-old"}, "not bob's"
    assert (await get(gw, "ecinfo/ecrHistoryList", user="root")).data["totalPage"] == 3
    for query, name in (({"creator": "x' or 1"}, "creator"), ({"startDate": "yesterday"}, "startDate")):
        refused = await get(gw, "ecinfo/ecrHistoryList", query)
        assert refused.http == 400
        assert name in refused.message


async def test_a_record_is_deleted_by_its_owner_once_its_engine_is_gone(gw: Harness, queries: Queries) -> None:
    refused = await gw.call("DELETE", f"{LINKIS}/ecinfo/delete/t-bob}}")
    assert refused.message == "tickedId not exist:t-bob"
    assert queries.record_by_ticket("t-bob") is not None
    assert (await gw.call("DELETE", f"{LINKIS}/ecinfo/delete/t-1}}")).http == 200
    assert queries.record_by_ticket("t-1") is None
    assert (await gw.call("DELETE", f"{LINKIS}/ecinfo/delete/t-2")).http == 200


async def test_running_engines_are_listed_for_admins_and_summed_for_users(gw: Harness) -> None:
    gw.engine(name="a", spec={"resources": {"cpu": "1", "memory": "1Gi"}})
    assert (await send(gw, "ecinfo/ecList", {})).http == 400
    (one,) = (await send(gw, "ecinfo/ecList", {"creators": ["IDE"]}, user="root")).data["ecList"]
    assert one["useResource"]["driver"]["memory"] == 1 << 30
    assert (await send(gw, "ecinfo/ecList", {"engineTypes": ["spark"]}, user="root")).data["ecList"] == []
    assert (await get(gw, "rm/engineType")).data["engineType"] == ["python"]
    (group,) = (await send(gw, "rm/userresources", {})).data["userResources"]
    assert group["engineTypes"][0]["usedResource"]["cores"] == 1


async def test_two_askers_at_once_do_not_wait_for_each_other(gw: Harness) -> None:
    becomes_ready(gw)
    asked = [send(gw, "createEngineConn", {"labels": LABELS, "timeout": 5000}) for _ in range(5)]
    made = await asyncio.gather(*asked)
    assert len({answer.data["engine"]["ticketId"] for answer in made}) == 5
