"""Locks of engines: who holds one as REST shows it, code that is sent with a lock, and engines that are not shared."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web

from linkis_ecm.engine.matching import CLAIM_ANNOTATION, CLAIM_HOLD, HOLD_LONGEST, Claim, parse_claim
from linkis_ecm.engine.times import format_time
from linkis_ecm.gateway.inventory.view import plugin_of
from linkis_ecm.kube.errors import Unreachable
from tests.gateway.engines.test_linkis import LABELS, get, send
from tests.gateway.engines.test_reuse import CREATED, REUSED, ask, claim_of, unlock
from tests.gateway.tasks.test_execute import RESULT, succeed
from tools.testkit.gateway.harness import PLUGIN, Answer, Harness, ScriptedAgent
from tools.testkit.gateway.replicas import NOW, Clock, behind

HALF = CLAIM_HOLD / 2
Item = dict[str, Any]


@pytest.fixture
def gw(first: Harness) -> Harness:
    return first


def becomes(gw: Harness, item: Item, state: str) -> None:
    """The operator writes that the engine's state changed now."""
    known = gw.cluster.items["linkis", item["metadata"]["name"]]
    version = str(int(known["metadata"]["resourceVersion"]) + 1)
    status = known["status"] | {"engineState": state, "stateSince": format_time(gw.clock())}
    gw.cluster.put(known | {"metadata": known["metadata"] | {"resourceVersion": version}, "status": status})


async def shown(gw: Harness, ticket: str) -> tuple[str, str | None]:
    node = (await send(gw, "getEngineConn", {"ticketId": ticket})).data["engine"]
    return node["nodeStatus"], node["lock"]


async def lock(gw: Harness, ticket: str, **parameters: Any) -> Answer:
    body = {"engineId": ticket, "command": "lock", "parameters": parameters}
    return await gw.post("sendEngineCommand", body)


def claims_written(gw: Harness) -> int:
    return sum(verb == "patch" for verb, _, _ in gw.cluster.writes)


async def test_linkis_sees_unlock_idle_and_busy_as_its_own_engines_have_them(gw: Harness, hands: Clock) -> None:
    item = gw.engine()
    ticket = item["metadata"]["uid"]
    assert await shown(gw, ticket) == ("Unlock", None)
    key = (await ask(gw)).data["engine"]["lock"]
    assert await shown(gw, ticket) == ("Idle", key)
    becomes(gw, item, "Busy")
    hands.now += 10 * CLAIM_HOLD
    assert await shown(gw, ticket) == ("Busy", key)
    becomes(gw, item, "Idle")
    hands.now += CLAIM_HOLD - timedelta(seconds=1)
    assert await shown(gw, ticket) == ("Idle", key), "the hold begins anew with the end of a task"
    assert (await ask(gw)).message == CREATED
    hands.now += timedelta(seconds=1)
    assert await shown(gw, ticket) == ("Unlock", None), "by the clock, with no write"
    assert (await ask(gw)).data["engine"]["ticketId"] == ticket
    await unlock(gw, ticket)
    assert await shown(gw, ticket) == ("Unlock", None)


async def test_every_list_of_linkis_has_the_lock(gw: Harness) -> None:
    free, held = (gw.engine(name=name)["metadata"]["uid"] for name in ("free", "held"))
    key = (await lock(gw, held)).data["result"]["lock"]
    expected = {free: ("Unlock", None), held: ("Idle", key)}
    listed = (await get(gw, "listUserEngines")).data["engines"]
    assert {one["ticketId"]: (one["nodeStatus"], one["lock"]) for one in listed} == expected
    em = {"em": {"serviceInstance": {"instance": "ecm-gateway.linkis:9102"}}}
    listed = (await send(gw, "listEMEngines", em, user="root")).data["engines"]
    assert {one["ticketId"]: (one["nodeStatus"], one["lock"]) for one in listed} == expected
    listed = (await send(gw, "listEMEngines", em | {"nodeStatus": "unlock"}, user="root")).data["engines"]
    assert [one["ticketId"] for one in listed] == [free]
    listed = (await send(gw, "ecinfo/ecList", {"statuss": ["Idle"]}, user="root")).data["ecList"]
    assert [(one["ticketId"], one["instanceStatus"]) for one in listed] == [(held, "Idle")]
    (group,) = (await send(gw, "rm/userresources", {})).data["userResources"]
    nodes = group["engineTypes"][0]["engines"]
    assert {one["ticketId"]: one["nodeStatus"] for one in nodes} == {free: "Unlock", held: "Idle"}


