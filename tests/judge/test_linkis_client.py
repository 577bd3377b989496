"""Linkis's own client (linkis-computation-client 1.7.0) drives this gateway: what its objects understood.

One run of the script in GatewayScript.java, over a cluster in memory with an operator that acts by an engine's creator,
a real SQLite store, and a real agent with a real kernel behind the once job. Each test judges some of its steps.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert, update

from linkis_ecm.gateway.settings import Settings
from linkis_ecm.model import reasons
from linkis_ecm.store.linkis import record
from tests.judge.build import BUILD_SECONDS, judge
from tools.testkit.agents.keys import agent_key_of, key_status
from tools.testkit.agents.process import AgentProcess
from tools.testkit.gateway.harness import EM, KEY, TOKEN, Harness
from tools.testkit.gateway.stores import store_in

# Cold, the first of these tests builds the judge.
pytestmark = pytest.mark.timeout(BUILD_SECONDS + 120)

ENGINECONN, ECM, MANAGER = "linkis-cg-engineconn", "linkis-cg-engineconnmanager", "linkis-cg-linkismanager"
# The once job's engine: its agent must know its token beforehand.
UID = "5b3c36b4-7f0e-4e52-9f0a-3f4f6f6f0001"
LINES = 250
# Seconds after which the gateway gives an agent or a client up; the script gives the gateway up after 20.
GIVEN_UP = 30.0
ENDED = "2026-11-24T06:00:00Z"
USED = '{"instance":1,"memory":"1.0 GB","cpu":1}'
Steps = dict[str, dict[str, Any]]


class Operator:
    """What the operator does, by the engine's creator: IDE and second become ready, broken fails, others stay Starting.

    IDE becomes so a moment later, as a pod does, so that the once job's client has to ask until it runs.
    """

    def __init__(self, gateway: Harness, database: Engine, agent: AgentProcess) -> None:
        self.gateway, self.database, self.agent = gateway, database, agent
        gateway.cluster.on_create = self.created
        patch = gateway.cluster.patch

        async def patched(*given: Any, **more: Any) -> dict[str, Any]:
            item = await patch(*given, **more)
            if (item.get("spec") or {}).get("desiredState") == "Stopped":
                item = self.stopped(item)
            if item["metadata"].get("uid") == UID:
                await gateway.archive.put(UID, 0, "stdout", agent.log("stdout").encode())
            return item

        gateway.cluster.patch = patched  # type: ignore[method-assign]

    def created(self, item: dict[str, Any]) -> None:
        creator = item["spec"]["creator"]
        if creator == "broken":
            why = reasons.UNSCHEDULABLE
            status = {"engineState": "Failed", "reason": why.name, "message": why.sentence, "engineType": "python"}
            self.gateway.cluster.put(item | {"status": status})
        elif creator == "second":
            self.ready(item, "127.0.0.1:1")  # nothing listens there
        elif creator == "IDE":
            item["metadata"]["uid"] = UID
            asyncio.get_running_loop().call_later(0.3, self.ready, item, f"127.0.0.1:{self.agent.port}")
        else:
            # The operator has looked at it, so its ticket is its own.
            status = {"engineState": "Starting", "reason": "Accepted", "startup": {"accepted": ENDED}}
            self.gateway.cluster.put(item | {"status": status})

    def ready(self, item: dict[str, Any], address: str) -> None:
        spec = item["spec"]
        suffix = f"{spec['user']}/20261124/python/{spec['ticketId']}/logs"
        instance = f"{item['metadata']['name']}-0.linkis-engines.linkis:9105"
        status = {
            "engineState": "Idle", "reason": "KernelReady", "message": "The kernel has answered: the engine runs code.",
            "engineType": "python", "engineVersion": "3.11", "serviceInstance": instance, "address": address,
            "attempt": 0, "ecmInstance": EM, "logDirSuffix": suffix,
            "agentKey": key_status(KEY, item["metadata"]["uid"]),
        }  # fmt: skip
        self.gateway.cluster.put(item | {"status": status})
        self.remember(spec["user"], spec["ticketId"], service_instance=instance, log_dir_suffix=suffix)

    def stopped(self, item: dict[str, Any]) -> dict[str, Any]:
        why = reasons.STOPPED_BY_USER
        status = {"engineState": "Success", "reason": why.name, "message": why.sentence, "finishedTime": ENDED}
        item = self.gateway.cluster.put(item | {"status": item.get("status", {}) | status})
        end = {"status": "ShuttingDown", "release_times": 1, "released_resource": USED, "release_time": _now()}
        with self.database.begin() as connection:
            connection.execute(update(record).where(record.c.ticket_id == item["spec"]["ticketId"]).values(**end))
        return item

    def remember(self, user: str, ticket: str, **more: Any) -> None:
        row = {
            "label_value": f"{user}-IDE,python-3.11", "create_user": user, "ecm_instance": EM, "ticket_id": ticket,
            "status": "Idle", "request_times": 1, "request_resource": USED, "used_times": 1, "used_resource": USED,
            "metrics": "{}", "release_times": 0, "used_time": _now(), "create_time": _now(),
        } | more  # fmt: skip
        with self.database.begin() as connection:
            connection.execute(insert(record), [row])


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None, microsecond=0)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """A real agent that has printed LINES lines, and runs a task until it is closed."""
    process = AgentProcess(tmp_path_factory.mktemp("agent"), ECM_AGENT_KEY=agent_key_of(KEY, UID, 0))
    try:
        process.execute(f"for n in range({LINES}): print('line', n)")
        process.json("POST", "/v1/execute", {"taskId": "long", "code": "import time; time.sleep(600)", "wait": False})
        process.wait_for_state("Busy")
        yield process
        process.json("POST", "/v1/tasks/long/cancel", {})  # else the agent waits for it to end
    finally:
        process.close()


@pytest.fixture(scope="module")
def steps(agent: AgentProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Steps]:
    """The script's steps by name."""
    folder: Path = tmp_path_factory.mktemp("gateway")
    (folder / "tokens.json").write_text(json.dumps({TOKEN: {"users": ["*"]}}))
    settings = Settings(
        namespace="linkis", instance=EM, tokens_file=str(folder / "tokens.json"), admins=frozenset({"root"}),
        token_key=KEY, agent_port=0, connect_seconds=GIVEN_UP, agent_seconds=GIVEN_UP, client_seconds=GIVEN_UP,
    )  # fmt: skip
    with store_in(folder) as store:
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()

        async def start() -> tuple[Harness, dict[str, Any]]:
            harness = Harness(settings, store.find, store.parts)
            await harness.start()
            operator = Operator(harness, store.database, agent)
            stranger = harness.engine(name="python-bob-1", spec={"user": "bob", "ticketId": "ticket-of-bob"})
            operator.remember("bob", "ticket-of-bob", service_instance=stranger["status"]["serviceInstance"])
            return harness, stranger

        harness, stranger = asyncio.run_coroutine_threadsafe(start(), loop).result(60)
        try:
            yield judge(
                "gateway", f"url={harness.url}", f"token={TOKEN}", "user=alice", "admin=root",
                f"strangersInstance={stranger['status']['serviceInstance']}", "strangersTicket=ticket-of-bob",
            )  # fmt: skip
        finally:
            asyncio.run_coroutine_threadsafe(harness.stop(), loop).result(60)
            loop.call_soon_threadsafe(loop.stop)


