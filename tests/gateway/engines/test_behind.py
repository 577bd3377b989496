"""A gateway whose watch is behind: the database knows a live engine that the cache has not seen yet; and a database
that is behind: it answers when nobody asks any more."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from aiohttp import web

from linkis_ecm.gateway.inventory.history import History
from linkis_ecm.gateway.inventory.view import KnownEngine, engine_of_record, view_of
from linkis_ecm.kube.errors import Unreachable
from tools.testkit.gateway.harness import EM, PATIENCE, Harness, engine_item


def row_of(item: dict[str, Any], **changes: Any) -> KnownEngine:
    view = view_of(item)
    values: dict[str, Any] = {
        "ticket_id": view.ticket_id, "label_value": view.label_value, "user": view.user,
        "service_instance": view.service_instance, "ecm_instance": EM, "status": "Idle",
        "log_dir_suffix": view.log_dir_suffix, "create_time": None, "used_time": None, "release_time": None,
        "namespace": view.namespace, "name": view.name, "uid": view.uid,
    }  # fmt: skip
    return engine_of_record(**values | changes)


async def test_an_engine_that_the_watch_has_not_shown_is_asked_for_at_the_api_server(make: Any) -> None:
    item = engine_item()
    gw: Harness = await make(find=lambda engine_id: row_of(item))
    gw.cluster.items["linkis", item["metadata"]["name"]] = item  # there, but not in the cache
    told = (await gw.get("getEngineStatus", {"engineId": item["metadata"]["uid"]})).data
    assert (told["status"], told["available"]) == ("Idle", True)


async def test_without_an_api_server_it_is_told_to_try_again_and_not_that_it_has_ended(make: Any) -> None:
    item = engine_item()
    gw: Harness = await make(find=lambda engine_id: row_of(item))
    gw.cluster.fail["get"] = Unreachable("gone")
    answer = await gw.execute(item, "1+1")
    assert answer.http == 503
    assert "try again" in answer.message


async def test_an_engine_that_is_nowhere_but_in_an_open_row_is_told_as_the_row_has_it(make: Any) -> None:
    item = engine_item()
    gw: Harness = await make(find=lambda engine_id: row_of(item))
    told = (await gw.get("getEngineStatus", {"engineId": item["metadata"]["uid"]})).data
    assert (told["status"], told["available"]) == ("Idle", False)


async def test_code_for_an_engine_that_only_the_watch_calls_starting_is_run(gw: Harness) -> None:
    async def succeed(_: web.Request) -> web.StreamResponse:
        return web.json_response({"taskId": "t", "status": "Succeed", "outputs": []})

    _, engine = await gw.served(succeed)
    # As the watch had it before: the caller has seen the engine ready elsewhere.
    gw.engines.on_event("MODIFIED", view_of(engine | {"status": {"engineState": "Starting"}}))
    assert (await gw.execute(engine, "1+1")).data["status"] == "Succeed"
    told = (await gw.get("explainEngine", {"engineId": engine["metadata"]["uid"]})).data
    assert told["engine"]["status"] == "Idle"


async def test_without_an_api_server_an_engine_that_starts_is_told_as_the_watch_has_it(gw: Harness) -> None:
    engine = gw.engine(status={"engineState": "Starting", "address": ""})
    gw.cluster.fail["get"] = Unreachable("gone")
    answer = await gw.execute(engine, "1+1")
    assert (answer.http, "is Starting" in answer.message) == (400, True)


def test_a_database_that_answers_after_the_gateways_end_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    asked, answer = threading.Event(), threading.Event()

    def find(_: str) -> None:
        asked.set()
        assert answer.wait(PATIENCE)

    history = History(find)

    async def ended() -> None:
        call = asyncio.create_task(history.find("t-1"))
        assert await asyncio.to_thread(asked.wait, PATIENCE)
        call.cancel()
        await asyncio.wait((call,))
        history.close()

    asyncio.run(ended())
    answer.set()
    history._threads.shutdown(wait=True)
    assert caplog.text == ""
