"""A task that no agent can speak for has one end: the first that was written, for all askers of all gateways."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from linkis_ecm.gateway.http.errors import unavailable
from linkis_ecm.gateway.inventory.view import view_of
from linkis_ecm.gateway.journal import OPEN_SECONDS, Observation, Settler, settled
from linkis_ecm.gateway.methods.tasks import task_id_for_key
from linkis_ecm.model.record import ExecutionRecord
from tests.gateway.tasks.test_stream_ends import Breaking, followed, told
from tools.testkit.gateway.harness import PATIENCE, Harness, engine_item
from tools.testkit.gateway.real_agents import NAME, UID
from tools.testkit.gateway.stores import Store, store_in

Make = Callable[..., Awaitable[Harness]]
OOM = {"address": "", "engineState": "Failed", "reason": "OOMKilled", "message": "the limit was 1Gi"}
EVICTED = {"address": "", "engineState": "Failed", "reason": "Evicted", "message": "the node's disk was full"}
LINE = ExecutionRecord(
    task_id="t", ticket_id=UID, uid=UID, attempt=0, caller="alice",
    run_type="python", code_sha256="", code_chars=1, status="Running", accepted=100.0,
)  # fmt: skip
QUERY = {"engineId": UID, "taskId": "t"}


@pytest.fixture
def connect_store(tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Connects one more replica to the one database."""
    with ExitStack() as opened:
        yield lambda: opened.enter_context(store_in(tmp_path))


async def in_journal(store: Store, *lines: ExecutionRecord) -> None:
    for line in lines:
        store.journal.offer(line)
    assert await asyncio.to_thread(store.journal.flush, PATIENCE)


async def end_of(gw: Harness, query: dict[str, Any] = QUERY) -> tuple[Any, ...]:
    return shape((await gw.get("getTask", query)).data)


