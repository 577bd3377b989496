"""An engine that is lent: each method for each who may call it. The lock is the only right of a borrower."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretBytes

from linkis_ecm.agent.formats.names import LATE_CODE, OTHERS_TASK
from linkis_ecm.engine.matching import CLAIM_HOLD
from linkis_ecm.gateway.agents.client import EXECUTES_PER_ENGINE
from linkis_ecm.gateway.inventory import lending
from linkis_ecm.gateway.inventory.view import view_of
from linkis_ecm.gateway.methods.tasks import _ended_earlier as ended_earlier
from linkis_ecm.gateway.routes import METHODS, Method
from linkis_ecm.gateway.settings import Settings
from linkis_ecm.model.agent_key import key_id
from linkis_ecm.model.record import ExecutionRecord
from tests.gateway.engines.lenders import (
    GROUP,
    GROUPS,
    OWNER,
    SERVER,
    Agent,
    Item,
    another_lender,
    held_by,
    lender,
    lends,
    lent,
)
from tools.testkit.gateway.harness import EM, PATIENCE, Answer, Harness
from tools.testkit.gateway.replicas import Clock, behind

NOBODY = "00000000-0000-4000-8000-000000000000"
# What a borrower may call, by the method's name.
BORROWERS = frozenset({
    "executeCode", "getTask", "getTaskResult", "getResultSet", "cancelTask", "taskEvents", "sendEngineCommand unlock",
})  # fmt: skip
# Whoever is not the owner, an admin or the borrower: of these the engine does not exist.
OUTSIDERS = ["former", "ann", "bob", "eve", "token", "stranger"]


@pytest.fixture
async def gw(settings: Settings) -> AsyncIterator[Harness]:
    async with lender(settings, Clock(), GROUP) as made:
        yield made


def calls_of(engine_id: str, instance: str, task_id: str, lock: str | None = "lock-1") -> dict[str, Item]:
    """Each method that names an engine, with what it is sent."""
    ids = {"engineId": engine_id}
    task = ids | {"taskId": task_id}
    at = {"instance": instance}
    operation = at | {"parameters": {"__operator_name__": "engineConnLog", "logType": "stdout"}}
    ecm = {"instance": EM, "parameters": operation["parameters"] | {"engineConnInstance": instance}}
    download = {"emInstance": EM, "instance": instance, "logDirSuffix": "pool/x/logs", "logType": "stdout"}
    page = ids | {"logType": "stdout"}
    commands = ("interrupt", "restartKernel", "status", "lock", "unlock", "engineConnProgress", "engineConnMetrics",
                "engineConnDiagnosis", "engineConnLog")  # fmt: skip
    key = {"lock": lock} if lock is not None else {}
    return {
        "executeCode": {"json": ids | {"code": "1", "runType": "python"} | key},
        "getEngineStatus": {"params": ids}, "terminateEngine": {"json": ids}, "getEngineLogs": {"params": page},
        "downloadEngineLog": {"params": download}, "explainEngine": {"params": ids}, "getPostMortem": {"params": ids},
        "followEngineLog": {"params": page}, "getTask": {"params": task}, "getTaskResult": {"params": task},
        "getResultSet": {"params": task}, "listTasks": {"params": ids}, "cancelTask": {"json": task},
        "taskEvents": {"params": task}, "getEngineMetrics": {"params": ids}, "getResourceUsage": {"params": ids},
        "updateResource": {"json": ids | {"resources": {"memory": "2Gi"}}}, "listTransitions": {"params": ids},
        "getEngineConn": {"json": at}, "killEngineConn": {"json": at},
        "rm/enginekill": {"json": [{"engineInstance": instance}]},
        "openEngineLog": {"json": at | {"parameters": {"logType": "stdout"}}},
        "executeEngineConnOperation": {"json": operation}, "executeECMOperation": {"json": ecm},
        "executeECMOperationByEC": {"json": operation},
        **{f"sendEngineCommand {name}": {"json": ids | {"command": name,
           "parameters": key if name == "unlock" else {}}} for name in commands},
    }  # fmt: skip


def method_of(name: str) -> Method:
    return next(method for method in METHODS if method.name == name.split(" ", maxsplit=1)[0])


async def send(gw: Harness, user: str, name: str, sent: Item) -> Answer:
    method = method_of(name)
    return await gw.call(method.verb, method.path, user=user, **sent)


def without(answer: Answer, *ids: str) -> Any:
    """All that an answer tells, with the ids that were sent taken out."""
    text = answer.raw.decode()
    for one in ids:
        text = text.replace(one, "ID")
    return answer.http, json.loads(text)


def test_every_method_that_names_an_engine_is_asked_here() -> None:
    """A method that is added must say what a borrower may do with it."""
    names_none = {
        "createEngineConnection", "listEngines", "previewCull", "reportResourceUsage", "whoAmI", "watchEngines",
        "getOverview", "listEnginePlugins", "askEngineConn", "createEngineConn", "rm/enginekillAsyn",
        "listUserEngines", "listEMEngines",
        "listAllEMs", "modifyEMInfo", "listAllNodeHealthyStatus", "listAllECMHealthyStatus", "ecinfo/get",
        "ecinfo/delete", "ecinfo/ecrHistoryList", "ecinfo/ecList", "rm/engineType", "rm/userresources",
    }  # fmt: skip
    asked = {name.split(" ")[0] for name in calls_of("", "", "")}
    assert asked | names_none == {method.name for method in METHODS}
    assert not asked & names_none


@pytest.mark.parametrize("who", OUTSIDERS)
async def test_for_others_the_engine_does_not_exist(gw: Harness, who: str) -> None:
    agent = Agent()
    engine = await lent(gw, "alice", agent=agent)
    ticket, instance = engine["metadata"]["uid"], engine["status"]["serviceInstance"]
    task = (await gw.execute(engine, "1", user="alice", lock="lock-1")).data["taskId"]
    user = who
    if who == "former":
        held_by(gw, engine, "ann", "lock-2")
        user = "alice"
    before, asked = list(gw.cluster.writes), len(agent.paths)
    for name, sent in calls_of(ticket, instance, task).items():
        told = without(await send(gw, user, name, sent), ticket, instance)
        nothing = calls_of(NOBODY, "nowhere:1", task)[name]
        assert told == without(await send(gw, user, name, nothing), NOBODY, "nowhere:1"), name
        assert told[0] in (400, 403), name
    assert gw.cluster.writes == before
    assert len(agent.paths) == asked, "its agent was asked nothing"


async def test_a_borrower_may_run_and_read_the_own_tasks_and_nothing_else(gw: Harness) -> None:
    engine = await lent(gw, "alice", agent=(agent := Agent()))
    ticket, instance = engine["metadata"]["uid"], engine["status"]["serviceInstance"]
    task = (await gw.execute(engine, "6*7", user="alice", lock="lock-1")).data["taskId"]
    before = list(gw.cluster.writes)
    for name, sent in calls_of(ticket, instance, task).items():
        if name == "sendEngineCommand unlock":
            continue  # it ends all of it: below
        answer = await send(gw, "alice", name, sent)
        if name in BORROWERS:
            assert answer.http == 200, (name, answer.raw)
        else:
            told = without(answer, ticket, instance)
            nothing = calls_of(NOBODY, "nowhere:1", task)[name]
            assert told == without(await send(gw, "alice", name, nothing), NOBODY, "nowhere:1"), name
    assert gw.cluster.writes == before, "a borrower changes nothing of the engine"
    assert not {"/v1/interrupt", "/v1/restart", "/v1/status", "/v1/tasks"} & set(agent.paths)
    lists = [await gw.get(name, user="alice") for name in ("listEngines", "previewCull")]
    assert all(ticket not in answer.raw.decode() for answer in lists)
    unlocked = await send(gw, "alice", *next(iter(
        (name, sent) for name, sent in calls_of(ticket, instance, task).items() if name == "sendEngineCommand unlock"
    )))  # fmt: skip
    assert unlocked.data["isError"] is False
    for name in BORROWERS:
        assert (await send(gw, "alice", name, calls_of(ticket, instance, task)[name])).http == 403, name


async def test_linkis_own_call_gives_an_engine_back_for_its_borrower_alone(gw: Harness) -> None:
    engine = await lent(gw, "alice", agent=Agent())

    async def unlock(user: str, instance: str, **more: str) -> Answer:
        parameters = {"__operator_name__": "unlock", **more}
        sent = {"instance": instance, "parameters": parameters}
        return await send(gw, user, "executeEngineConnOperation", {"json": sent})

    instance = engine["status"]["serviceInstance"]
    for user, more in (("ann", {"lock": "lock-1"}), ("eve", {"lock": "lock-1"}), ("alice", {})):
        told = without(await unlock(user, instance, **more), instance)
        assert told == without(await unlock(user, "nowhere:1", **more), "nowhere:1"), user
    assert (await unlock("alice", instance, lock="another")).data["isError"] is True
    assert (await unlock("alice", instance, lock="lock-1")).data["isError"] is False
    assert (await unlock("alice", instance, lock="lock-1")).http == 400
    assert (await gw.execute(engine, "1", user="alice", lock="lock-1")).http == 403


@pytest.mark.parametrize("who", [OWNER, "root"])
async def test_owner_and_admins_may_do_all(gw: Harness, who: str) -> None:
    engine = await lent(gw, "alice", agent=(agent := Agent()))
    ticket = engine["metadata"]["uid"]
    task = (await gw.execute(engine, "6*7", user="alice", lock="lock-1")).data["taskId"]
    told = (await gw.get("getEngineStatus", {"engineId": ticket}, user=who)).data
    assert told["user"] == OWNER
    assert (told["lentLevel"], told["lentGroup"], told["lentTo"]) == ("group", "analysts", "alice")
    assert (await gw.get("explainEngine", {"engineId": ticket}, user=who)).data["engine"]["lentTo"] == "alice"
    assert [one["taskId"] for one in (await gw.get("listTasks", {"engineId": ticket}, user=who)).data["tasks"]] == [
        task
    ]
    assert (await gw.get("getTaskResult", {"engineId": ticket, "taskId": task}, user=who)).http == 200
    refused = await gw.execute(engine, "1", user=who)
    assert refused.body["data"]["reason"] == "LentToAnother"
    assert "is lent to alice now" in refused.message
    assert len(agent.kernel_users) == 1, "nobody's session ends by the way"
    await gw.execute(engine, "1", user=who, force=True)
    assert len(set(agent.kernel_users)) == 2, "in a kernel of its own, too"
    assert agent.forced == [False, True]
    held_by(gw, engine, "")
    assert (await gw.execute(engine, "1", user=who)).http == 200
    assert agent.forced == [False, True, False]
    assert (await gw.post("terminateEngine", {"engineId": ticket}, user=who)).http == 200


async def test_a_borrowers_code_needs_the_lock_and_a_wrong_one_is_none(gw: Harness) -> None:
    engine = await lent(gw, "alice", agent=(agent := Agent()))
    ticket = engine["metadata"]["uid"]
    without_lock = await gw.execute(engine, "1", user="alice")
    assert "is lent to you: send the lock" in without_lock.message
    wrong = await gw.execute(engine, "1", user="alice", lock="another")
    assert wrong.body["data"]["reason"] == "LockNotValid"
    assert wrong.message.endswith("Ask for an engine again (askEngineConn)"), "without a lock it is refused"
    unlock = {"engineId": ticket, "command": "unlock", "parameters": {}}
    assert "give the lock" in (await gw.post("sendEngineCommand", unlock, user="alice")).message
    assert (await gw.post("sendEngineCommand", unlock | {"parameters": {"lock": "x"}}, user="alice")).data["isError"]
    assert not agent.paths


async def test_a_borrower_reads_no_task_of_another(gw: Harness) -> None:
    engine = await lent(gw, "ann", agent=(agent := Agent()))
    ticket = engine["metadata"]["uid"]
    of_ann = (await gw.execute(engine, "secret", user="ann", lock="lock-1", idempotencyKey="k")).data["taskId"]
    held_by(gw, engine, "alice")
    made_up = [of_ann, str(uuid.uuid4()), "job", "not-a-uuid", of_ann.upper(), of_ann.replace("-", "")]
    asked = len(agent.paths)
    for task in made_up:
        for name in ("getTask", "getTaskResult", "getResultSet", "cancelTask", "taskEvents"):
            answer = await send(gw, "alice", name, calls_of(ticket, "", task)[name])
            assert answer.http == 400, (name, task)
            assert f"{task} is no task of" in answer.message
    by_key = await gw.get("getTask", {"engineId": ticket, "idempotencyKey": "k"}, user="alice")
    assert by_key.http == 400, "a key is its user's: it can be guessed"
    assert "secret" not in by_key.raw.decode()
    assert [path for path in agent.paths[asked:] if of_ann in path] == []
    again = await gw.execute(engine, "mine", user="alice", lock="lock-1", idempotencyKey="k")
    assert again.data["taskId"] != of_ann
    assert again.data["outputs"][0]["text"] == "mine"


async def test_the_owners_code_looks_at_the_lock_as_it_is_now(gw: Harness, settings: Settings) -> None:
    """The watch is behind: another replica has lent the engine a moment ago."""
    engine = await lent(gw, agent=(agent := Agent()))
    async with another_lender(gw, settings, GROUP) as other:
        gw.cluster.put(gw.cluster.items["linkis", engine["metadata"]["name"]])
        with behind(gw):
            held_by(gw, engine, "alice")
            assert (await other.execute(engine, "1", user=OWNER)).body["data"]["reason"] == "LentToAnother"
    assert not agent.tasks


async def test_only_owner_and_admins_end_anothers_code(gw: Harness) -> None:
    class Taken(Agent):
        async def __call__(self, request: Any) -> Any:
            return web.json_response({"error": OTHERS_TASK}, status=409)

    engine = await lent(gw, "alice", agent=Taken())
    forced = await gw.execute(engine, "1", user="alice", lock="lock-1", force=True)
    assert "force is for the owner" in forced.message
    for wait in (True, False):
        answer = await gw.execute(engine, "1", user="alice", lock="lock-1", wait=wait)
        assert (answer.http, answer.body["data"]["reason"], answer.body["data"]["canRetry"]) == (
            400,
            "OthersTask",
            True,
        )
        assert "ask for another engine" in answer.message


async def test_code_goes_with_the_version_that_it_was_let_in_by_and_late_code_is_refused(gw: Harness) -> None:
    class Passed(Agent):
        async def __call__(self, request: Any) -> Any:
            self.body = await request.json()
            return web.json_response({"error": LATE_CODE}, status=409)

    engine = await lent(gw, "alice", agent=(agent := Passed()))
    answer = await gw.execute(engine, "1", user="alice", lock="lock-1")
    version = gw.cluster.items["linkis", engine["metadata"]["name"]]["metadata"]["resourceVersion"]
    assert agent.body["version"] <= int(version)
    assert agent.body["version"] >= int(engine["metadata"]["resourceVersion"])
    assert (answer.http, answer.body["data"]["reason"], answer.body["data"]["canRetry"]) == (400, "LockNotValid", False)
    assert "while your code was on its way" in answer.message


async def test_who_does_not_read_an_answer_keeps_neither_the_next_holder_nor_the_owner_out(gw: Harness) -> None:
    gate, all_are_open = asyncio.Event(), asyncio.Event()

    class Slow(Agent):
        async def __call__(self, request: Any) -> Any:
            answer = await super().__call__(request)
            if len(self.tasks) == EXECUTES_PER_ENGINE:
                all_are_open.set()
            if len(self.tasks) <= EXECUTES_PER_ENGINE:
                await gate.wait()
            return answer

    engine = await lent(gw, "alice", agent=Slow())
    calls = [
        asyncio.create_task(gw.execute(engine, str(number), user="alice", lock="lock-1"))
        for number in range(EXECUTES_PER_ENGINE)
    ]
    try:
        async with asyncio.timeout(PATIENCE):
            await all_are_open.wait()
        assert (await gw.execute(engine, "1", user="alice", lock="lock-1")).http == 429, "her own ones count"
        assert (await gw.execute(engine, "1", user=OWNER, force=True)).http == 200
        held_by(gw, engine, "ann")
        assert (await gw.execute(engine, "1", user="ann", lock="lock-1")).http == 200
    finally:
        gate.set()
        await asyncio.gather(*calls)


async def test_while_keys_are_changed_a_user_has_one_kernel_and_a_key_one_task(gw: Harness, settings: Settings) -> None:
    engine = await lent(gw, "alice", agent=(agent := Agent()))
    newer = settings.model_copy(update={"token_key": SecretBytes(b"z" * 32), "previous_token_key": settings.token_key})
    async with another_lender(gw, newer, GROUP) as other:
        gw.cluster.put(gw.cluster.items["linkis", engine["metadata"]["name"]])
        sent = {"user": "alice", "lock": "lock-1", "idempotencyKey": "k"}
        tasks = {(await through.execute(engine, "x", **sent)).data["taskId"] for through in (gw, other, gw)}
        assert len(tasks) == len(agent.tasks) == 1
        asked = {"engineId": engine["metadata"]["uid"], "idempotencyKey": "k"}
        assert {(await through.get("getTask", asked, user="alice")).http for through in (gw, other)} == {200}
    assert len(set(agent.kernel_users)) == 1


async def test_a_key_whose_task_an_earlier_pod_ran_under_another_master_key_runs_nothing_again(
    gw: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keys were changed and the engine's pod was lost meanwhile: its next agent has the new key."""
    old, new = b"o" * 32, b"n" * 32
    keys = {"podUid": "p2", "enrolment": "0" * 32, "keyId": key_id(new)}
    engine = view_of(await lent(gw, "alice", status={"attempt": 1, "agentKey": keys}))
    assert lending.masters_of([old, new], engine) == lending.masters_of([new, old], engine) == [new, old]
    ids = [lending.task_id(master, engine, "alice", "key k") for master in (new, old)]
    ran = ExecutionRecord(
        task_id=ids[1], ticket_id=engine.ticket_id, uid=engine.uid, attempt=0, caller="alice", run_type="python",
        code_sha256="", code_chars=1, status="Succeed", accepted=1.0, ended=2.0,
    )  # fmt: skip

    async def find(task_id: str) -> ExecutionRecord | None:
        return ran if task_id == ran.task_id else None

    monkeypatch.setattr(gw.gateway.executions, "find", find)
    call: Any = SimpleNamespace(gateway=gw.gateway)
    found = await ended_earlier(call, engine, ids)
    assert found is not None
    assert (found.task_id, found.status) == (ids[1], "Succeed")


