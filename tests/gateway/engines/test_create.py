"""createEngineConnection: what it makes, that it can be repeated, and what it says when there will be no engine."""

from __future__ import annotations

import asyncio
import re
import threading
import uuid
from collections.abc import Awaitable, Callable
from typing import Any
from unittest.mock import Mock

import pytest

from linkis_ecm.engine.matching import CLAIM_ANNOTATION
from linkis_ecm.engine.names import INSTANCE
from linkis_ecm.gateway.inventory.view import KnownEngine, engine_of_record, plugin_of
from linkis_ecm.gateway.main import finder
from linkis_ecm.gateway.methods import create
from linkis_ecm.gateway.methods.create import engine_name
from linkis_ecm.gateway.settings import Settings
from linkis_ecm.kube.errors import Forbidden, Invalid, NotFound, ServerError, Unreachable
from linkis_ecm.kube.resources import CONFIGMAPS
from linkis_ecm.model.engineconn import EngineConnSpec
from tools.testkit.gateway.harness import EM, KEY, PATIENCE, PLUGIN, Harness

Make = Callable[..., Awaitable[Harness]]
TICKET = "6d48068a-0e1e-44b5-8eb2-835034db5b30"
READY = {
    "engineState": "Idle",
    "reason": "KernelReady",
    "engineType": "python",
    "engineVersion": "3.11",
    "serviceInstance": "p-0.linkis-engines.linkis:9105",
    "address": "10.0.0.1:9105",
    "startup": {
        "accepted": "2026-11-24T05:00:00.000000Z",
        "scheduled": "2026-11-24T05:00:00.100000Z",
        "ready": "2026-11-24T05:00:01.500000Z",
    },
}


def becomes(gw: Harness, *statuses: dict[str, Any]) -> None:
    """The operator writes these, one after the other, once the resource is there."""

    def created(item: dict[str, Any]) -> None:
        async def write() -> None:
            for status in statuses:
                await asyncio.sleep(0)
                gw.cluster.put(item | {"status": status})

        gw.writing = asyncio.create_task(write())  # type: ignore[attr-defined]

    gw.cluster.on_create = created


async def test_create_makes_the_resource_waits_until_ready_and_returns_the_timings(gw: Harness) -> None:
    becomes(gw, {"engineState": "Starting"}, {"engineState": "Starting", "reason": "PodCreated"}, READY)
    answer = await gw.post("createEngineConnection", {"engineType": "python", "ticketId": TICKET})
    assert answer.body["message"] == "create engineConn succeed."
    assert answer.data["ticketId"] == TICKET
    assert answer.data["status"] == "Idle"
    assert answer.data["available"] is True
    assert answer.data["serviceInstance"] == READY["serviceInstance"]
    assert answer.data["startupMillis"] == {"accepted": 0, "scheduled": 100, "ready": 1500}
    ((verb, name, body),) = gw.cluster.writes
    assert verb == "create"
    assert re.fullmatch("python-alice-[a-z2-7]{6}", name)
    assert body["spec"] == {"engineType": "python", "user": "alice", "creator": "IDE", "ticketId": TICKET}
    assert body["apiVersion"] == "linkis.apache.org/v1alpha1"
    assert body["metadata"]["namespace"] == "linkis"


async def test_each_parameter_of_create_is_in_the_spec(gw: Harness) -> None:
    asked = {
        "engineType": "python",
        "engineVersion": "3.11",
        "user": "alice",
        "creator": "notebook",
        "resources": {"cpu": "500m", "cpuLimit": "2", "memory": "1Gi"},
        "env": {"GREETING": "hi"},
        "idleTimeout": "10m",
        "startTimeout": "90s",
        "name": "mine",
        "namespace": "linkis",
        "labels": {"team": "risk"},
        "wait": False,
    }
    answer = await gw.post("createEngineConnection", asked)
    assert answer.data["status"] == "Starting"
    ((_, name, body),) = gw.cluster.writes
    assert name == "mine"
    assert body["metadata"]["labels"] == {"team": "risk"}
    spec = body["spec"]
    assert spec["resources"] == {"cpu": "500m", "cpuLimit": "2", "memory": "1Gi"}
    assert spec["env"] == [{"name": "GREETING", "value": "hi"}]
    assert (spec["idleTimeout"], spec["startTimeout"], spec["engineVersion"]) == ("10m", "90s", "3.11")
    EngineConnSpec.model_validate(spec, extra="forbid")