def result(steps: Steps, name: str) -> Any:
    """What the step ended with. Fails where it threw."""
    assert "error" not in steps[name], steps[name]
    return steps[name]["result"]


def refusal(steps: Steps, name: str) -> dict[str, Any]:
    """The Message that the client's exception carries: it puts the body into its text."""
    step = steps[name]
    assert step.get("error") == "HttpClientResultException", step
    _, _, body = step["message"].partition("ResponseBody is ")
    return json.JSONDecoder().raw_decode(body)[0]


def test_a_once_job_is_submitted_and_waited_for(steps: Steps) -> None:
    job = result(steps, "submit")
    application, instance = job["serviceInstance"]
    assert application == ENGINECONN
    assert instance.endswith("-0.linkis-engines.linkis:9105"), "the address, not the ticket that stood there first"
    assert (job["status"], job["completed"]) == ("Unlock", False)
    assert job["ecmServiceInstance"] == [ECM, EM]
    ticket = job["ticketId"]
    assert job["id"] == f"{len(ticket)}_{len(ENGINECONN)}_{ticket}{ENGINECONN}{instance}"
    known = result(steps, "existing")
    assert (known["completed"], known["status"], known["serviceInstance"]) == (False, "Idle", job["serviceInstance"])


def test_an_engine_is_created_and_asked_for_again(steps: Steps) -> None:
    made, asked = result(steps, "create"), result(steps, "ask")
    assert (made["message"], asked["message"]) == ("create engineConn succeed.", "reuse engineConn ended.")
    assert (made["nodeStatus"], made["nodeInfo"]["ecAsyncStartResult"]) == ("Unlock", "success")
    assert asked["nodeStatus"] == "Idle", "it is locked for whoever asked"
    assert made["ecmServiceInstance"] == [ECM, EM]
    assert made["managerServiceInstance"] == [MANAGER, EM]
    assert asked["ticketId"] == result(steps, "submit")["ticketId"] != made["ticketId"]


