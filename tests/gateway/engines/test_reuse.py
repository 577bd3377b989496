"""askEngineConn gives no engine to two askers, on one gateway or on two, and a claim ends by itself."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest

from linkis_ecm.engine.matching import CLAIM_ANNOTATION, CLAIM_HOLD, CLAIM_LONGEST, Claim
from linkis_ecm.engine.times import format_time
from linkis_ecm.gateway.inventory.claims import EXPLAINED_MAX
from linkis_ecm.gateway.methods.commands import COMMANDS
from linkis_ecm.kube.errors import Conflict, Unreachable
from tests.gateway.engines.test_create import becomes
from tests.gateway.engines.test_linkis import LABELS, send
from tools.testkit.gateway.harness import Answer, Harness
from tools.testkit.gateway.replicas import NOW, Clock, SlowWrites, behind

REUSED, CREATED = "reuse engineConn ended.", "create engineConn ended."


@pytest.fixture
def gw(first: Harness) -> Harness:
    return first


@pytest.mark.parametrize(
    ("status", "remedy", "can_retry"),
    [
        ({"reason": "PodScheduled"}, "with a longer timeout", True),
        ({"reason": "Unschedulable"}, "Ask for less cpu or memory", True),
        ({"reason": "ImagePullBackOff", "message": "No image. Check the image's name."}, "Check the image's", False),
    ],
)
async def test_an_asker_whose_engine_is_not_ready_in_time_gets_the_causes_remedy(
    gw: Harness, status: dict[str, str], remedy: str, can_retry: bool
) -> None:
    becomes(gw, {"engineState": "Starting"} | status)
    answer = await send(gw, "askEngineConn", {"labels": LABELS, "timeOut": 1000})
    assert answer.body["status"] == 1
    assert remedy in answer.message
    assert ("longer timeout" in answer.message) is (status["reason"] == "PodScheduled")
    data = answer.body["data"]
    assert remedy in data["remedy"]
    assert (data["reason"], data["canRetry"]) == (status["reason"], can_retry)


async def ask(gw: Harness, **more: Any) -> Answer:
    return await send(gw, "askEngineConn", {"labels": LABELS, "timeOut": 5000} | more)


def tickets(answers: list[Answer], message: str) -> list[str]:
    return [answer.data["engine"]["ticketId"] for answer in answers if answer.message == message]


def claim_of(gw: Harness, item: dict[str, Any]) -> Claim | None:
    view = gw.engines.get((item["metadata"]["namespace"], item["metadata"]["name"]))
    assert view is not None
    return view.claim


async def test_concurrent_callers_get_different_engines(gw: Harness) -> None:
    free = {gw.engine(name=f"free-{number}")["metadata"]["uid"] for number in range(4)}
    answers = await asyncio.gather(*(ask(gw) for _ in range(10)))
    reused, created = tickets(answers, REUSED), tickets(answers, CREATED)
    assert set(reused) == free
    assert len({*reused, *created}) == 10
    assert isinstance(gw.cluster, SlowWrites)
    assert gw.cluster.tried == len(free), "one write for each claim, and none for nothing"


async def test_concurrent_callers_of_two_gateways_get_different_engines(gw: Harness, other: Harness) -> None:
    free = {gw.engine(name=f"free-{number}")["metadata"]["uid"] for number in range(6)}
    answers = await asyncio.gather(*(ask(harness) for _ in range(5) for harness in (gw, other)))
    reused, created = tickets(answers, REUSED), tickets(answers, CREATED)
    assert set(reused) == free
    assert len({*reused, *created}) == 10


async def test_the_slower_of_two_callers_gets_the_next_engine(gw: Harness, other: Harness) -> None:
    """The other replica's watch has not told of the claim: the API server refuses its write."""
    first = gw.engine(name="first", status={"stateSince": "2026-11-24T04:00:00Z"})["metadata"]["uid"]
    second = gw.engine(name="second", status={"stateSince": "2026-11-24T05:00:00Z"})["metadata"]["uid"]
    with behind(gw):
        assert (await ask(gw)).data["engine"]["ticketId"] == first
    stale = other.engines.resolve(first)
    assert stale is not None
    assert stale.claim is None
    answer = await ask(other)
    assert (answer.message, answer.data["engine"]["ticketId"]) == (REUSED, second)
    known = other.engines.resolve(first)
    assert known is not None
    assert known.claim is not None, "what the Conflict taught is kept"
    assert (await ask(other)).message == CREATED


