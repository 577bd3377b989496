"""What one user may ask at a time and in a second, and the log of who did what."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from linkis_ecm.api.paths import PREFIX
from linkis_ecm.gateway.http import ratelimit
from linkis_ecm.gateway.http.errors import Refused
from linkis_ecm.gateway.http.ratelimit import Limits
from tools.testkit.gateway.callers import Clock
from tools.testkit.gateway.harness import TOKEN, Harness


def test_a_user_over_the_rate_waits_and_others_do_not() -> None:
    clock = Clock()
    limited = Limits(per_second=2, burst=3, at_once=0, clock=clock)
    for _ in range(3):
        with limited.call("alice"):
            pass
    with pytest.raises(Refused) as refused, limited.call("alice"):
        pass
    assert (refused.value.http, refused.value.headers["Retry-After"]) == (429, "1")
    with limited.call("bob"):
        pass
    clock.now = 0.5
    with limited.call("alice"):
        pass
    with pytest.raises(Refused), limited.call("alice"):
        pass


def test_users_are_forgotten_but_not_while_they_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ratelimit, "USERS", 2)
    limited = Limits(per_second=0, burst=1, at_once=1)
    with limited.call("alice"):
        for name in "abcdef":
            with limited.call(name):
                pass
        with pytest.raises(Refused), limited.call("alice"):
            pass


async def test_calls_under_way_are_bounded_per_user(make: Callable[..., Awaitable[Harness]]) -> None:
    gw = await make(user_at_once=2)
    go, both = asyncio.Event(), asyncio.Barrier(3)

    async def slow(_: web.Request) -> web.StreamResponse:
        await both.wait()
        await go.wait()
        return web.json_response({"taskId": "t", "status": "Succeed", "outputs": []})

    _, engine = await gw.served(slow)
    calls = [asyncio.create_task(gw.execute(engine)) for _ in range(2)]
    await both.wait()
    refused = await gw.get("listEngines")
    assert (refused.http, refused.headers["Retry-After"]) == (429, "1")
    assert (await gw.get("listEngines", user="carol")).http == 200
    go.set()
    assert [(await call).http for call in calls] == [200, 200]
    assert (await gw.get("listEngines")).http == 200


async def test_the_audit_log_has_caller_and_method_but_no_code_or_token(
    gw: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "linkis_ecm.audit")
    engine = gw.engine(name="python-bob-1", spec={"user": "bob"})
    await gw.execute(engine, "a secret thing")
    await gw.post("terminateEngine", {"engineId": engine["metadata"]["uid"]}, user="root")
    await gw.get("listEngines")
    lines = [json.loads(line.message) for line in caplog.records if line.name == "linkis_ecm.audit"]
    assert [(line["user"], line["method"], line["http"]) for line in lines] == [
        ("alice", "executeCode", 403), ("root", "terminateEngine", 200),
    ]  # fmt: skip
    assert {line["engine"] for line in lines} == {engine["metadata"]["uid"]}
    assert lines[1]["admin"] is True
    told = " ".join(line.message for line in caplog.records)
    assert "a secret thing" not in told
    assert TOKEN not in told


async def test_the_audit_log_names_each_of_several_engines(gw: Harness, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "linkis_ecm.audit")
    engines = [gw.engine(name=f"python-alice-{number}") for number in range(2)]
    body = [{"engineInstance": engine["status"]["serviceInstance"]} for engine in engines]
    await gw.call("POST", "/api/rest_j/v1/linkisManager/rm/enginekill", json=body)
    (line,) = [json.loads(one.message) for one in caplog.records if one.name == "linkis_ecm.audit"]
    assert line["engine"].split() == [engine["metadata"]["uid"] for engine in engines]


def audited(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(one.message) for one in caplog.records if one.name == "linkis_ecm.audit"]


async def test_every_denial_is_logged_whatever_its_answer(gw: Harness, caplog: pytest.LogCaptureFixture) -> None:
    """Finding S21: a denial that Linkis says with a 400 left no line."""
    caplog.set_level(logging.INFO, "linkis_ecm.audit")
    engine = gw.engine()
    ticket = engine["metadata"]["uid"]
    denied = [
        await gw.get("downloadEngineLog", gw.download_query(engine), user="bob"),
        await gw.get("getEngineStatus", {"engineId": ticket}, user="bob"),
        await gw.get("getEngineStatus", {"engineId": "nobody"}, user="bob"),
        await gw.get("listEngines", {"user": "alice"}, user="bob"),
        await gw.get("listEngines", token="wrong"),
        await gw.call("POST", f"{PREFIX}/linkisManager/ecinfo/ecList", json={}, user="bob"),
        await gw.call("GET", f"{PREFIX}/linkisManager/listAllEMs", user="bob"),
    ]
    assert [answer.http for answer in denied[:5]] == [400, 403, 403, 403, 401]
    lines = audited(caplog)
    assert [line["method"] for line in lines] == [
        "downloadEngineLog", "getEngineStatus", "getEngineStatus", "listEngines", "other", "ecinfo/ecList",
        "listAllEMs",
    ]  # fmt: skip
    assert all(line["denied"] for line in lines)
    assert [line["engine"] for line in lines[:3]] == [ticket, ticket, None]
    assert [line["user"] for line in lines[:4]] == ["bob"] * 4


async def test_every_look_at_anothers_is_logged_and_none_at_ones_own(
    gw: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "linkis_ecm.audit")
    engine = gw.engine()
    query = {"engineId": engine["metadata"]["uid"]}
    for method in ("getEngineStatus", "explainEngine", "getResourceUsage", "listTasks", "getPostMortem"):
        await gw.get(method, query, user="root")
    await gw.get("listEngines", user="root")
    await gw.get("listEngines", {"user": "alice"}, user="root")
    await gw.get("previewCull", {"withinSeconds": 60}, user="root")
    lines = audited(caplog)
    assert len(lines) == 8
    assert all(line["others"] and line["admin"] and not line["denied"] for line in lines)
    caplog.clear()
    await gw.get("getEngineStatus", query)
    await gw.get("listEngines")
    await gw.get("previewCull", {"withinSeconds": 60})
    await gw.get("listEngines", {"user": "root"}, user="root")
    assert audited(caplog) == []
