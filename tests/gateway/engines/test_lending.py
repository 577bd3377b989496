"""askEngineConn where a plugin lends: which engine, in whose name, how many, and never one to two askers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from linkis_ecm.engine.admission.limits import Amount, Limits
from linkis_ecm.engine.matching import CLAIM_HOLD
from linkis_ecm.gateway.inventory.lending import NOT_LENT_FOR
from linkis_ecm.gateway.inventory.view import plugin_of
from linkis_ecm.gateway.settings import Settings
from linkis_ecm.kube.errors import Unreachable
from tests.gateway.engines.lenders import (
    GROUP,
    GROUPS,
    OWNER,
    SERVER,
    Agent,
    Item,
    another_lender,
    ask,
    held_by,
    lender,
    lends,
    lent,
    operator_accepts,
)
from tests.gateway.engines.test_linkis import LABELS, send
from tests.gateway.engines.test_reuse import CREATED, REUSED, claim_of, tickets, unlock
from tools.testkit.gateway.harness import PLUGIN, Answer, Harness
from tools.testkit.gateway.replicas import Clock, behind

MANY = GROUP | {"shareLocks": 100}


@pytest.fixture
async def gw(settings: Settings, hands: Clock) -> AsyncIterator[Harness]:
    async with lender(settings, hands, MANY) as made:
        yield made


@pytest.fixture
async def other(gw: Harness, settings: Settings) -> AsyncIterator[Harness]:
    async with another_lender(gw, settings, MANY) as made:
        yield made


def made(gw: Harness) -> list[Item]:
    return [body for verb, _, body in gw.cluster.writes if verb == "create"]


def verdicts(answer: Answer) -> dict[str, str]:
    return {one["engine"]: one["verdict"] for one in answer.body["data"]["verdicts"]}


async def test_a_new_engine_is_the_owners_and_the_askers_by_its_claim_alone(gw: Harness) -> None:
    properties = {"wds.linkis.engineconn.java.driver.memory": "512m", "wds.linkis.engineconn.max.free.time": "1h"}
    answer = await ask(gw, "alice", properties=properties)
    assert answer.message == CREATED
    (body,) = made(gw)
    spec = body["spec"]
    assert (spec["user"], spec["share"]) == (OWNER, {"level": "group", "group": "analysts"})
    assert not {"resources", "env", "idleTimeout"} & spec.keys(), "it has what its plugin gives all of them"
    item = gw.cluster.items["linkis", body["metadata"]["name"]]
    claim = claim_of(gw, item)
    assert claim is not None
    assert (claim.user, claim.by) == ("alice", answer.data["engine"]["lock"])


async def test_it_is_lent_to_one_after_another_of_its_group(gw: Harness, hands: Clock) -> None:
    item = await lent(gw)
    first = await ask(gw, "alice")
    ticket, lock = first.data["engine"]["ticketId"], first.data["engine"]["lock"]
    assert (first.message, ticket) == (REUSED, item["metadata"]["uid"])
    assert (await ask(gw, "ann")).message == CREATED, "alice holds the only one"
    assert (await unlock(gw, ticket, {"lock": lock}, user="alice")).data["isError"] is False
    again = await ask(gw, "ann")
    assert again.data["engine"]["ticketId"] == ticket
    assert (await ask(gw, "bob")).message == CREATED, "his group is another"
    hands.now += CLAIM_HOLD
    assert (await ask(gw, "alice")).message == REUSED, "and a lock that is not used ends"


async def test_explain_tells_of_the_own_groups_engines_and_of_no_other(gw: Harness) -> None:
    mine = [
        await lent(gw, name="free"),
        await lent(gw, "ann", name="held"),
        await lent(gw, name="with-env", status={"share": {"shared": False, "message": "It has env of its own."}}),
    ]
    await lent(gw, name="of-science", group="science")
    await lent(gw, name="own", spec={"share": None})
    gw.engine(name="alices-own")
    answer = await ask(gw, "alice", explain=True)
    found = verdicts(answer)
    assert found == dict(zip((i["metadata"]["uid"] for i in mine), ("Fits", "Claimed", "NotLendable"), strict=True))
    sentences = [one["sentence"] for one in answer.data["verdicts"]]
    assert "it is lent to nobody: It has env of its own." in sentences
    assert not any("ann" in sentence for sentence in sentences)
    assert verdicts(await ask(gw, "bob", explain=True)).keys() != found.keys()


@pytest.mark.parametrize(
    ("user", "says"),
    [("token", "your login says nothing of groups"), ("eve", "you are in none of those that it is offered to")],
)
async def test_who_has_no_group_is_refused_in_words(gw: Harness, user: str, says: str) -> None:
    await lent(gw)
    answer = await ask(gw, user)
    assert answer.http == 403
    assert says in answer.message
    assert "createEngineConnection" in answer.message
    assert not gw.cluster.writes


async def test_the_plugins_order_says_which_group_counts(gw: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GROUPS, "alice", frozenset({"science", "analysts", "a"}))
    for groups in (["science", "analysts"], ["analysts", "science"]):
        lends(gw, **MANY | {"shareGroups": groups})
        await ask(gw, "alice")
        assert made(gw)[-1]["spec"]["share"]["group"] == groups[0]


@pytest.mark.parametrize(
    "more",
    [
        {"labels": LABELS | {"executeOnce": ""}},
        {"labels": LABELS | {"reuseExclusion": "*"}},
        {"labels": LABELS | {"reuseExclusion": "lent-1-0.linkis-engines.linkis:9105"}},
        {"labels": LABELS | {"yarnCluster": "c-1"}},
        {"labels": LABELS | {"tenant": "red"}},
        {"properties": {"wds.linkis.engineconn.java.driver.memory": "2g"}},
    ],
)
async def test_who_needs_an_engine_of_the_own_gets_one(gw: Harness, more: Item) -> None:
    await lent(gw)
    answer = await ask(gw, "alice", **more)
    assert answer.message == CREATED
    (body,) = made(gw)
    assert body["spec"]["user"] == "alice"
    assert "share" not in body["spec"]


async def test_no_asker_has_an_engine_made_for_each_of_its_words(gw: Harness) -> None:
    """Neither creator nor labels of an asker are the lent engine's: it takes the places of all."""
    for creator in ("IDE", "job", "other"):
        labels = LABELS | {"userCreator": f"alice-{creator}", "taskId": creator, "codeType": "py"}
        engine = (await ask(gw, "alice", labels=labels)).data["engine"]
        await unlock(gw, engine["ticketId"], {"lock": engine["lock"]}, user="alice")
    (body,) = made(gw)
    assert body["spec"]["creator"] == "IDE"
    assert not body["metadata"].get("labels")