async def test_a_changed_but_free_engine_is_still_claimed(gw: Harness, other: Harness) -> None:
    """A Conflict because the operator wrote the status is no claim."""
    item = gw.engine()
    with behind(gw):
        gw.cluster.put(item | {"metadata": item["metadata"] | {"resourceVersion": "8"}})
    answer = await ask(other)
    assert (answer.message, answer.data["engine"]["ticketId"]) == (REUSED, item["metadata"]["uid"])


@pytest.mark.parametrize(
    "changes", [{"spec": {"desiredState": "Stopped"}}, {"status": {"engineState": "Busy"}}, {"spec": {"user": "bob"}}]
)
async def test_an_engine_that_changed_into_another_is_not(
    gw: Harness, other: Harness, changes: dict[str, dict[str, Any]]
) -> None:
    item = gw.engine()
    changed = {part: item[part] | change for part, change in changes.items()}
    with behind(gw):
        gw.cluster.put(item | {"metadata": item["metadata"] | {"resourceVersion": "8"}} | changed)
    assert (await ask(other)).message == CREATED
    assert claim_of(gw, item) is None


async def test_an_engine_that_is_gone_is_not_given_out(gw: Harness, other: Harness) -> None:
    item = gw.engine()
    with behind(gw):
        gw.cluster.drop(item)
    assert (await ask(other)).message == CREATED


async def test_a_claim_ends_by_itself(gw: Harness, hands: Clock) -> None:
    """As after a gateway that died with the engine in its hands."""
    gone = Claim("a call of a gateway that is gone", NOW + CLAIM_HOLD)
    item = gw.engine(metadata={"annotations": {CLAIM_ANNOTATION: gone.text()}})
    assert (await ask(gw)).message == CREATED
    hands.now += CLAIM_HOLD
    answer = await ask(gw)
    assert (answer.message, answer.data["engine"]["ticketId"]) == (REUSED, item["metadata"]["uid"])
    now = claim_of(gw, item)
    assert now is not None
    assert now.by == answer.data["engine"]["lock"] != gone.by


async def test_a_claim_by_hand_for_ever_does_not_count(gw: Harness) -> None:
    text = Claim("by hand", NOW + CLAIM_LONGEST + timedelta(days=9999)).text()
    gw.engine(metadata={"annotations": {CLAIM_ANNOTATION: text}})
    assert (await ask(gw)).message == REUSED


async def test_a_new_engine_is_claimed_for_its_caller(gw: Harness, hands: Clock) -> None:
    made = await ask(gw)
    assert made.message == CREATED
    ((_, _, body),) = gw.cluster.writes
    written = json.loads(body["metadata"]["annotations"][CLAIM_ANNOTATION])
    assert written["by"] == made.data["engine"]["lock"]
    again = await ask(gw)
    assert again.message == CREATED
    assert again.data["engine"]["ticketId"] != made.data["engine"]["ticketId"]
    # The start's 5 s and the hold.
    hands.now += timedelta(seconds=5) + CLAIM_HOLD
    assert (await ask(gw)).message == REUSED


async def unlock(gw: Harness, ticket: str, parameters: dict[str, Any] | None = None, **more: Any) -> Answer:
    body = {"engineId": ticket, "command": "unlock", "parameters": parameters or {}}
    return await gw.post("sendEngineCommand", body, **more)