async def test_our_own_calls_say_idle_and_linkis_word_besides(gw: Harness) -> None:
    free, held = (gw.engine(name=name)["metadata"]["uid"] for name in ("free", "held"))
    await lock(gw, held)
    for ticket, word in ((free, "Unlock"), (held, "Idle")):
        engine = (await gw.get("getEngineStatus", {"engineId": ticket})).data
        assert (engine["status"], engine["nodeStatus"], engine["available"]) == ("Idle", word, True)
    for status, expected in (("Idle", {free, held}), ("Unlock", {free}), ("Locked", set())):
        listed = (await gw.get("listEngines", {"status": status})).data["engines"]
        assert {one["engineId"] for one in listed} == expected


async def test_only_what_nobody_holds_is_killed_as_unlocked(gw: Harness) -> None:
    free, held = (gw.engine(name=name) for name in ("free", "held"))
    await lock(gw, held["metadata"]["uid"])
    instances = [one["status"]["serviceInstance"] for one in (free, held)]
    await send(gw, "rm/enginekillAsyn", {"instances": instances}, user="root")
    views = [gw.engines.resolve(instance) for instance in instances]
    assert [view.stop_requested for view in views if view is not None] == [True, False]


# --- code with a lock


async def given(gw: Harness) -> tuple[ScriptedAgent, Item, str]:
    """An engine with a scripted agent, given to an asker: agent, engine, lock."""
    agent, item = await gw.served(succeed)
    answer = await ask(gw)
    assert answer.data["engine"]["ticketId"] == item["metadata"]["uid"]
    return agent, item, answer.data["engine"]["lock"]


async def test_code_runs_with_the_lock_and_without_one(gw: Harness) -> None:
    agent, item, key = await given(gw)
    before = claims_written(gw)
    for more in ({"lock": key}, {}, {"lock": key, "wait": True}):
        assert (await gw.execute(item, **more)).data == RESULT
    assert claims_written(gw) == before, "a young lock costs nothing"
    assert all("lock" not in json.loads(body) for _, _, _, body in agent.requests)


@pytest.mark.parametrize("end", ["over", "given back", "another's", "never"])
async def test_code_with_a_lock_that_holds_no_more_is_refused_before_it_runs(
    gw: Harness, hands: Clock, end: str
) -> None:
    agent, item, key = await given(gw)
    ticket = item["metadata"]["uid"]
    if end == "over":
        hands.now += CLAIM_HOLD
    elif end == "given back":
        await unlock(gw, ticket, {"lock": key})
    elif end == "another's":
        hands.now += CLAIM_HOLD
        assert (await ask(gw)).data["engine"]["ticketId"] == ticket
    else:
        key = "never"
    refused = await gw.execute(item, lock=key)
    assert refused.http == 400
    assert refused.message.startswith(f"lock {key!r} is not the lock of engine linkis/python-alice-abc123 now: it was")
    assert "or send the code without lock" in refused.message
    assert refused.body["data"] == {"reason": "LockNotValid", "canRetry": False}
    assert agent.requests == []
    assert (await gw.execute(item)).data == RESULT, "its owner's other calls need none"


async def test_a_lock_that_is_used_is_renewed_when_half_of_its_hold_is_over(gw: Harness, hands: Clock) -> None:
    """Tasks too short for the engine's status: without a renewal the lock would end between two of them."""
    _, item, key = await given(gw)
    before, began = claims_written(gw), hands.now
    for _ in range(60):
        assert (await gw.execute(item, lock=key)).data == RESULT
        hands.now += timedelta(seconds=30)
    assert hands.now - began == 10 * CLAIM_HOLD
    assert claims_written(gw) - before <= 1 + (hands.now - began) / HALF
    kept = claim_of(gw, item)
    assert kept is not None
    assert kept.by == key
    assert (await ask(gw)).message == CREATED


async def test_a_lock_that_another_replica_gave_out_is_known_here(gw: Harness, other: Harness) -> None:
    agent, item = await gw.served(succeed)
    other.agents.extend(gw.agents)
    with behind(gw):
        key = (await ask(gw)).data["engine"]["lock"]
    stale = other.engines.resolve(item["metadata"]["uid"])
    assert stale is not None
    assert stale.claim is None
    assert (await other.execute(item, lock=key)).data == RESULT
    assert len(agent.requests) == 1


async def test_of_a_renewal_and_an_asker_at_once_one_has_the_engine(gw: Harness, other: Harness, hands: Clock) -> None:
    """In the last instant of the lock the API server decides by the resourceVersion."""
    _, item, key = await given(gw)
    hands.now += CLAIM_HOLD - timedelta(milliseconds=1)

    async def an_instant_later() -> Answer:
        await asyncio.sleep(0)
        hands.now += timedelta(milliseconds=1)
        return await ask(other)

    used, asked = await asyncio.gather(gw.execute(item, lock=key), an_instant_later())
    taken = asked.message == REUSED
    assert taken is (used.http == 400)
    kept = claim_of(gw, item)
    assert kept is not None
    assert (kept.by == key) is not taken


