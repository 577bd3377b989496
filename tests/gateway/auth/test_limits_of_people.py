"""Limits of people at the gateway: it refuses at once, with figure and remedy, before it makes anything."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from linkis_ecm.engine.admission.limits import parse_limits
from tests.gateway.engines.test_create import READY, TICKET, becomes
from tests.gateway.engines.test_linkis import LABELS, send
from tests.gateway.tasks.test_tasks import sized_pod
from tools.testkit.gateway.harness import Harness, engine_item

Make = Callable[..., Awaitable[Harness]]
LIMITS = '{"user": {"engines": 2}, "users": {"bob": {"engines": 0, "cpu": "1"}}}'
ASKED = {"engineType": "python"}
WAITS = {
    "engineState": "Starting",
    "reason": "LimitReached",
    "message": "A limit is reached. User alice has 2 of 2 engines: stop one of linkis/a, linkis/b.",
    "address": None,
}


@pytest.fixture
async def gw(make: Make) -> Harness:
    return await make(limits=parse_limits(LIMITS))


async def test_an_engine_over_the_limit_is_refused_before_anything_is_made(gw: Harness) -> None:
    for name in ("a", "b"):
        gw.cluster.put(engine_item(name=name))
    answer = await gw.post("createEngineConnection", ASKED)
    assert answer.http == 400
    assert answer.body["message"] == (
        "Create engineConn failed, caused by A limit of engines, cpu or memory is reached. User alice has 2 of 2"
        " engines: stop one of linkis/a, linkis/b. Stop an engine, ask for less, or have the limit raised (ECM_LIMITS,"
        " limits of the chart)."
    )
    assert answer.body["data"]["reason"] == "LimitReached"
    assert answer.body["data"]["canRetry"] is True
    assert gw.cluster.writes == []
    assert 'ecm_engine_refusals_total{limit="user_engines"} 1.0' in gw.gateway.metrics.registry.text().decode()


async def test_ended_and_waiting_engines_and_those_of_another_spelling_do_not_count(gw: Harness) -> None:
    gw.cluster.put(engine_item(name="a"))
    gw.cluster.put(engine_item(name="b", status={"engineState": "Failed"}))
    gw.cluster.put(engine_item(name="c", status=WAITS))
    gw.cluster.put(engine_item(name="d", spec={"user": "Alice"}))
    becomes(gw, READY)
    assert (await gw.post("createEngineConnection", ASKED)).http == 200


async def test_devices_are_counted_as_asked_for_or_as_the_plugins(make: Make) -> None:
    gw = await make(limits=parse_limits('{"user": {"extended": {"nvidia.com/gpu": 2}}}'))
    one = {"resources": {"extended": {"nvidia.com/gpu": 1}}}
    gw.cluster.put(engine_item(name="a", spec=one))
    gw.cluster.put(engine_item(name="b"))
    becomes(gw, READY)
    assert (await gw.post("createEngineConnection", ASKED | one)).http == 200
    gw.cluster.put(engine_item(name="d", spec=one))
    answer = await gw.post("createEngineConnection", ASKED | one)
    assert "User alice has " in answer.message
    assert "of 2 nvidia.com/gpu, and this engine asks for 1" in answer.message
    assert answer.body["data"]["limit"] == "user_extended"
    assert (await gw.post("createEngineConnection", ASKED)).http == 200, "it asks for none"


async def test_sizes_are_those_asked_for_or_the_plugins(gw: Harness) -> None:
    gw.cluster.put(engine_item(name="a", spec={"user": "bob"}))
    becomes(gw, READY)
    assert (await gw.post("createEngineConnection", ASKED | {"user": "bob"}, user="root")).http == 200
    answer = await gw.post("createEngineConnection", ASKED | {"user": "bob"}, user="root")
    assert "User bob has 1 of 1 cpu, and this engine asks for 0.5" in answer.body["message"]
    answer = await gw.post("createEngineConnection", ASKED | {"user": "bob", "resources": {"cpu": "2"}}, user="root")
    assert "user bob may have 1 at a time: ask for 1 at most" in answer.body["message"]
    assert answer.body["data"]["canRetry"] is False


async def test_a_repeated_call_finds_its_engine_also_at_the_limit(gw: Harness) -> None:
    gw.cluster.put(engine_item(name="a"))
    becomes(gw, READY)
    for _ in range(2):
        assert (await gw.post("createEngineConnection", ASKED | {"ticketId": TICKET})).http == 200
    assert len(gw.cluster.writes) == 1


async def test_where_the_operator_refuses_the_call_ends_at_once_and_leaves_no_engine_that_waits(gw: Harness) -> None:
    becomes(gw, {"engineState": "Starting"}, WAITS)
    answer = await gw.post("createEngineConnection", ASKED | {"timeoutSeconds": 60})
    assert answer.http == 400
    assert "User alice has 2 of 2 engines: stop one of linkis/a, linkis/b." in answer.body["message"]
    assert answer.body["data"]["reason"] == "LimitReached"
    assert [verb for verb, _, _ in gw.cluster.writes] == ["create", "patch"]
    assert gw.cluster.writes[-1][2]["spec"] == {"desiredState": "Stopped"}


async def test_an_engine_that_waits_already_is_told_and_left(gw: Harness) -> None:
    gw.cluster.put(engine_item(name="w", spec={"ticketId": TICKET}, status=WAITS))
    answer = await gw.post("createEngineConnection", ASKED | {"ticketId": TICKET})
    assert answer.http == 400
    assert answer.body["data"]["reason"] == "LimitReached"
    assert gw.cluster.writes == []


async def test_ask_engine_conn_gives_a_free_engine_at_the_limit_and_refuses_a_new_one(gw: Harness) -> None:
    for name in ("a", "b"):
        gw.cluster.put(engine_item(name=name, status={"engineState": "Busy"}))
    answer = await send(gw, "askEngineConn", {"labels": LABELS, "timeOut": 5000})
    assert answer.body["message"].startswith("Create engineConn failed, caused by A limit of engines, cpu or memory")
    assert "User alice has 2 of 2 engines: stop one of linkis/a, linkis/b." in answer.body["message"]
    assert answer.body["data"]["reason"] == "LimitReached"
    assert answer.body["data"]["canRetry"] is True
    assert gw.cluster.writes == []


# --- updateResource: an engine that grows in place asks the same rule


def update(gw: Harness, name: str, **resources: str) -> Awaitable[Any]:
    uid = gw.cluster.items["linkis", name]["metadata"]["uid"]
    return gw.post("updateResource", {"engineId": uid, "resources": resources}, user="root")


def running(gw: Harness, name: str, pod: dict[str, Any]) -> None:
    gw.cluster.put(engine_item(name=name, spec={"user": "bob"}, status={"podName": f"{name}-0"}))
    gw.cluster.other_pods["pods", f"{name}-0"] = pod


@pytest.mark.parametrize("figures", ['"cpu": "1500m"', '"memory": "3Gi"'])
@pytest.mark.parametrize("scope", ["user", "namespace"])
async def test_an_engine_may_not_grow_over_a_limit(make: Make, scope: str, figures: str) -> None:
    gw = await make(limits=parse_limits(f'{{"{scope}": {{{figures}}}}}'))
    for name in ("a", "b"):
        running(gw, name, sized_pod("1Gi"))
    answer = await update(gw, "a", cpu="1100m", memory="2100Mi")
    assert answer.http == 400, answer.raw
    assert answer.body["message"].startswith("The resources of ")
    assert "stay as they are. A limit of engines, cpu or memory is reached. " in answer.body["message"]
    assert answer.body["data"]["reason"] == "LimitReached"
    assert answer.body["data"]["limit"].startswith(scope)
    assert answer.body["data"]["canRetry"] is True
    assert gw.cluster.writes == []
    # More than all that there may be: no use to wait.
    fatal = await update(gw, "a", cpu="2", memory="4Gi")
    assert fatal.body["data"]["canRetry"] is False
    assert gw.cluster.writes == []


@pytest.mark.parametrize(
    "resources",
    [{"memory": "0"}, {"memory": "0.1m"}, {"memory": "1"}, {"cpu": "0"}, {"cpu": "0.1m"}, {"cpuLimit": "0"}],
)
async def test_an_engine_cannot_shrink_to_nothing_which_is_no_limit(gw: Harness, resources: dict[str, str]) -> None:
    running(gw, "a", sized_pod("1Gi"))
    answer = await update(gw, "a", **resources)
    assert answer.http == 400
    assert f"Parameter resources.{next(iter(resources))} is " in answer.body["message"]
    assert "canRetry" not in (answer.body["data"] or {})
    assert gw.cluster.writes == []


async def test_an_engine_that_was_stored_with_0_is_mended_and_counted_as_all_that_it_grows_to(make: Make) -> None:
    gw = await make(limits=parse_limits('{"user": {"memory": "3Gi"}}'))
    running(gw, "b", sized_pod("1Gi"))
    gw.cluster.put(engine_item(name="a", spec={"user": "bob", "resources": {"memory": "0"}}, status={"podName": "a-0"}))
    gw.cluster.other_pods["pods", "a-0"] = sized_pod("0")
    refused = await update(gw, "a", memory="2100Mi")
    assert (refused.http, refused.body["data"].get("limit")) == (400, "user_memory"), refused.body
    gw.cluster.other_pods["pods", "a-0"] = sized_pod("1Gi")
    assert (await update(gw, "a", memory="1Gi")).http == 200


async def test_what_fits_may_grow_and_what_shrinks_is_not_asked_also_over_a_lowered_limit(make: Make) -> None:
    gw = await make(limits=parse_limits('{"user": {"engines": 1, "cpu": "800m", "memory": "3Gi"}}'))
    for name in ("a", "b"):
        running(gw, name, sized_pod("2Gi"))
    assert (await update(gw, "a", memory="2Gi")).http == 200
    gw.cluster.other_pods["pods", "a-0"] = sized_pod("1Gi")
    assert (await update(gw, "a", memory="1Gi")).http == 200


async def test_of_two_engines_that_grow_at_a_time_the_second_counts_the_first(make: Make) -> None:
    gw = await make(limits=parse_limits('{"user": {"memory": "3Gi"}}'))
    for name in ("a", "b"):
        running(gw, name, sized_pod("2Gi"))
    answers = await asyncio.gather(update(gw, "a", memory="2Gi"), update(gw, "b", memory="2Gi"))
    assert sorted(answer.http for answer in answers) == [200, 400]
    assert [verb for verb, _, _ in gw.cluster.writes] == ["patch pods/resize", "patch"]


async def test_a_spec_that_was_edited_below_its_pod_hides_nothing(make: Make) -> None:
    """Whoever may update EngineConns wrote a small size into one and let another grow: specs were counted."""
    gw = await make(limits=parse_limits('{"user": {"memory": "5Gi"}}'))
    running(gw, "a", sized_pod("2Gi"))
    small = {"resources": {"memory": "256Mi"}}
    gw.cluster.put(
        engine_item(name="b", spec={"user": "bob"} | small, status={"podName": "b-0", "resources": {"memory": "4Gi"}})
    )
    answer = await update(gw, "a", memory="2Gi")
    assert answer.http == 400
    assert "User bob has 4Gi of 5Gi memory, and this engine asks for 2Gi" in answer.body["message"]
    assert gw.cluster.writes == []


async def test_a_spec_that_was_edited_first_is_no_size_that_the_pod_has(make: Make) -> None:
    """What the spec had already was no growth, so nobody was asked."""
    gw = await make(limits=parse_limits('{"user": {"memory": "3Gi"}}'))
    running(gw, "b", sized_pod("2Gi"))
    gw.cluster.put(
        engine_item(name="a", spec={"user": "bob", "resources": {"memory": "4Gi"}}, status={"podName": "a-0"})
    )
    gw.cluster.other_pods["pods", "a-0"] = sized_pod("1Gi")
    answer = await update(gw, "a", memory="4Gi")
    assert answer.http == 400
    assert answer.body["data"]["reason"] == "LimitReached"
    assert gw.cluster.writes == []


async def test_a_spec_that_was_edited_above_its_pod_takes_nobodys_place(make: Make) -> None:
    """One user's engine with a spec of 100Gi kept all others of the namespace from starting, at the gateway."""
    gw = await make(limits=parse_limits('{"namespace": {"memory": "8Gi"}}'))
    edited = {"user": "bob", "resources": {"memory": "100Gi"}}
    status = {"podName": "b-0", "resources": {"memory": "1Gi"}, "observedGeneration": 2}
    item = engine_item(name="b", spec=edited, status=status)
    item["metadata"]["generation"] = 2
    gw.cluster.put(item)
    becomes(gw, READY)
    assert (await gw.post("createEngineConnection", ASKED)).http == 200