async def test_the_same_key_is_the_same_task_of_its_user(gw: Harness) -> None:
    engine = await lent(gw, "alice", agent=Agent())
    sent = {"user": "alice", "lock": "lock-1", "idempotencyKey": "k"}
    first, second = [(await gw.execute(engine, "1", **sent)).data["taskId"] for _ in range(2)]
    assert first == second
    found = await gw.get("getTask", {"engineId": engine["metadata"]["uid"], "idempotencyKey": "k"}, user="alice")
    assert found.data["taskId"] == first


async def test_each_user_is_another_to_the_agent_which_learns_no_name(gw: Harness) -> None:
    engine = await lent(gw, "alice", agent=(agent := Agent()))
    for user in ("alice", "alice", "ann"):
        held_by(gw, engine, user)
        assert (await gw.execute(engine, "1", user=user, lock="lock-1")).http == 200
        assert (await gw.execute(engine, "1", user=user, lock="lock-1", wait=False)).http == 200
    alice, ann = agent.kernel_users[0], agent.kernel_users[-1]
    assert agent.kernel_users == [alice] * 4 + [ann] * 2
    assert alice != ann
    assert not {"alice", "ann"} & {alice, ann}
    lends(gw, **GROUP | {"shareKernel": True})
    await gw.execute(engine, "1", user="ann", lock="lock-1")
    assert agent.kernel_users[-1] == "", "the plugin keeps the kernel"


