"""schemathesis against a live gateway: no answer of 500, none that breaks the document.

The gateway runs in a thread of its own on loopback, over a cluster in memory, a real SQLite file, and one scripted
agent: what is tested is what callers can send.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from aiohttp import web
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from linkis_ecm.gateway import openapi
from linkis_ecm.gateway.methods import watch
from linkis_ecm.gateway.routes import METHODS
from linkis_ecm.gateway.settings import Settings
from tools.testkit.gateway.harness import EM, KEY, PATIENCE, TOKEN, Harness
from tools.testkit.gateway.stores import store_in

# For each of the operations; some 1000 calls in all.
EXAMPLES = 25
OPERATIONS = [found.ok() for found in schemathesis.openapi.from_dict(openapi.document()).get_all_operations()]


async def agent(request: web.Request) -> web.StreamResponse:
    """An agent that has a log, and tasks that have ended."""
    task = {"taskId": "t", "status": "Succeed", "executionCount": 1, "acceptedAt": 1.0, "startedAt": 1.0,
            "endedAt": 2.0, "progress": 1.0, "progressMessage": ""}  # fmt: skip
    if request.path.endswith("/lines"):
        return web.json_response({"logs": ["a"], "endLine": 1, "rows": 1})
    if "/logs/" in request.path:
        frames = request.path.endswith("/follow")
        return web.Response(
            body=b"2\na\n" if frames else b"a\n", headers={"X-Log-Size": "2", "X-Log-File": "1", "X-Log-Offset": "0"}
        )
    if request.path.endswith("/events"):
        return web.Response(text=json.dumps({"event": "end", **task}) + "\n", content_type="application/x-ndjson")
    if "/outputs/" in request.path:
        table = {"type": "table", "columns": [{"name": "a", "type": "int64"}], "rows": [[1]], "totalRows": 1}
        return web.json_response({"taskId": "t", "index": 0, "outputs": 1, "output": table})
    if request.path.endswith(("/execute", "/result")):
        return web.json_response(task | {"outputs": []})
    if request.path == "/v1/tasks":
        return web.json_response({"tasks": [task]})
    return web.json_response(task)


async def no_changes(*_: object) -> AsyncIterator[bytes]:
    yield watch.END


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("gateway")
    (folder / "tokens.json").write_text(json.dumps({TOKEN: {"users": ["*"]}}))
    gateway = Settings(
        namespace="linkis", instance=EM, tokens_file=str(folder / "tokens.json"), admins=frozenset({"root"}),
        token_key=KEY, connect_seconds=PATIENCE, agent_seconds=PATIENCE, client_seconds=PATIENCE, user_per_second=0,
        agent_port=0,
    )  # fmt: skip
    with store_in(folder) as store, pytest.MonkeyPatch.context() as patched:
        # The stream of all engines ends at once.
        patched.setattr(watch, "_changes", no_changes)
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()

        async def start() -> Harness:
            harness = Harness(gateway, store.find, store.parts)
            await harness.start()
            await harness.served(agent, name="python-root-1", spec={"user": "root"})
            return harness

        harness = asyncio.run_coroutine_threadsafe(start(), loop).result(20)
        yield harness.url
        asyncio.run_coroutine_threadsafe(harness.stop(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)


# Each with an id of its own: pytest-xdist takes tests of one id, as schemathesis's own parametrize makes them, for one.
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label.replace("::", ":"))
def test_no_call_breaks_the_gateway_or_its_document(operation: Any, url: str) -> None:
    @given(case=operation.as_strategy())
    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
        phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def holds(case: Any) -> None:
        call(case, url)

    holds()


def test_every_method_is_called() -> None:
    assert len({operation.label for operation in OPERATIONS}) == len(METHODS)


def call(case: Any, url: str) -> None:
    """One call, and what must hold of its answer."""
    # An engine that is there, in half of the calls: what is made up would end at "no such engine".
    if isinstance(case.query, dict) and "engineId" in case.query and len(str(case.query["engineId"])) % 2:
        case.query["engineId"] = "linkis/python-root-1"
    if isinstance(case.body, dict) and case.body.get("engineId") and len(str(case.body["engineId"])) % 2:
        case.body["engineId"] = "linkis/python-root-1"
    if isinstance(case.body, dict) and "timeoutSeconds" in case.body:
        case.body["timeoutSeconds"] = 1  # no test waits for an engine that nobody makes ready
    if isinstance(case.body, dict) and "labels" in case.body:
        case.body |= {"timeOut": 1000, "timeout": 1000}
    response = case.call(base_url=url, headers={"Token-Code": TOKEN, "Token-User": "root"}, timeout=20)
    case.validate_response(
        response,
        checks=(not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance),
    )