async def test_an_unlocked_engine_is_free_again(gw: Harness) -> None:
    item = gw.engine()
    engine = (await ask(gw)).data["engine"]
    ticket, lock = engine["ticketId"], engine["lock"]
    wrong = (await unlock(gw, ticket, {"lock": "another"})).data
    assert wrong["isError"] is True
    assert "that is not the lock of engine" in wrong["errorMsg"]
    assert "if you have mistyped it, you still hold the engine" in wrong["errorMsg"]
    assert (await unlock(gw, ticket, {"lock": 7})).data["isError"] is True
    assert (await unlock(gw, ticket, {"lock": lock}, user="bob")).http == 403
    assert claim_of(gw, item) == Claim(lock, NOW + CLAIM_HOLD)
    for _ in range(2):
        done = (await unlock(gw, ticket, {"lock": lock})).data
        assert done["isError"] is False, "twice is a success"
    assert claim_of(gw, item) is None
    assert CLAIM_ANNOTATION not in gw.cluster.items["linkis", item["metadata"]["name"]]["metadata"]["annotations"]
    again = await ask(gw)
    assert (again.message, again.data["engine"]["ticketId"]) == (REUSED, ticket)
    assert (await unlock(gw, ticket)).data["isError"] is False, "the owner may, without the lock"
    assert claim_of(gw, item) is None


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_parameter_that_a_command_does_not_read_is_refused(gw: Harness, command: str) -> None:
    """A misspelled lock would release whoever's claim it is."""
    item = gw.engine()
    engine = (await ask(gw)).data["engine"]
    body = {"engineId": engine["ticketId"], "command": command, "parameters": {"lok": "x"}}
    answer = await gw.post("sendEngineCommand", body)
    assert answer.http == 400
    assert f"Unknown parameter 'lok': the command {command} takes" in answer.message
    assert claim_of(gw, item) == Claim(engine["lock"], NOW + CLAIM_HOLD)
    linkis = {"instance": engine["serviceInstance"]["instance"], "parameters": {"__operator_name__": command, "lok": 1}}
    told = (await send(gw, "executeEngineConnOperation", linkis)).data
    assert told["isError"] is True
    assert "'lok'" in told["errorMsg"]
    assert claim_of(gw, item) is not None


async def test_a_claim_is_shown_to_owner_and_admin(gw: Harness, hands: Clock) -> None:
    item = gw.engine()
    query = {"engineId": item["metadata"]["uid"]}
    free = (await gw.get("getEngineStatus", query)).data
    assert (free["claimed"], free["claimedBy"], free["claimedUntil"]) == (False, None, None)
    lock = (await ask(gw)).data["engine"]["lock"]
    until = format_time(NOW + CLAIM_HOLD)
    for user in ("alice", "root"):
        shown = (await gw.get("getEngineStatus", query, user=user)).data
        assert (shown["claimed"], shown["claimedBy"], shown["claimedUntil"]) == (True, lock, until)
        assert shown["available"] is True, "the holder's code is taken"
        summary = (await gw.get("explainEngine", query, user=user)).data["summary"]
        assert f"It is claimed by {lock} until {until}; askEngineConn gives it to nobody else." in summary
    (listed,) = (await gw.get("listEngines")).data["engines"]
    assert listed["claimed"] is True
    assert (await gw.get("getEngineStatus", query, user="bob")).http == 403
    hands.now += CLAIM_HOLD
    assert (await gw.get("getEngineStatus", query)).data["claimed"] is False
    assert "claimed" not in (await gw.get("explainEngine", query)).data["summary"]


async def test_a_claimed_process_is_given_to_nobody_until_it_is_given_back(gw: Harness, hands: Clock) -> None:
    """It reports no activity, so it looks idle while somebody works with it."""
    item = gw.engine(status={"launch": {"kind": "process", "port": 8080}, "reason": "ProcessReady"})
    ticket = item["metadata"]["uid"]
    first = await ask(gw)
    assert (first.message, first.data["engine"]["ticketId"]) == (REUSED, ticket)
    lock = first.data["engine"]["lock"]
    hands.now += 100 * CLAIM_HOLD
    shown = (await gw.get("getEngineStatus", {"engineId": ticket})).data
    assert (shown["claimed"], shown["claimedBy"], shown["claimedUntil"]) == (True, lock, None)
    assert "given back by the command unlock" in (await gw.get("explainEngine", {"engineId": ticket})).data["summary"]
    assert (await ask(gw)).message == CREATED
    assert (await unlock(gw, ticket, {"lock": "another"})).data["isError"] is True
    assert (await unlock(gw, ticket, {"lock": lock})).data == {"result": {}, "errorMsg": "", "isError": False}
    again = await ask(gw)
    assert (again.message, again.data["engine"]["ticketId"]) == (REUSED, ticket)