async def test_an_agent_that_knows_no_users_runs_nothing(gw: Harness) -> None:
    class Old(Agent):
        async def __call__(self, request: Any) -> Any:
            if request.path == "/v1/execute/shared":
                return web.json_response({"error": "no such path"}, status=404)
            return await super().__call__(request)

    engine = await lent(gw, "alice", agent=(agent := Old()))
    for wait in (True, False):
        answer = await gw.execute(engine, "1", user="alice", lock="lock-1", wait=wait)
        assert "its image is older than this gateway" in answer.message
    assert not agent.tasks


@pytest.mark.parametrize(
    ("plugin", "status", "spec"),
    [
        (GROUP, {"share": {"shared": False, "message": "It has env of its own"}}, {}),
        (GROUP, {"share": None}, {}),
        (GROUP, {}, {"share": None}),
        (GROUP, {}, {"share": {"level": "group", "group": "science"}}),
        (GROUP, {}, {"share": {"level": "server"}}),
        (GROUP, {}, {"user": "other"}),
        (GROUP | {"shareAs": "other"}, {}, {}),
        (GROUP | {"shareGroups": ["science"]}, {}, {}),
        (SERVER, {}, {}),
        ({"share": "user"}, {}, {}),
        ({"share": "connection"}, {}, {}),
        (GROUP, {"launch": {"kind": "process"}}, {}),
    ],
)
async def test_what_is_lent_no_more_is_nobodys_but_the_owners(
    gw: Harness, plugin: Item, status: Item, spec: Item
) -> None:
    """Also for who holds its lock: each of these counts as it is now."""
    engine = await lent(gw, "alice", agent=(agent := Agent()), status=status, spec=spec)
    lends(gw, **plugin)
    answer = await gw.execute(engine, "1", user="alice", lock="lock-1")
    assert (answer.http, agent.paths) == (403, [])
    assert "no engine that is known here" in answer.message