def test_an_engine_for_a_once_job_is_told_of_at_once_and_another_when_it_is_ready(steps: Steps) -> None:
    once = result(steps, "createOnce")
    assert (once["nodeStatus"], once["serviceInstance"]) == ("Starting", [ENGINECONN, once["ticketId"]])
    assert result(steps, "create")["nodeStatus"] == "Unlock"


def test_a_node_holds_what_its_client_reads(steps: Steps) -> None:
    job, got = result(steps, "submit"), result(steps, "get")
    assert (got["ticketId"], got["nodeStatus"]) == (job["ticketId"], "Idle")
    assert got["serviceInstance"] == job["serviceInstance"]
    assert got["ecmServiceInstance"] == [ECM, EM], "who comes back to an engine reads its log with this"
    node = got["nodeInfo"]
    assert (node["owner"], node["mark"], node["emNode"]["serviceInstance"]["instance"]) == ("alice", "process", EM)
    assert node["nodeHealthyInfo"]["nodeHealthy"] == "Healthy"
    assert node["nodeResource"]["usedResource"]["memory"] == 1 << 30, "of the property that was asked for"
    assert [label["stringValue"] for label in node["labels"]][:2] == ["alice-IDE", "python-3.11"]
    assert json.loads(got["ecMetrics"])["ticketId"] == job["ticketId"]
    assert result(steps, "getByTicket")["nodeInfo"]["ticketId"] == job["ticketId"]


def test_a_node_is_told_also_where_its_agent_does_not_answer(steps: Steps) -> None:
    got = result(steps, "getWithoutAgent")
    assert (got["nodeStatus"], got["ecMetrics"]) == ("Unlock", "{}")


def test_operators_answer_as_their_classes_cast(steps: Steps) -> None:
    progress = result(steps, "progress")
    assert 0 < progress["progress"] < 1
    assert progress["tasks"] == [{"id": "long", "total": 1, "running": 1, "failed": 0, "succeeded": 0}]
    assert result(steps, "metrics")["totalBusyTimeMills"] > 0
    diagnosis = result(steps, "diagnosis")
    assert (diagnosis["state"], diagnosis["reason"]) == ("Idle", "KernelReady")
    assert "The kernel has answered" in diagnosis["sentence"]
    assert result(steps, "status")["task"]["id"] == "long", "an operator of ours through the common one"


def test_an_operator_that_is_not_there_is_the_clients_exception(steps: Steps) -> None:
    for name, operator in (("unknownOperator", "formatDisks"), ("yarnApplication", "engineConnYarnApplication")):
        assert steps[name]["error"] == "UJESJobException"
        assert f"errCode: 20030 ,desc: operator '{operator}' is not supported here" in steps[name]["message"]


def test_the_log_comes_page_by_page_with_nothing_twice_and_nothing_left_out(steps: Steps, agent: AgentProcess) -> None:
    pages = result(steps, "log")
    lines = [line for page in pages for line in page["logs"]]
    assert lines == agent.log("stdout").splitlines()[: len(lines)]
    assert [line for line in lines if line.startswith("line ")] == [f"line {n}" for n in range(LINES)]
    assert [page["endLine"] for page in pages] == [100, 200, len(lines), len(lines)], "the last one is empty"
    suffix = f"alice/20261124/python/{result(steps, 'submit')['ticketId']}/logs"
    assert {page["logPath"] for page in pages} == {f"{suffix}/stdout"}
    (found,) = [line for line in result(steps, "logWithKeyword")["logs"] if "the kernel has answered" in line]
    assert found in lines
    assert result(steps, "logLastRows")["logs"] == lines[-3:]
    by_engine = result(steps, "logByEngine")
    assert (by_engine["isError"], by_engine["result"]["logs"]) == (False, lines[:2])


def test_the_callers_engines_are_listed(steps: Steps) -> None:
    engines = result(steps, "list")
    tickets = [result(steps, name)["ticketId"] for name in ("submit", "create", "createOnce")]
    assert sorted(engine["ticketId"] for engine in engines) == sorted(tickets)
    assert {engine["owner"] for engine in engines} == {"alice"}
    # The client with discovery and load balancing on finds the same gateway.
    assert result(steps, "discovery") == len(tickets)


def test_the_ecm_is_listed_for_an_admin(steps: Steps) -> None:
    (em,) = result(steps, "ems")["EMs"]
    assert (em["applicationName"], em["instance"], em["nodeHealthy"]) == (ECM, EM, "Healthy")
    assert em["usedResource"]["memory"] == 4 << 30, "alice's three engines and bob's one"
    assert em["usedResource"]["instance"] == 4
    assert refusal(steps, "emsOfUser")["data"]["errorMsg"]["errCode"] == 210003