async def test_an_engine_names_the_installation_that_has_its_key(make: Make) -> None:
    """Another installation in the namespace would take it, and this gateway could not reach its agent. A name that is
    only guessed is not written: no operator would take the engine."""
    gw = await make()
    body = {"engineType": "python", "wait": False}
    assert (await gw.post("createEngineConnection", body)).http == 200
    ((_, _, made),) = gw.cluster.writes
    assert made["metadata"]["annotations"] == {INSTANCE: EM}
    asked = {"labels": {"engineType": "python-3.11", "userCreator": "bob-IDE"}, "timeOut": 60_000}
    becomes(gw, READY)
    await gw.call("POST", "/api/rest_j/v1/linkisManager/askEngineConn", json=asked, user="bob")
    claimed = gw.cluster.writes[-1][2]["metadata"]["annotations"]
    assert set(claimed) == {INSTANCE, CLAIM_ANNOTATION}
    assert Settings(namespace="linkis", token_key=KEY).owner == ""


async def test_the_same_ticket_makes_one_engine_however_often_it_is_sent(gw: Harness) -> None:
    becomes(gw, READY)
    body = {"engineType": "python", "ticketId": TICKET}
    answers = [await gw.post("createEngineConnection", body) for _ in range(3)]
    assert len({answer.data["name"] for answer in answers}) == 1
    assert len(gw.cluster.writes) == 1