async def test_a_late_unlock_leaves_the_next_askers_claim(gw: Harness, hands: Clock) -> None:
    item = gw.engine()
    first = (await ask(gw)).data["engine"]
    hands.now += CLAIM_HOLD
    second = (await ask(gw)).data["engine"]
    assert second["ticketId"] == first["ticketId"]
    assert (await unlock(gw, first["ticketId"], {"lock": first["lock"]})).data["isError"] is True
    kept = claim_of(gw, item)
    assert kept is not None
    assert kept.by == second["lock"]


async def test_unlock_is_an_operator_of_linkis_too(gw: Harness) -> None:
    item = gw.engine()
    engine = (await ask(gw)).data["engine"]
    body = {
        "applicationName": "linkis-cg-engineconn", "instance": engine["serviceInstance"]["instance"],
        "parameters": {"__operator_name__": "unlock", "lock": engine["lock"]},
    }  # fmt: skip
    assert (await send(gw, "executeEngineConnOperation", body)).data["isError"] is False
    assert claim_of(gw, item) is None


async def test_without_the_api_server_nothing_is_given_out(gw: Harness) -> None:
    item = gw.engine()
    gw.cluster.fail["patch"] = Unreachable("cut")
    refused = await ask(gw)
    assert refused.http == 503
    assert refused.message.startswith("Create engineConn failed, caused by The API server does not take the claim")
    assert claim_of(gw, item) is None
    assert (await ask(gw)).message == REUSED, "the failed call holds nothing"