def test_the_record_is_read_before_and_after_the_end(steps: Steps) -> None:
    job = result(steps, "submit")
    before, after = (result(steps, name)["data"]["ecResourceInfoRecord"] for name in ("record", "recordAfterEnd"))
    for row in (before, after):
        assert (row["ticketId"], row["createUser"]) == (job["ticketId"], "alice")
        assert [ENGINECONN, row["serviceInstance"]] == job["serviceInstance"]
        assert row["labelValue"] == "alice-IDE,python-3.11"
        assert row["usedResource"] == USED, "as text, as Linkis's row has it"
    assert (before["status"], before["releaseTime"]) == ("Idle", None)
    assert after["status"] == "ShuttingDown"
    assert after["releaseTime"] >= after["createTime"]
    # The client's own getter finds it neither here nor there: its bean is called ECResourceInfoRecord.
    assert result(steps, "record")["getter"] is None


def test_a_killed_job_has_ended_without_success(steps: Steps) -> None:
    ended = result(steps, "kill")
    assert (ended["completed"], ended["status"], ended["succeeded"]) == (True, "ShuttingDown", False)
    node = result(steps, "getAfterEnd")
    assert (node["nodeStatus"], node["nodeInfo"]["nodeHealthyInfo"]["nodeHealthy"]) == ("ShuttingDown", "UnHealthy")


def test_the_log_of_an_ended_engine_is_read_on_and_nothing_else_of_it(steps: Steps) -> None:
    last = [line for page in result(steps, "log") for line in page["logs"]][-2:]
    assert result(steps, "logAfterEnd")["logs"] == last
    assert steps["progressAfterEnd"]["error"] == "UJESJobException"
    assert "has ended (Success, StoppedByUser)" in steps["progressAfterEnd"]["message"]


def test_a_create_that_fails_says_why_and_whether_to_try_again(steps: Steps) -> None:
    failed = refusal(steps, "createThatFails")
    assert failed["message"] == f"Create engineConn failed, caused by {reasons.UNSCHEDULABLE.sentence}"
    assert failed["data"]["canRetry"] is True
    unknown = refusal(steps, "createOfNoSuchType")
    assert "engineType is 'cobol': the catalogue offers python 3.11" in unknown["message"]
    assert not unknown["data"].get("canRetry")


def test_a_job_in_bml_is_refused_rather_than_never_run(steps: Steps) -> None:
    assert "this gateway does not read BML" in refusal(steps, "createFromBml")["message"]


def test_an_engine_that_is_not_ready_in_time_is_stopped_for_its_client_cannot_name_it(steps: Steps) -> None:
    late = refusal(steps, "createThatIsLate")
    assert "being Starting after 1 s: it is stopped." in late["message"]
    assert late["data"]["canRetry"] is True
    left = {engine["ticketId"] for engine in result(steps, "listAfterEnd")}
    assert left == {result(steps, name)["ticketId"] for name in ("create", "createOnce")}


def test_another_users_engine_log_and_record_are_refused(steps: Steps) -> None:
    instance = "python-bob-1-0.linkis-engines.linkis:9105"
    for name, verb in (("getOfStranger", "access"), ("killOfStranger", "kill")):
        refused = refusal(steps, name)
        assert (refused["status"], refused["message"]) == (
            3,
            f"You have no permission to {verb} EngineConn {instance}",
        )
    for name, text in (
        ("operateOnStranger", f"You have no permission to execute Engine Operation {instance}"),
        ("logOfStranger", "You have no permission to get log with path:"),
    ):
        told = result(steps, name)
        assert told["isError"] is True
        assert text in told["errorMsg"]
    assert refusal(steps, "recordOfStranger")["message"] == "tickedId not exist:ticket-of-bob"


def test_an_unknown_engine_is_answered_as_another_users(steps: Steps) -> None:
    """Names can be guessed: only admins are told which there are."""
    for name, verb in (("getOfNobody", "access"), ("killOfNobody", "kill")):
        assert refusal(steps, name)["message"] == f"You have no permission to {verb} EngineConn nowhere:1"
    told = result(steps, "operateOnNobody")
    assert told["isError"] is True
    assert "You have no permission to execute Engine Operation nowhere:1" in told["errorMsg"]


def test_a_wrong_token_lets_nobody_in_and_ends_the_clients_retry(steps: Steps) -> None:
    assert steps["wrongToken"]["error"] == "HttpClientRetryException"
    assert "The user is not logged in" in steps["wrongToken"]["message"]
    assert "Token-Code is not accepted for this Token-User" in steps["wrongToken"]["message"]


def test_no_call_took_as_long_as_a_timeout(steps: Steps) -> None:
    """A call that takes longer would be a timeout in disguise: the shortest one is the script's own (MILLIS)."""
    assert max(step["millis"] for step in steps.values()) < 20_000