async def test_a_replica_whose_cache_lags_finds_the_engine_by_its_name(
    gw: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(create, "WATCH_SECONDS", 0.1)
    body = {"engineType": "python", "ticketId": TICKET, "wait": False}
    first = await gw.post("createEngineConnection", body)
    item = next(iter(gw.cluster.items.values()))
    gw.cluster.drop(item)
    gw.cluster.items["linkis", item["metadata"]["name"]] = item
    again = await gw.post("createEngineConnection", body)
    assert again.data["name"] == first.data["name"]
    assert [verb for verb, *_ in gw.cluster.writes] == ["create"]


async def test_a_new_engine_is_found_and_stopped_at_once_though_the_watch_is_late(gw: Harness) -> None:
    class Late:
        """A watch that takes its time."""

        def on_event(self, kind: Any, view: Any) -> None:
            asyncio.get_running_loop().call_later(0.3, gw.engines.on_event, kind, view)

    gw.cluster.cache = Late()  # type: ignore[assignment]
    made = (await gw.post("createEngineConnection", {"engineType": "python", "wait": False})).data
    named = {"engineId": made["ticketId"]}
    assert (await gw.get("getEngineStatus", named)).data["status"] == "Starting"
    refused = await gw.post("executeCode", named | {"code": "1", "runType": "python"})
    assert "Starting" in refused.message
    assert (await gw.post("terminateEngine", named)).http == 200
    (item,) = gw.cluster.items.values()
    assert item["spec"]["desiredState"] == "Stopped"


@pytest.mark.parametrize("error", [Unreachable("reset"), ServerError(500, "InternalError", "x")])
async def test_a_create_whose_answer_was_lost_finds_the_engine_and_makes_no_second(
    gw: Harness, error: Exception
) -> None:
    becomes(gw, READY)
    gw.cluster.fail_after["create"] = error  # type: ignore[assignment]
    answer = await gw.post("createEngineConnection", {"engineType": "python"})
    assert answer.data["status"] == "Idle"
    assert len(gw.cluster.writes) == 1


@pytest.mark.parametrize(
    ("error", "http", "says"),
    [
        (Unreachable("reset"), 503, "try again with the same ticketId"),
        (ServerError(500, "InternalError", "boom"), 503, "try again with the same ticketId"),
        (Forbidden(403, "Forbidden", "exceeded quota: engines"), 400, "exceeded quota"),
        (Invalid(422, "Invalid", "spec.user: bad"), 400, "spec.user"),
        (NotFound(404, "NotFound", 'namespaces "x" not found'), 400, "namespace"),
    ],
)
async def test_a_refusal_of_the_api_server_is_in_the_answer(gw: Harness, error: Any, http: int, says: str) -> None:
    gw.cluster.fail["create"] = error
    answer = await gw.post("createEngineConnection", {"engineType": "python"})
    assert answer.http == http
    assert says in answer.message
    assert not gw.cluster.items


async def test_a_taken_name_is_tried_past_for_a_ticket_and_told_for_a_chosen_name(gw: Harness) -> None:
    first = engine_name("python", "alice", TICKET)
    gw.engine(name=first)
    answer = await gw.post("createEngineConnection", {"engineType": "python", "ticketId": TICKET, "wait": False})
    assert answer.data["name"] == engine_name("python", "alice", TICKET, 1) != first
    answer = await gw.post("createEngineConnection", {"engineType": "python", "name": first, "wait": False})
    assert answer.http == 400
    assert "is taken" in answer.message
    assert len(gw.cluster.writes) == 1


def test_names_are_host_names_whatever_users_are_called() -> None:
    name = engine_name("flink_sql", "Ann.Lee_99__", TICKET)
    assert re.fullmatch(r"flink-sql-ann-lee-99-[a-z2-7]{6}", name)
    assert re.fullmatch(r"[a-z0-9-]{1,63}", engine_name("a" * 30, "B" * 40, TICKET))
    assert re.fullmatch(r"python-x-[a-z2-7]{6}", engine_name("python", "___", TICKET))


@pytest.mark.parametrize(
    ("status", "reason", "can_retry", "says"),
    [
        (
            {"reason": "ImagePullBackOff", "message": "The image x:y cannot be pulled."},
            "ImagePullBackOff",
            False,
            "x:y",
        ),
        ({"reason": "Unschedulable"}, "Unschedulable", True, "No node takes"),
        ({"reason": "StartTimeout"}, "StartTimeout", True, "startTimeout"),
        ({"reason": "SomethingNew", "message": "words of it"}, "SomethingNew", False, "words of it"),
        ({}, "", False, "ended before"),
    ],
)
async def test_a_failed_start_tells_reason_remedy_and_whether_to_retry(
    gw: Harness, status: dict[str, str], reason: str, can_retry: bool, says: str
) -> None:
    becomes(gw, {"engineState": "Starting"}, {"engineState": "Failed"} | status)
    answer = await gw.post("createEngineConnection", {"engineType": "python"})
    assert answer.http == 400
    assert answer.body["status"] == 1
    assert answer.message.startswith("Create engineConn failed, caused by ")
    assert says in answer.message
    data = answer.body["data"]
    assert data["reason"] == reason
    assert data["canRetry"] is can_retry
    assert data["engine"]["status"] == "Failed"


async def test_an_engine_deleted_or_stopped_while_it_starts_is_said_at_once(gw: Harness) -> None:
    gw.cluster.on_create = lambda item: asyncio.get_running_loop().call_soon(gw.cluster.drop, item)  # type: ignore
    answer = await gw.post("createEngineConnection", {"engineType": "python"})
    assert answer.body["data"]["reason"] == "Deleted"
    becomes(gw, {"engineState": "ShuttingDown"})
    answer = await gw.post("createEngineConnection", {"engineType": "python"})
    assert answer.body["data"]["reason"] == "StoppedByUser"


async def test_an_engine_that_is_not_ready_in_time_goes_on_and_can_be_asked_for_again(gw: Harness) -> None:
    becomes(gw, {"engineState": "Starting", "reason": "PodScheduled"})
    body = {"engineType": "python", "ticketId": TICKET, "timeoutSeconds": 1}
    answer = await gw.post("createEngineConnection", body)
    assert answer.http == 400
    assert "Starting" in answer.message
    assert answer.body["data"]["canRetry"] is True
    assert answer.body["data"]["ticketId"] == TICKET
    (item,) = gw.cluster.items.values()
    gw.cluster.put(item | {"status": READY})
    assert (await gw.post("createEngineConnection", body)).data["status"] == "Idle"
    assert len(gw.cluster.writes) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"engineType": "cobol"}, "engineType is 'cobol': the catalogue offers python 3.11"),
        ({"engineVersion": "2.7"}, "engineVersion is '2.7'"),
        ({"engineType": ""}, "Parameter engineType cannot be empty"),
        ({"engineType": "../x"}, "Parameter engineType is '../x': use lower-case letters"),
        ({"engineType": "python\n"}, "Parameter engineType"),
        ({"engineTyp": "x", "other": 1}, "Unknown parameter 'engineTyp', 'other'"),
        ({"resources": {"memory": "lots"}}, "Parameter resources.memory is 'lots': write cpu like 500m"),
        ({"resources": {"gpu": "1"}}, "Unknown parameter 'resources.gpu'"),
        ({"resources": "1Gi"}, "Parameter resources is '1Gi': give a JSON object"),
        ({"idleTimeout": "soon"}, "Parameter idleTimeout is 'soon': write it like 90s"),
        ({"startTimeout": "0s"}, "Parameter startTimeout is '0s': startTimeout must be 1s or more"),
        ({"env": {"1BAD": "x"}}, "is '1BAD': use letters, digits and '_', and do not begin with a digit"),
        (
            {"env": {"ECM_TOKEN": "x"}},
            "Parameter env.0: env ECM_TOKEN: names that begin with ECM_ are the engine's own",
        ),
        ({"env": {"A": 7}}, "Parameter env.A is 7: give text"),
        ({"name": "Not_A_Name"}, "Parameter name is 'Not_A_Name': use lower-case letters, digits"),
        ({"namespace": "kube-system"}, "namespace is 'kube-system': engines of this gateway go to linkis"),
        ({"resources": {"memory": "0"}}, "Parameter resources.memory is '0': 0 is no limit for Kubernetes"),
        ({"resources": {"memory": 0}}, "Parameter resources.memory is 0: 0 is no limit for Kubernetes"),
        ({"resources": {"cpu": "0.4m"}}, "Parameter resources.cpu is '0.4m': 0 is no limit for Kubernetes"),
        ({"resources": {"cpuLimit": "0.0"}}, "Parameter resources.cpuLimit is '0.0': 0 is no limit for Kubernetes"),
        (
            {"resources": {"cpu": "2", "cpuLimit": "1"}},
            "spec.resources.cpu must not be above resources.cpuLimit: lower it, raise cpuLimit",
        ),
        ({"resources": {"cpu": "0.0001"}}, "Parameter resources.cpu is '0.0001': ask for 1m or more"),
        ({"resources": {"memory": "1"}}, "Parameter resources.memory is '1': ask for 32Mi or more"),
        ({"resources": {"memory": "100m"}}, "Parameter resources.memory is '100m': ask for 32Mi or more"),
        ({"labels": {"linkis.apache.org/x": "y"}}, "labels.linkis.apache.org/x"),
        ({"ticketId": "not-a-uuid"}, "Parameter ticketId is 'not-a-uuid': give a UUID in lower case"),
        ({"timeoutSeconds": 601}, "Parameter timeoutSeconds is 601: give 600 or less"),
        ({"timeoutSeconds": 0}, "Parameter timeoutSeconds is 0: give 1 or more"),
        ({"timeoutSeconds": "x"}, "Parameter timeoutSeconds is 'x': give a whole number"),
        ({"wait": "perhaps"}, "Parameter wait is 'perhaps': give true or false"),
        ({"creator": "a-b"}, "Parameter creator is 'a-b'"),
    ],
)
async def test_bad_input_is_refused_in_a_sentence_and_changes_nothing(
    gw: Harness, change: dict[str, Any], says: str
) -> None:
    answer = await gw.post("createEngineConnection", {"engineType": "python"} | change)
    assert answer.http == 400
    assert says in answer.message
    assert gw.cluster.writes == []