async def test_who_asks_sees_the_own_groups_and_what_is_lent_to_them(gw: Harness) -> None:
    found = {}
    for user in ("alice", "bob", "token", "root"):
        (plugin,) = (await gw.get("listEnginePlugins", user=user)).data["plugins"]
        assert (plugin["share"], plugin["shareLocks"]) == ("group", 2)
        found[user] = plugin["shareGroups"], (await gw.get("whoAmI", user=user)).data["groups"]
    assert found == {
        "alice": (["analysts"], ["analysts", "staff"]),
        "bob": (["science"], ["science"]),
        "token": ([], None),
        "root": (["analysts", "science"], None),
    }


async def test_membership_counts_as_it_is_now(gw: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = await lent(gw, "alice", agent=Agent())
    assert (await gw.execute(engine, "1", user="alice", lock="lock-1")).http == 200
    monkeypatch.setitem(GROUPS, "alice", frozenset({"staff"}))
    assert (await gw.execute(engine, "1", user="alice", lock="lock-1")).http == 403


async def test_a_lock_that_is_over_or_was_made_up_is_no_right(gw: Harness) -> None:
    engine = await lent(gw, "alice", agent=Agent())
    hands = gw.clock
    assert isinstance(hands, Clock)
    hands.now += CLAIM_HOLD
    assert (await gw.execute(engine, "1", user="alice", lock="lock-1")).http == 403
    held_by(gw, engine, "eve", "forged")
    refused = await gw.execute(engine, "1", user="eve", lock="forged")
    assert refused.http == 403, "an annotation names her, and she is in none of the groups"


async def test_at_level_server_everybody_may_borrow(settings: Settings) -> None:
    async with lender(settings, Clock(), SERVER) as gw:
        engine = await lent(gw, "eve", group="", agent=(agent := Agent()))
        assert (await gw.execute(engine, "1", user="eve", lock="lock-1")).http == 200
        assert (await gw.execute(engine, "1", user="alice", lock="lock-1")).http == 403
        assert len(agent.tasks) == 1
        assert (await gw.get("getEngineStatus", {"engineId": engine["metadata"]["uid"]}, user="eve")).http == 403