async def test_an_engine_that_changes_too_often_is_not_claimed(gw: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    gw.engine()

    async def refuse(*_: Any, **__: Any) -> dict[str, Any]:
        raise Conflict(409, "Conflict", "modified")

    monkeypatch.setattr(gw.cluster, "patch", refuse)
    assert (await ask(gw)).message == CREATED


MEMORY, CORES = "wds.linkis.engineconn.java.driver.memory", "wds.linkis.engineconn.java.driver.cores"


async def test_an_engine_that_is_too_small_is_not_given_out(gw: Harness) -> None:
    small = gw.engine(name="small", spec={"resources": {"cpu": "1", "memory": "1Gi"}})["metadata"]["uid"]
    big = gw.engine(name="big", spec={"resources": {"cpu": "2", "memory": "4Gi"}})["metadata"]["uid"]
    first = await ask(gw, properties={MEMORY: "2g"})
    assert (first.message, first.data["engine"]["ticketId"]) == (REUSED, big)
    second = await ask(gw, properties={MEMORY: "2g"})
    assert second.message == CREATED
    made = gw.engines.resolve(second.data["engine"]["ticketId"])
    assert made is not None
    assert made.memory_bytes == 2 << 30
    third = await ask(gw, properties={CORES: 1})
    assert (third.message, third.data["engine"]["ticketId"]) == (REUSED, small)


async def test_an_engine_without_a_size_of_its_own_has_its_plugins(gw: Harness) -> None:
    plugin = next(iter(gw.plugins))
    own = gw.engine(name="plain")["metadata"]["uid"]
    over = await ask(gw, properties={MEMORY: f"{(plugin.memory_bytes >> 20) + 1}m"})
    assert over.message == CREATED
    just = await ask(gw, properties={MEMORY: f"{plugin.memory_bytes >> 20}m"})
    assert (just.message, just.data["engine"]["ticketId"]) == (REUSED, own)


async def test_it_is_explained_on_request_why_each_own_engine_fits_or_not(gw: Harness) -> None:
    uids = {
        name: gw.engine(name=name, **changes)["metadata"]["uid"]
        for name, changes in {
            "free": {"spec": {"resources": {"cpu": "1", "memory": "4Gi"}}},
            "small": {"spec": {"resources": {"cpu": "1", "memory": "1Gi"}}},
            "busy": {"spec": {"resources": {"cpu": "1", "memory": "4Gi"}}, "status": {"engineState": "Busy"}},
            "ended": {"status": {"engineState": "Failed"}},
            "bobs": {"spec": {"user": "bob", "resources": {"cpu": "1", "memory": "4Gi"}}},
        }.items()
    }
    asked = {"properties": {MEMORY: "2g"}, "explain": True}
    answer = await ask(gw, **asked)
    assert (answer.message, answer.data["engine"]["ticketId"]) == (REUSED, uids["free"])
    found = {one["engine"]: (one["verdict"], one["sentence"]) for one in answer.data["verdicts"]}
    assert found == {
        uids["free"]: ("Fits", "it is free and has what is asked for"),
        uids["small"]: ("TooSmall", "its memory is 1Gi, asked is 2Gi"),
        uids["busy"]: ("NotFree", "it is Busy"),
    }, "neither another user's engine nor one that has ended"
    again = await ask(gw, **asked)
    assert again.message == CREATED
    assert {one["engine"]: one["verdict"] for one in again.data["verdicts"]}[uids["free"]] == "Claimed"
    assert "verdicts" not in (await ask(gw)).data


async def test_a_label_of_another_user_explains_none_of_his_engines(gw: Harness) -> None:
    gw.engine(name="bobs", spec={"user": "bob"})
    labels = LABELS | {"userCreator": "bob-IDE"}
    answer = await ask(gw, labels=labels, explain=True)
    assert (answer.message, answer.data["verdicts"]) == (CREATED, []), "the login is the user"


async def test_a_refusal_explains_too(gw: Harness) -> None:
    uid = gw.engine(name="small")["metadata"]["uid"]
    labels = LABELS | {"engineType": "cobol-1"}
    refused = await ask(gw, labels=labels, explain=True)
    assert refused.message.startswith("Create engineConn failed, caused by engineType is 'cobol'")
    (one,) = refused.body["data"]["verdicts"]
    assert (one["engine"], one["verdict"]) == (uid, "OtherType")


async def test_the_explanation_is_bounded(gw: Harness) -> None:
    for number in range(EXPLAINED_MAX + 5):
        created = f"2026-11-24T{number // 60:02}:{number % 60:02}:00Z"
        gw.engine(name=f"e{number}", metadata={"creationTimestamp": created}, status={"engineState": "Busy"})
    newest = gw.engines.get(("linkis", f"e{EXPLAINED_MAX + 4}"))
    assert newest is not None
    verdicts = (await ask(gw, explain=True)).data["verdicts"]
    assert (len(verdicts), verdicts[0]["engine"]) == (EXPLAINED_MAX, newest.ticket_id)


async def test_the_wait_for_an_engine_is_counted_by_where_it_came_from(gw: Harness) -> None:
    gw.engine(name="free")
    answers = [await ask(gw) for _ in range(3)]
    assert [answer.message for answer in answers] == [REUSED, CREATED, CREATED]
    text = gw.gateway.metrics.registry.open_metrics().decode()
    assert 'ecm_gateway_engine_wait_seconds_count{origin="reuse"} 1.0' in text
    assert 'ecm_gateway_engine_wait_seconds_count{origin="cold"} 2.0' in text
    assert f'ticket="{answers[0].data["engine"]["ticketId"]}"' in text


@pytest.mark.parametrize("name", ["explian", "explained", "timeoutSeconds", "workingDir"])
async def test_a_field_that_linkis_has_not_and_that_would_be_passed_over_is_named(gw: Harness, name: str) -> None:
    refused = await ask(gw, **{name: True})
    assert refused.http == 400
    assert f"Parameter {name} has no effect here" in refused.message
    assert gw.cluster.writes == []


async def test_a_field_of_another_version_of_linkis_is_left_alone(gw: Harness) -> None:
    gw.engine()
    assert (await ask(gw, ignoreTimeout=True, engineConnMode="x")).message == REUSED


async def test_what_cannot_be_read_is_named_with_an_example_of_its_own(gw: Harness) -> None:
    lots = await ask(gw, properties={"spark.driver.memory": "lots"})
    assert "properties.spark.driver.memory is 'lots': write memory like 512m or 2g" in lots.message
