"""The transport to the API server against answers without end, on loopback."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

from linkis_ecm.controller import policies
from linkis_ecm.kube import client, transport
from linkis_ecm.kube.client import KubeClient
from linkis_ecm.kube.errors import ReplyTooLarge, Unreachable
from linkis_ecm.kube.resources import PODS
from linkis_ecm.kube.retry import RetryPolicy
from linkis_ecm.kube.transport import RestTransport, encoded

MIB = 1 << 20
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def api(handler: Handler) -> AsyncIterator[KubeClient]:
    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        made = KubeClient(RestTransport(Configuration(host=f"http://{host}:{port}")), retry=RetryPolicy(attempts=1))
        async with made:
            yield made
    finally:
        await runner.cleanup()


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(status=int(request.query.get("status", "200")))
    await response.prepare(request)
    while True:
        await response.write(b"x" * (64 << 10))


async def test_an_answer_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "REPLY_BYTES", MIB)
    async with api(endless) as kube:
        with pytest.raises(ReplyTooLarge):
            await kube.get(PODS, "p", namespace="n")
        with pytest.raises(ReplyTooLarge):
            await kube.pod_log("p", namespace="n", container="c", tail_bytes=1000, timeout=30)


async def test_an_event_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "EVENT_BYTES", MIB)
    async with api(endless) as kube:
        with pytest.raises(Unreachable, match="more than"):
            async for _ in kube.watch(PODS, resource_version="1"):
                pass


async def test_a_page_of_big_objects_is_asked_for_again_with_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Users decide how long their objects are."""
    monkeypatch.setattr(transport, "REPLY_BYTES", MIB)
    objects = [{"metadata": {"name": f"p{n}"}, "spec": "x" * (300 << 10)} for n in range(20)]
    limits = []

    async def pages(request: web.Request) -> web.Response:
        limit, start = int(request.query["limit"]), int(request.query.get("continue", "0"))
        limits.append(limit)
        end = min(start + limit, len(objects))
        metadata = {"resourceVersion": "7"} | ({"continue": str(end)} if end < len(objects) else {})
        return web.Response(body=orjson.dumps({"metadata": metadata, "items": objects[start:end]}))

    async with api(pages) as kube:
        found = await kube.list(PODS, limit=16)
        assert [item["metadata"]["name"] for item in found.items] == [f"p{n}" for n in range(20)]
        assert limits[:4] == [16, 8, 4, 2]
        objects[0]["spec"] = "x" * (2 * MIB)
        with pytest.raises(ReplyTooLarge):
            await kube.list(PODS, limit=16)


async def test_a_packed_answer_is_not_unpacked() -> None:
    # Made before: on a busy machine it takes longer than a call may.
    body = gzip.compress(b" " * (64 * MIB) + b"{}")

    async def packed(_: web.Request) -> web.Response:
        return web.Response(body=body, headers={"Content-Encoding": "gzip"})

    async with api(packed) as kube:
        with pytest.raises(Unreachable, match="packed"):
            await kube.get(PODS, "p", namespace="n")


def test_the_client_asks_for_nothing_packed() -> None:
    made: Any = RestTransport(Configuration(host="http://127.0.0.1:1"))
    assert made._configuration.client_session_kwargs == {"trust_env": False, "auto_decompress": False}


async def test_idle_connections_live_from_one_reading_of_the_policies_to_the_next() -> None:
    made: Any = RestTransport(Configuration(host="http://127.0.0.1:1"))
    connector = made._rest._create_connector()
    # Go's API server ends them after 90 s.
    assert policies.PERIOD < connector._keepalive_timeout < 90
    await connector.close()
    await made.close()


@pytest.mark.parametrize("body", [{"a": [1, "é", None]}, {"n": 1 << 70}, {"text": "\ud800"}, {1: "its key is no text"}])
def test_a_body_says_what_it_said(body: Any) -> None:
    """orjson takes less than the standard library, and a body must not fail for what a user wrote."""
    assert json.loads(encoded(body)) == json.loads(json.dumps(body))