def shape(task: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(task[name] for name in ("status", "final", "reason", "message", "acceptedAt", "endedAt"))


async def test_all_askers_of_two_gateways_and_of_a_later_one_get_the_same_end(
    make: Make, connect_store: Callable[[], Store]
) -> None:
    stores = [connect_store(), connect_store()]
    gateways = [await make(database=store.parts) for store in stores]
    await in_journal(stores[0], LINE)
    # What the two see of the engine differs, as their watches may.
    gateways[0].engine(name=NAME, status=OOM)
    gateways[1].engine(name=NAME, status=EVICTED)
    told_ends = set(await asyncio.gather(*(end_of(gw) for gw in gateways * 8)))
    assert len(told_ends) == 1
    (end,) = told_ends
    assert end[0] == "Lost"
    later = await make(database=connect_store().parts)
    later.engine(name=NAME, status=EVICTED)
    for gw in (*gateways, later):
        assert await end_of(gw) == end
        listed = (await gw.get("listTasks", {"engineId": UID})).data["tasks"]
        assert [shape(task) for task in listed if task["taskId"] == "t"] == [end]
        result = await gw.get("getTaskResult", QUERY)
        assert (result.http, shape(result.body["data"]["task"])) == (410, end)
        cancelled = await gw.post("cancelTask", QUERY)
        assert shape(cancelled.data) == end


async def test_a_list_tells_ends_that_stay(make: Make, connect_store: Callable[[], Store]) -> None:
    """A list computed the ends anew each time, and another time than getTask."""
    store = connect_store()
    gw, other = await make(database=store.parts), await make(database=connect_store().parts)
    await in_journal(store, *(replace(LINE, task_id=name, accepted=100.0 + n) for n, name in enumerate("abc")))
    for each in (gw, other):
        each.engine(name=NAME, status=OOM)
    lists = await asyncio.gather(*(each.get("listTasks", {"engineId": UID}) for each in (gw, other) * 4))
    ends = {tuple((task["taskId"], shape(task)) for task in answer.data["tasks"]) for answer in lists}
    assert len(ends) == 1
    for task_id, end in next(iter(ends)):
        assert await end_of(other, {"engineId": UID, "taskId": task_id}) == end
    counted = [each.gateway.metrics.registry.open_metrics().decode().splitlines() for each in (gw, other)]
    lost = [line for lines in counted for line in lines if line.startswith('ecm_tasks_total{outcome="Lost"}')]
    assert sum(float(line.split()[1]) for line in lost) == 3, "each is counted by the gateway whose end it has"


async def test_a_key_sent_again_after_the_engines_end_tells_the_first_end(
    make: Make, connect_store: Callable[[], Store]
) -> None:
    store = connect_store()
    gw, other = await make(database=store.parts), await make(database=connect_store().parts)
    await in_journal(store, replace(LINE, task_id=task_id_for_key(view_of(engine_item(name=NAME)), "k")))
    engines = [each.engine(name=NAME, status=OOM) for each in (gw, other)]
    answers = [
        await each.execute(engine, "1", idempotencyKey="k")
        for each, engine in zip((gw, other, gw), (*engines, engines[0]), strict=True)
    ]
    assert len({shape(answer.data) for answer in answers}) == 1
    assert answers[0].data["status"] == "Lost"
    assert await end_of(other, {"engineId": UID, "idempotencyKey": "k"}) == shape(answers[0].data)


async def test_all_followers_of_a_lost_task_are_told_one_end(make: Make, connect_store: Callable[[], Store]) -> None:
    store = connect_store()
    gateways = [await make(database=store.parts), await make(database=connect_store().parts)]
    await in_journal(store, LINE)
    agents = [Breaking(), Breaking()]
    async with AsyncExitStack() as opened, asyncio.timeout(PATIENCE):
        streams = [
            (await opened.enter_async_context(followed(gw, agent)))[0]
            for gw, agent in zip(gateways, agents, strict=True)
        ]
        for gw, agent in zip(gateways, agents, strict=True):
            gw.engine(name=NAME, status=OOM)
            agent.over.set()
        ends = [(await told(raw)).end for raw in streams]
    assert [end["status"] for end in ends] == ["Lost", "Lost"]
    assert len({shape(end) for end in ends}) == 1


async def test_an_end_that_an_agent_told_is_before_one_that_is_concluded(
    make: Make, connect_store: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call that ran the code has offered its end; who asks had read the line before."""
    store = connect_store()
    gw = await make(database=store.parts)
    await in_journal(store, LINE)
    done = replace(LINE, status="Succeed", ended=120.25)
    monkeypatch.setattr(store.journal, "_waiting", lambda task_id: done if task_id == "t" else None)
    after = await gw.gateway.executions.settle(LINE, Observation(view_of(engine_item(name=NAME, status=OOM))))
    assert after == done == store.queries.execution("t")


async def test_an_end_that_the_database_cannot_keep_is_not_told(
    make: Make, connect_store: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = connect_store()
    gw = await make(database=store.parts)
    await in_journal(store, LINE)
    gw.engine(name=NAME, status=OOM)

    def down(_: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(store.journal, "end", down)
        for method, query in (("getTask", QUERY), ("listTasks", {"engineId": UID})):
            answer = await gw.get(method, query)
            assert answer.http == 503
            assert "the database" in answer.message
            assert "try again" in answer.message
    assert (await end_of(gw))[0] == "Lost"


async def test_settlers_of_two_gateways_write_one_end(make: Make, connect_store: Callable[[], Store]) -> None:
    store = connect_store()
    gateways = [await make(database=store.parts), await make(database=connect_store().parts)]
    await in_journal(store, LINE)

    async def gone(_: str) -> None:
        return None

    async def get_task(*_: object) -> dict[str, Any]:
        raise unavailable("nobody is asked")

    settlers = [Settler(gw.gateway.executions, engine=gone, get_task=get_task) for gw in gateways]
    await asyncio.gather(*(settler.run_once() for settler in settlers))
    first = store.queries.execution("t")
    assert first is not None
    assert (first.status, first.reason) == ("Lost", "EngineGone")
    for gw in gateways:
        gw.engine(name=NAME, status=OOM)
        assert (await end_of(gw))[2:] == (first.reason, first.message, first.accepted, first.ended)


async def test_an_end_of_the_journal_stays_whatever_an_agent_says_later(
    make: Make, connect_store: Callable[[], Store]
) -> None:
    store = connect_store()
    gw = await make(database=store.parts)
    lost = replace(LINE, status="Lost", reason="EngineRestarted", message="replaced", ended=130.5)
    await in_journal(store, lost)
    late = {"taskId": "t", "status": "Succeed", "startedAt": 1.0, "endedAt": 2.0, "reason": "", "executionCount": 3}

    async def agent(request: web.Request) -> web.Response:
        return web.json_response({"tasks": [late]} if request.path == "/v1/tasks" else late)

    await gw.served(agent, name=NAME)
    assert await end_of(gw) == ("Lost", True, "EngineRestarted", "replaced", 100.0, 130.5)
    (listed,) = (await gw.get("listTasks", {"engineId": UID})).data["tasks"]
    assert shape(listed)[:3] == ("Lost", True, "EngineRestarted")
    assert listed["executionCount"] == 3


@pytest.mark.parametrize(("age", "status"), [(0.0, "Running"), (OPEN_SECONDS - 1, "Running"), (OPEN_SECONDS, "Lost")])
def test_a_task_that_may_be_on_its_way_to_its_agent_is_not_lost(age: float, status: str) -> None:
    """Its agent was asked between the journal's line and the request: the first end would have been a wrong one."""
    found = Observation(view_of(engine_item(name=NAME)), answered=True)
    assert settled(LINE, found, LINE.accepted + age).status == status


def test_a_gateway_whose_watch_is_behind_ends_no_task_of_a_newer_pod() -> None:
    newer = replace(LINE, attempt=1)
    assert settled(newer, Observation(view_of(engine_item(name=NAME))), 1000.0) == newer
    replaced = Observation(view_of(engine_item(name=NAME, status={"attempt": 2})))
    assert settled(newer, replaced, 1000.0).reason == "EngineRestarted"


async def test_without_a_database_an_end_is_concluded_all_the_same(make: Make) -> None:
    gw = await make()
    after = await gw.gateway.executions.settle(LINE, Observation(None))
    assert (after.status, after.reason) == ("Lost", "EngineGone")