async def test_a_repeated_call_has_its_task_also_when_its_lock_is_over(gw: Harness, hands: Clock) -> None:
    known: list[str] = []

    async def agent_of_one_task(request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            known.append(json.loads(await request.read())["taskId"])
            return web.json_response(RESULT)
        if request.path.rpartition("/")[2] in known:
            return web.json_response({"taskId": known[0], "status": "Succeed"})
        return web.json_response({"error": "no such task"}, status=404)

    _, item = await gw.served(agent_of_one_task)
    key = (await ask(gw)).data["engine"]["lock"]
    assert (await gw.execute(item, lock=key, idempotencyKey="k-1")).data == RESULT
    hands.now += CLAIM_HOLD
    assert (await gw.execute(item, lock=key, idempotencyKey="k-1")).data == RESULT
    assert (await gw.execute(item, lock=key, idempotencyKey="k-2")).body["data"]["reason"] == "LockNotValid"


async def test_without_the_api_server_a_lock_is_used_until_it_has_to_be_renewed(gw: Harness, hands: Clock) -> None:
    agent, item, key = await given(gw)
    gw.cluster.fail["patch"] = Unreachable("cut")
    assert (await gw.execute(item, lock=key)).data == RESULT
    hands.now += HALF + timedelta(seconds=1)
    refused = await gw.execute(item, lock=key)
    assert refused.http == 503
    assert "does not take the claim" in refused.message
    assert len(agent.requests) == 1
    assert (await gw.execute(item, lock=key)).data == RESULT


# --- the command lock


async def test_an_engine_is_locked_by_its_owner_until_it_is_given_back(gw: Harness) -> None:
    item = gw.engine()
    ticket = item["metadata"]["uid"]
    taken = (await lock(gw, ticket)).data
    assert taken["isError"] is False
    key = taken["result"]["lock"]
    assert taken["result"] == {"lockStatus": True, "lock": key, "msg": ""}
    assert claim_of(gw, item) == Claim(key, NOW + CLAIM_HOLD)
    assert (await ask(gw)).message == CREATED
    again = (await lock(gw, ticket)).data["result"]
    assert (again["lockStatus"], again["lock"]) == (False, None)
    assert again["msg"].startswith("Engine is busy. engine linkis/python-alice-abc123: it is claimed by another call")
    assert (await unlock(gw, ticket, {"lock": key})).data["isError"] is False
    assert (await lock(gw, ticket)).data["result"]["lockStatus"] is True


@pytest.mark.parametrize(
    ("parameters", "claim"),
    [
        ({"lockType": "Timed", "timeout": -1}, (CLAIM_HOLD, False)),
        ({"timeout": 0}, (CLAIM_HOLD, False)),
        ({"timeout": "90000"}, (HALF, False)),
        ({"timeout": HOLD_LONGEST // timedelta(milliseconds=1)}, (HOLD_LONGEST, False)),
        ({"lockType": "Always"}, (CLAIM_HOLD, True)),
    ],
)
async def test_a_lock_has_the_type_and_time_that_are_asked_for(
    gw: Harness, hands: Clock, parameters: Item, claim: tuple[timedelta, bool]
) -> None:
    item = gw.engine()
    key = (await lock(gw, item["metadata"]["uid"], **parameters)).data["result"]["lock"]
    hold, always = claim
    assert claim_of(gw, item) == Claim(key, NOW + hold, hold, always)
    hands.now += hold
    state = (await gw.get("getEngineStatus", {"engineId": item["metadata"]["uid"]})).data
    assert (state["claimed"], state["claimedUntil"], state["nodeStatus"]) == (
        (True, None, "Idle") if always else (False, None, "Unlock")
    )


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"lockType": "Soft"}, "lockType is 'Soft': give Timed or Always"),
        ({"timeout": 3_000_001}, "timeout is 3000001 ms: give 3000000 at most"),
        ({"timeout": -2}, "timeout is '-2': give a whole number"),
        ({"timeout": 1.5}, "timeout is '1.5': give a whole number"),
    ],
)
async def test_a_lock_that_cannot_be_is_refused(gw: Harness, parameters: Item, text: str) -> None:
    item = gw.engine()
    told = (await lock(gw, item["metadata"]["uid"], **parameters)).data
    assert told["isError"] is True
    assert told["errorMsg"].startswith(text)
    assert claim_of(gw, item) is None


async def test_an_engine_that_has_a_task_or_ends_cannot_be_locked(gw: Harness) -> None:
    for name, changes, text in (
        ("busy", {"status": {"engineState": "Busy"}}, "Engine is busy. engine linkis/busy: it is Busy"),
        ("stopped", {"spec": {"desiredState": "Stopped"}}, "engine linkis/stopped is Idle: it cannot be locked"),
        ("failed", {"status": {"engineState": "Failed"}}, "engine linkis/failed is Failed: it cannot be locked"),
    ):
        ticket = gw.engine(name=name, **changes)["metadata"]["uid"]
        assert (await lock(gw, ticket)).data["result"] == {"lockStatus": False, "lock": None, "msg": text}