async def test_engine_type_is_needed(gw: Harness) -> None:
    answer = await gw.post("createEngineConnection", {})
    assert answer.http == 400
    assert "Parameter engineType is missing" in answer.message


async def test_only_an_admin_makes_engines_for_others_or_elsewhere(gw: Harness) -> None:
    answer = await gw.post("createEngineConnection", {"engineType": "python", "user": "bob"})
    assert answer.http == 403
    assert answer.body["status"] == 3
    assert "user is 'bob'" in answer.message
    body = {"engineType": "python", "user": "bob", "namespace": "elsewhere", "wait": False}
    answer = await gw.post("createEngineConnection", body, user="root")
    assert answer.data["user"] == "bob"
    assert answer.data["namespace"] == "elsewhere"


async def test_with_watched_namespaces_even_an_admin_stays_in_them(make: Make) -> None:
    gw = await make(watch_namespaces=("linkis", "team"))
    body = {"engineType": "python", "namespace": "team", "wait": False}
    assert (await gw.post("createEngineConnection", body)).data["namespace"] == "team"
    answer = await gw.post("createEngineConnection", body | {"namespace": "elsewhere"}, user="root")
    assert answer.http == 400
    assert "linkis, team" in answer.message


async def test_a_ticket_of_another_users_engine_is_refused_without_showing_the_engine(gw: Harness) -> None:
    gw.engine(spec={"user": "bob", "ticketId": TICKET})
    answer = await gw.post("createEngineConnection", {"engineType": "python", "ticketId": TICKET})
    assert answer.http == 403
    assert gw.cluster.writes == []