async def test_create_makes_an_own_engine_and_ask_never_lends_it(gw: Harness) -> None:
    own = (await gw.post("createEngineConnection", {"engineType": "python", "wait": True}, user=OWNER)).data
    assert "share" not in made(gw)[0]["spec"]
    assert (await ask(gw, "alice")).data["engine"]["ticketId"] != own["ticketId"]


async def test_an_owner_who_asks_is_an_asker(gw: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    item = await lent(gw)
    monkeypatch.setitem(GROUPS, OWNER, frozenset({"analysts"}))
    answer = await ask(gw, OWNER)
    assert answer.data["engine"]["ticketId"] == item["metadata"]["uid"]


async def test_an_admin_borrows_in_no_other_name(gw: Harness) -> None:
    answer = await send(gw, "askEngineConn", {"labels": LABELS, "timeOut": 5000}, user="root")
    assert "an engine that is lent goes to whoever asks" in answer.message
    assert not gw.cluster.writes


async def test_an_asker_holds_so_many_as_the_plugin_says(gw: Harness, hands: Clock) -> None:
    lends(gw, **GROUP | {"shareLocks": 2})
    answers = await asyncio.gather(*(ask(gw, "alice") for _ in range(6)))
    assert [answer.http for answer in answers].count(200) == 2
    refused = [answer for answer in answers if answer.http != 200]
    assert all("you hold 2 shared engines of python 3.11" in answer.message for answer in refused)
    assert refused[0].body["data"]["reason"] == "TooManyLocks"
    assert len(made(gw)) == 2
    assert (await ask(gw, "ann")).message == CREATED, "another asker has an own count"
    engine = next(answer.data["engine"] for answer in answers if answer.http == 200)
    await unlock(gw, engine["ticketId"], {"lock": engine["lock"]}, user="alice")
    assert (await ask(gw, "alice")).message == REUSED
    hands.now += 2 * CLAIM_HOLD
    answers = await asyncio.gather(*(ask(gw, "alice") for _ in range(6)))
    assert [answer.http for answer in answers].count(200) == 2


async def in_use(gw: Harness, ticket: str, state: str = "Busy") -> None:
    """The operator has seen a task in the engine; or, Idle, none any more."""
    item = next(
        one for one in gw.cluster.items.values() if ticket in (one["metadata"]["uid"], one["spec"].get("ticketId"))
    )
    version = str(int(item["metadata"]["resourceVersion"]) + 1)
    status = item["status"] | {"engineState": state}
    gw.cluster.put(item | {"metadata": item["metadata"] | {"resourceVersion": version}, "status": status})


async def test_an_engine_in_use_counts_for_who_gave_it_back(gw: Harness, hands: Clock) -> None:
    """Else a long task and an unlock, again and again, take all places of the plugin."""
    lends(gw, **GROUP | {"shareLocks": 2})
    busy = []
    for _ in range(2):
        engine = (await ask(gw, "alice")).data["engine"]
        await in_use(gw, engine["ticketId"])
        assert (await unlock(gw, engine["ticketId"], {"lock": engine["lock"]}, user="alice")).data["isError"] is False
        busy.append(engine["ticketId"])
    assert (await ask(gw, "alice")).body["data"]["reason"] == "TooManyLocks"
    hands.now += 2 * CLAIM_HOLD
    assert (await ask(gw, "alice")).body["data"]["reason"] == "TooManyLocks"
    assert (await ask(gw, "ann")).message == CREATED
    await in_use(gw, busy[0], "Idle")
    assert (await ask(gw, "alice")).message == REUSED


async def test_an_engine_is_given_back_once_the_own_tasks_have_ended(gw: Harness) -> None:
    item = await lent(gw, agent=(agent := Agent()))
    engine = (await ask(gw, "alice")).data["engine"]
    ticket, lock = engine["ticketId"], {"lock": engine["lock"]}
    task = (await gw.execute(item, "1", user="alice", lock=engine["lock"], wait=False)).data["taskId"]
    for state in ("Inited", "Running"):
        agent.tasks[task]["status"] = state
        refused = (await unlock(gw, ticket, lock, user="alice")).data
        assert refused["isError"] is True
        assert f"still has your task {task}: cancel what runs (cancelTask)" in refused["errorMsg"]
        assert (await gw.execute(item, "1", user="alice", lock=engine["lock"])).http == 200, "the lock holds"
    agent.tasks[task]["status"] = "Cancelled"
    agent.tasks["another"] = agent.tasks[task] | {"taskId": "another", "status": "Running"}
    assert (await unlock(gw, ticket, lock, user="alice")).data["isError"] is False, "others' tasks are not hers"
    assert (await gw.execute(item, "1", user="alice", lock=engine["lock"])).http == 403


async def test_the_owner_takes_an_engine_back_at_any_time(gw: Harness) -> None:
    lends(gw, **GROUP | {"shareLocks": 1})
    item = await lent(gw, "alice", agent=(agent := Agent()))
    task = (await gw.execute(item, "1", user="alice", lock="lock-1", wait=False)).data["taskId"]
    agent.tasks[task]["status"] = "Running"
    ticket = item["metadata"]["uid"]
    await in_use(gw, ticket)
    assert (await unlock(gw, ticket, user=OWNER)).data["isError"] is False
    status = (await gw.get("getEngineStatus", {"engineId": ticket}, user=OWNER)).data
    assert (status["claimed"], status["claimedBy"]) == (False, None)
    assert (await ask(gw, "alice")).body["data"]["reason"] == "TooManyLocks", "her task runs on"


async def test_only_engines_of_the_own_namespace_are_lent(settings: Settings, hands: Clock) -> None:
    """Those of another have other admins, who read all that runs in them."""
    both = settings.model_copy(update={"watch_namespaces": ("linkis", "blue")})
    async with lender(both, hands, MANY) as gw:
        item = await lent(gw, name="in-blue", metadata={"namespace": "blue"})
        answer = await ask(gw, "alice", explain=True)
        assert answer.message == CREATED
        assert answer.data["verdicts"] == []
        assert answer.data["engine"]["ticketId"] != item["metadata"]["uid"]
        assert [name for name, _ in gw.cluster.items] == ["blue", "linkis"]


async def test_plugins_of_one_owner_count_apart(gw: Harness) -> None:
    """An ask without a version is the default entry's: it gets no engine of another, which its count would miss."""
    lends(gw, **GROUP | {"shareLocks": 1})
    spec = PLUGIN["spec"] | {"engineVersion": "3.12", "default": False} | GROUP | {"shareLocks": 1}
    gw.plugins.on_event("ADDED", plugin_of({"metadata": {"name": "python-3.12"}, "spec": spec}))
    for number in range(3):
        await lent(gw, name=f"other-{number}", status={"engineVersion": "3.12"})
    labels = LABELS | {"engineType": "python", "userCreator": "alice-IDE"}
    assert (await ask(gw, "alice", labels=labels)).message == CREATED
    assert made(gw)[-1]["spec"]["engineVersion"] == "3.11"
    assert (await ask(gw, "alice", labels=labels)).body["data"]["reason"] == "TooManyLocks"
    other = labels | {"engineType": "python-3.12"}
    assert (await ask(gw, "alice", labels=other)).message == REUSED
    assert (await ask(gw, "alice", labels=other)).body["data"]["reason"] == "TooManyLocks"


async def test_a_place_is_given_back_where_no_engine_came_of_it(gw: Harness) -> None:
    lends(gw, **GROUP | {"shareLocks": 1})
    gw.cluster.fail = {verb: Unreachable("away") for verb in ("create", "get")}
    assert (await ask(gw, "alice")).http != 200
    assert (await ask(gw, "alice")).message == CREATED


async def test_askers_of_one_gateway_get_different_engines(gw: Harness) -> None:
    free = {(await lent(gw, name=f"free-{number}"))["metadata"]["uid"] for number in range(4)}
    answers = await asyncio.gather(*(ask(gw, user) for _ in range(5) for user in ("alice", "ann")))
    assert set(tickets(answers, REUSED)) == free
    assert len({*tickets(answers, REUSED), *tickets(answers, CREATED)}) == 10


async def test_askers_of_two_gateways_get_different_engines(gw: Harness, other: Harness) -> None:
    free = {(await lent(gw, name=f"free-{number}"))["metadata"]["uid"] for number in range(6)}
    asks = [ask(harness, user) for _ in range(3) for harness in (gw, other) for user in ("alice", "ann")]
    answers = await asyncio.gather(*asks)
    assert set(tickets(answers, REUSED)) == free
    assert len({*tickets(answers, REUSED), *tickets(answers, CREATED)}) == 12


async def test_a_gateway_whose_watch_is_behind_finds_the_new_lock_and_not_the_old_one(
    gw: Harness, other: Harness
) -> None:
    item = await lent(gw, agent=(agent := Agent()))
    first = (await ask(gw, "alice")).data["engine"]
    with behind(gw):
        await unlock(gw, first["ticketId"], {"lock": first["lock"]}, user="alice")
        second = (await ask(gw, "ann")).data["engine"]
        assert second["ticketId"] == first["ticketId"]
        late = await other.execute(item, "1", user="alice", lock=first["lock"])
        assert late.http == 403, "its watch still has her lock"
        assert agent.paths == ["/v1/tasks"], "as the unlock asked"
        assert (await other.execute(item, "1", user="ann", lock=second["lock"])).http == 200
    assert len(agent.tasks) == 1


async def test_a_task_is_read_through_a_gateway_that_has_not_heard_of_the_lock(gw: Harness, other: Harness) -> None:
    item = await lent(gw, agent=Agent())
    with behind(gw):
        lock = (await ask(gw, "alice")).data["engine"]["lock"]
        task = (await gw.execute(item, "1", user="alice", lock=lock)).data["taskId"]
        query = {"engineId": item["metadata"]["uid"], "taskId": task}
        assert (await other.get("getTask", query, user="alice")).http == 200
        assert (await other.get("getTask", query, user="eve")).http == 403


async def test_code_and_a_change_of_the_lock_at_once_never_run_in_anothers_kernel(gw: Harness, other: Harness) -> None:
    item = await lent(gw, agent=(agent := Agent()))
    for number in range(10):
        user, next_user = ("alice", "ann") if number % 2 else ("ann", "alice")
        held_by(gw, item, user, f"lock-{number}")
        late = [gateway.execute(item, user, user=user, lock=f"lock-{number}") for gateway in (gw, other)]
        change = asyncio.get_running_loop().run_in_executor(None, lambda: None)
        running = asyncio.gather(*late)
        await change
        held_by(gw, item, next_user, f"next-{number}")
        answers = [*await running, await other.execute(item, next_user, user=next_user, lock=f"next-{number}")]
        assert {answer.http for answer in answers} <= {200, 403, 400}
    users: dict[str, set[str]] = {}
    for kernel_user, task in zip(agent.kernel_users, agent.tasks.values(), strict=True):
        users.setdefault(kernel_user, set()).add(task["code"])
    assert sorted(map(sorted, users.values())) == [["alice"], ["ann"]], "each kernel has one user's code"


async def test_an_engine_that_its_operator_does_not_lend_is_stopped_and_said(gw: Harness, hands: Clock) -> None:
    why = "No admission policy is in force that asks its author for the right to the user and the group."
    operator_accepts(gw, share={"shared": False, "message": why})
    answer = await ask(gw, "alice")
    assert answer.http == 503
    assert why in answer.message
    (item,) = gw.cluster.items.values()
    assert item["spec"]["desiredState"] == "Stopped"
    assert not {"engine", "ticketId"} & answer.body["data"].keys()
    assert answer.body["data"]["reason"] == "NotLendable"
    hands.now += NOT_LENT_FOR
    operator_accepts(gw, share=None)
    assert "it is older than this gateway" in (await ask(gw, "alice")).message


async def test_a_no_of_the_operator_counts_for_the_next_askers_too(gw: Harness, hands: Clock) -> None:
    """Else each ask makes an engine, only to stop it."""
    operator_accepts(gw, share={"shared": False, "message": "No admission policy is in force."})
    for user in ("alice", "ann", "alice"):
        answer = await ask(gw, user)
        assert (answer.http, answer.body["data"]["canRetry"]) == (503, True)
        assert "No admission policy is in force. Make an engine of your own" in answer.message
    assert len(made(gw)) == 1
    operator_accepts(gw)
    await lent(gw)
    assert (await ask(gw, "alice")).message == REUSED, "what is lent is given out all the same"
    lends(gw, **MANY | {"shareLocks": 50})
    assert (await ask(gw, "ann")).message == CREATED, "another plugin may be another answer"
    lends(gw, **MANY)
    assert (await ask(gw, "ann")).http == 503
    hands.now += NOT_LENT_FOR
    assert (await ask(gw, "ann")).message == CREATED


async def test_who_has_lost_the_answers_finds_the_own_locks(gw: Harness, hands: Clock) -> None:
    lends(gw, **GROUP)
    engines = [(await ask(gw, "alice")).data["engine"] for _ in range(2)]
    refused = await ask(gw, "alice", explain=True)
    data = refused.body["data"]
    found = {(lock["engine"], lock["instance"], lock["lock"]) for lock in data["locks"]}
    assert found == {(one["ticketId"], one["serviceInstance"]["instance"], one["lock"]) for one in engines}
    ends = data["locks"][0]["until"]
    assert f"the first at {ends}" in refused.message
    assert {one["lock"] for one in data["verdicts"]} == {one["lock"] for one in engines}
    assert all(one["sentence"] == f"you hold it until {ends}; its lock is {one['lock']}" for one in data["verdicts"])
    others = (await ask(gw, "ann", explain=True)).raw.decode()
    assert not any(one["lock"] in others for one in engines)
    lock = data["locks"][0]
    assert (await unlock(gw, lock["engine"], {"lock": lock["lock"]}, user="alice")).data["isError"] is False
    assert (await ask(gw, "alice")).message == REUSED


async def test_a_start_that_fails_tells_its_reason_and_nothing_of_the_engine(gw: Harness) -> None:
    operator_accepts(gw, engineState="Failed", reason="ImagePullBackOff", message="No image. Check the image's name.")
    answer = await ask(gw, "alice")
    assert "Check the image's name." in answer.message
    data: dict[str, Any] = answer.body["data"]
    assert data["reason"] == "ImagePullBackOff"
    assert not {"engine", "ticketId"} & data.keys()


async def test_limits_of_people_count_for_the_owner(settings: Settings, hands: Clock) -> None:
    limited = settings.model_copy(update={"limits": Limits(user=Amount(1))})
    async with lender(limited, hands, MANY) as few:
        assert (await ask(few, "alice")).message == CREATED
        refused = await ask(few, "ann")
        assert refused.body["data"]["reason"] == "LimitReached"
        assert OWNER in refused.message
        names = [name for _, name in few.cluster.items]
        assert not any(name in refused.raw.decode() for name in names), "they may be another group's"
        assert "createEngineConnection" in refused.body["data"]["remedy"]
    few_cpus = settings.model_copy(update={"limits": Limits(user=Amount(cpu_milli=100))})
    async with lender(few_cpus, hands, MANY) as none:
        refused = await ask(none, "ann")
        assert refused.body["data"]["canRetry"] is False
        assert "no room for a single one" in refused.message


async def test_a_limit_that_the_operator_finds_names_no_engine_either(gw: Harness) -> None:
    why = "User pool has 1 of 1 engines: stop one of linkis/python-pool-abc123."
    operator_accepts(gw, engineState="Starting", reason="LimitReached", message=why)
    refused = await ask(gw, "ann")
    assert refused.body["data"]["reason"] == "LimitReached"
    assert "abc123" not in refused.raw.decode()


async def test_at_level_server_nobodys_group_matters(settings: Settings, hands: Clock) -> None:
    async with lender(settings, hands, SERVER) as gw:
        item = await lent(gw, group="")
        assert (await ask(gw, "token")).data["engine"]["ticketId"] == item["metadata"]["uid"]
        await ask(gw, "eve")
        assert made(gw)[-1]["spec"]["share"] == {"level": "server"}