async def test_of_many_who_lock_an_engine_on_two_gateways_one_does(gw: Harness, other: Harness) -> None:
    ticket = gw.engine()["metadata"]["uid"]
    answers = await asyncio.gather(*(lock(harness, ticket) for _ in range(5) for harness in (gw, other)))
    assert sorted(answer.data["result"]["lockStatus"] for answer in answers) == [False] * 9 + [True]


async def test_a_stranger_locks_nothing(gw: Harness) -> None:
    item = gw.engine(spec={"user": "bob"})
    assert (await lock(gw, item["metadata"]["uid"])).http == 403
    assert claim_of(gw, item) is None


# --- labels and shares


async def test_an_engine_has_the_labels_of_whoever_asked_for_it_first(gw: Harness) -> None:
    session = {"labels": LABELS | {"fixedEngineConn": "s 1", "tenant": {"tenant": "red"}, "codeType": "python"}}
    made = await ask(gw, **session)
    assert made.message == CREATED
    ticket = made.data["engine"]["ticketId"]
    view = gw.engines.resolve(ticket)
    assert view is not None
    assert (set(view.labels), view.tenant) == ({"fixedEngineConn"}, "red")
    await unlock(gw, ticket)
    foreign = await ask(gw, labels=LABELS | {"fixedEngineConn": "s 2"}, explain=True)
    assert foreign.message == CREATED
    assert foreign.data["verdicts"] == [
        {
            "engine": ticket,
            "verdict": "OtherLabels",
            "sentence": "it does not have the labels asked for: fixedEngineConn",
        }
    ]
    again = await ask(gw, **session)
    assert (again.message, again.data["engine"]["ticketId"]) == (REUSED, ticket)


@pytest.mark.parametrize(
    ("label", "verdict"),
    [({"executeOnce": ""}, "NewWanted"), ({"reuseExclusion": "*"}, "NewWanted"), ({"reuseExclusion": ""}, "Fits")],
)
async def test_a_label_asks_for_a_new_engine(gw: Harness, label: Item, verdict: str) -> None:
    item = gw.engine()
    answer = await ask(gw, labels=LABELS | label, explain=True)
    assert answer.message == (REUSED if verdict == "Fits" else CREATED)
    assert {one["engine"]: one["verdict"] for one in answer.data["verdicts"]}[item["metadata"]["uid"]] == verdict


async def test_an_engine_that_is_excluded_is_passed_over(gw: Harness) -> None:
    first = gw.engine(name="first", status={"stateSince": "2026-11-24T04:00:00Z"})
    second = gw.engine(name="second", status={"stateSince": "2026-11-24T05:00:00Z"})
    labels = LABELS | {"reuseExclusion": {"instances": first["status"]["serviceInstance"].upper()}}
    assert (await ask(gw, labels=labels)).data["engine"]["ticketId"] == second["metadata"]["uid"]


async def test_an_engine_that_was_made_for_one_task_is_given_to_nobody_else(gw: Harness) -> None:
    made = await ask(gw, labels=LABELS | {"executeOnce": "true"})
    await unlock(gw, made.data["engine"]["ticketId"])
    assert (await ask(gw)).message == CREATED


async def test_a_plugin_whose_engines_are_not_shared_makes_each_asker_one(gw: Harness) -> None:
    gw.plugins.on_event("MODIFIED", plugin_of(PLUGIN | {"spec": PLUGIN["spec"] | {"share": "connection"}}))
    item = gw.engine()
    answer = await ask(gw, explain=True)
    assert answer.message == CREATED
    assert answer.data["verdicts"] == [
        {
            "engine": item["metadata"]["uid"],
            "verdict": "NotShared",
            "sentence": "its plugin lets nobody reuse its engines (share: connection)",
        }
    ]
    assert claim_of(gw, item) is None
    gw.plugins.on_event("MODIFIED", plugin_of(PLUGIN))
    assert (await ask(gw)).message == REUSED


async def test_the_claims_text_is_what_a_gateway_before_this_version_reads(gw: Harness) -> None:
    """While a new version is rolled out, both serve: `by` and `until` are all that the older one knows."""
    item = gw.engine()
    await lock(gw, item["metadata"]["uid"], timeout=60_000)
    annotations = gw.cluster.items["linkis", item["metadata"]["name"]]["metadata"]["annotations"]
    body = json.loads(annotations[CLAIM_ANNOTATION])
    assert set(body) == {"by", "until", "hold"}
    older = parse_claim(json.dumps({"by": body["by"], "until": body["until"]}))
    assert older is not None
    assert older.holds(gw.clock())