async def test_a_ticket_of_another_engine_type_is_refused(gw: Harness) -> None:
    gw.engine(spec={"engineType": "shell", "ticketId": TICKET}, status={"engineType": "shell"})
    answer = await gw.post("createEngineConnection", {"engineType": "python", "ticketId": TICKET})
    assert answer.http == 400
    assert "give a new ticketId" in answer.message


def past(**changes: Any) -> KnownEngine:
    fields: dict[str, Any] = {
        "ticket_id": TICKET, "label_value": "alice-IDE,python-3.11", "user": "alice", "service_instance": "p-0.s:9105",
        "ecm_instance": "e:9102", "status": "Success", "log_dir_suffix": f"alice/20261101/python/{TICKET}/logs",
        "create_time": None, "used_time": None, "release_time": None,
    }  # fmt: skip
    return engine_of_record(**(fields | changes))


async def test_the_ticket_of_an_ended_engine_is_not_used_again(make: Make) -> None:
    gw = await make(find=lambda _: past())
    answer = await gw.post("createEngineConnection", {"engineType": "python", "ticketId": TICKET})
    assert answer.http == 400
    assert "has ended (Success): give a new ticketId" in answer.message
    assert gw.cluster.writes == []


async def test_a_database_that_does_not_answer_stops_no_engine(make: Make) -> None:
    def find(_: str) -> KnownEngine:
        raise OSError("no route to database")

    gw = await make(find=find)
    body = {"engineType": "python", "ticketId": TICKET, "wait": False}
    assert (await gw.post("createEngineConnection", body)).data["ticketId"] == TICKET


async def test_what_the_ecm_is_said_to_be_is_read_while_the_database_is_asked(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_read = threading.Event()
    gw = await make(find=lambda _: None if is_read.wait(10) else past())
    get = gw.cluster.get

    async def reading(resource: Any, *names: Any, **options: Any) -> Any:
        if resource is CONFIGMAPS:
            is_read.set()
        return await get(resource, *names, **options)

    monkeypatch.setattr(gw.cluster, "get", reading)
    body = {"engineType": "python", "ticketId": TICKET, "wait": False}
    assert (await gw.post("createEngineConnection", body)).data["ticketId"] == TICKET


def test_an_id_without_a_port_is_no_service_instance_and_asks_the_database_once() -> None:
    queries = Mock()
    queries.record_by_ticket.return_value = queries.latest_record_by_instance.return_value = None
    find = finder(queries)
    assert find(TICKET) is None
    assert not queries.latest_record_by_instance.called
    assert find("pod.engines:9105") is None
    queries.latest_record_by_instance.assert_called_once_with("pod.engines:9105")


async def test_before_the_catalogue_is_read_nothing_is_made(gw: Harness) -> None:
    gw.plugins.synced = False
    answer = await gw.post("createEngineConnection", {"engineType": "python"})
    assert answer.http == 503
    assert gw.cluster.writes == []


async def test_a_client_that_leaves_while_it_waits_leaves_no_listener_behind(gw: Harness) -> None:
    made = asyncio.Event()
    gw.cluster.on_create = lambda _: made.set()
    task = asyncio.create_task(gw.post("createEngineConnection", {"engineType": "python"}))
    await asyncio.wait_for(made.wait(), PATIENCE)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    (item,) = gw.cluster.items.values()
    key = "linkis", item["metadata"]["name"]
    async with asyncio.timeout(PATIENCE):
        while key in gw.engines._listeners or gw.gateway.metrics.calls:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_without_a_ticket_each_call_makes_an_engine_with_a_ticket_of_its_own(gw: Harness) -> None:
    tickets = {
        (await gw.post("createEngineConnection", {"engineType": "python", "wait": False})).data["ticketId"]
        for _ in range(3)
    }
    assert len(tickets) == 3
    assert all(str(uuid.UUID(ticket)) == ticket for ticket in tickets)


JOB = {"engineType": "python", "mode": "once", "code": "print(1)", "runType": "python", "ttlAfterFinished": "1h"}


@pytest.mark.parametrize(
    ("state", "reason"), [("Running", "JobRunning"), ("Success", "Completed"), ("Failed", "JobFailed")]
)
async def test_a_job_is_made_and_answered_once_it_runs_or_has_run(gw: Harness, state: str, reason: str) -> None:
    becomes(gw, {"engineState": "Starting"}, READY | {"engineState": state, "reason": reason})
    answer = await gw.post("createEngineConnection", JOB)
    assert (answer.data["status"], answer.data["reason"]) == (state, reason)
    spec = gw.cluster.writes[0][2]["spec"]
    assert {name: spec[name] for name in JOB} == JOB


async def test_a_job_that_never_began_is_a_failed_creation(gw: Harness) -> None:
    becomes(gw, {"engineState": "Failed", "reason": "ImageMissing", "message": "No such image."})
    answer = await gw.post("createEngineConnection", JOB)
    assert answer.http == 400
    assert answer.message.startswith("Create engineConn failed, caused by")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"engineType": "python", "mode": "once"}, "code must be given where spec.mode is once"),
        ({"engineType": "python", "code": "1"}, "code and runType belong to mode once"),
        ({"engineType": "python", "mode": "twice"}, "mode"),
    ],
)
async def test_a_job_without_code_or_code_without_a_job_is_refused(gw: Harness, body: Any, told: str) -> None:
    answer = await gw.post("createEngineConnection", body)
    assert answer.http == 400
    assert told in answer.message
    assert not gw.cluster.writes


async def test_a_type_of_several_versions_without_a_default_needs_a_version(gw: Harness) -> None:
    for version in ("3.4", "3.5"):
        spec = PLUGIN["spec"] | {"engineType": "spark", "engineVersion": version, "default": False}
        gw.plugins.on_event("ADDED", plugin_of({"metadata": {"name": f"spark-{version}"}, "spec": spec}))
    refused = await gw.post("createEngineConnection", {"engineType": "spark", "wait": False})
    assert refused.http == 400
    assert refused.message.startswith("engineType spark has several versions and none is the default")
    assert not gw.cluster.writes
    made = await gw.post("createEngineConnection", {"engineType": "spark", "engineVersion": "3.4", "wait": False})
    assert made.http == 200
