"""What the gateway's tests share: a cluster in memory, a scripted agent, and a gateway on a loopback port."""

from __future__ import annotations

import asyncio
import json
import ssl
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
from aiohttp import web

from linkis_ecm.agent.formats.proof import proof
from linkis_ecm.archive.bundles import Archive
from linkis_ecm.gateway.app import GATEWAY, build_app, new_runner, new_site
from linkis_ecm.gateway.auth.base import Authenticator
from linkis_ecm.gateway.auth.code_flow import CodeFlow
from linkis_ecm.gateway.auth.tokens import TokenFile
from linkis_ecm.gateway.inventory.cache import EngineCache, PluginCache
from linkis_ecm.gateway.inventory.view import plugin_of, view_of
from linkis_ecm.gateway.main import certificate_of
from linkis_ecm.gateway.settings import Settings
from linkis_ecm.kube.client import ObjectList
from linkis_ecm.kube.errors import AlreadyExists, ApiError, Conflict, NotFound
from tools.testkit.agents.keys import agent_key_of, key_status
from tools.testkit.fakes.rules import merged

BASE = "/api/rest_j/v1/engineconnManager"
TOKEN = "LINKIS-TEST-0123456789"
BOB_TOKEN = "LINKIS-BOB-0123456789"
KEY = b"k" * 32
EM = "ecm-gateway.linkis:9102"
# The longest that any single wait of these tests takes before it fails. Also what the gateway waits for agents and
# clients where a test is not about that: more than a busy machine needs.
PATIENCE = 60.0


def engine_item(**changes: Any) -> dict[str, Any]:
    """An EngineConn as the API sends it, Idle and alice's; `spec`, `status` and `metadata` are merged in."""
    name = changes.pop("name", "python-alice-abc123")
    uid = changes.pop("uid", str(uuid.uuid5(uuid.NAMESPACE_DNS, name)))
    ticket = changes.get("spec", {}).get("ticketId") or uid
    pod = f"{name}-0"
    item: dict[str, Any] = {
        "metadata": {
            "namespace": "linkis",
            "name": name,
            "uid": uid,
            "resourceVersion": "7",
            "creationTimestamp": "2026-11-24T04:00:00Z",
        },
        "spec": {"engineType": "python", "user": "alice", "creator": "IDE", "desiredState": "Running"},
        "status": {
            "engineState": "Idle",
            "reason": "KernelReady",
            "message": "The kernel has answered: the engine runs code.",
            "engineType": "python",
            "engineVersion": "3.11",
            "serviceInstance": f"{pod}.linkis-engines.linkis:9105",
            "address": "127.0.0.1:1",
            "attempt": 0,
            "agentKey": key_status(KEY, uid),
            "ecmInstance": EM,
            "logDirSuffix": f"alice/20261124/python/{ticket}/logs",
            "startup": {"accepted": "2026-11-24T04:00:00.000000Z", "ready": "2026-11-24T04:00:01.250000Z"},
        },
    }
    for part, change in changes.items():
        item[part] = {key: value for key, value in (item[part] | change).items() if value is not None}
    return item


PLUGIN: dict[str, Any] = {
    "metadata": {"name": "python-3.11", "resourceVersion": "1"},
    "spec": {
        "engineType": "python",
        "engineVersion": "3.11",
        "default": True,
        "runTypes": ["python", "py"],
        "image": "engine:1",
        "defaultResources": {"cpu": "500m", "memory": "1Gi"},
        "idleTimeout": "30m",
    },
}


class FakeCluster:
    """The API server's part of EngineConns; what it does next can be scripted with `fail`."""

    def __init__(self, cache: EngineCache) -> None:
        self.cache = cache
        # Of further gateways over this cluster.
        self.more_caches: list[EngineCache] = []
        self.items: dict[tuple[str, str], dict[str, Any]] = {}
        self.other_pods: dict[tuple[str, str], dict[str, Any]] = {}
        self.writes: list[tuple[str, str, Any]] = []
        # Raised by the next call of that verb; `after` lets the write happen first.
        self.fail: dict[str, ApiError] = {}
        self.fail_after: dict[str, ApiError] = {}
        self.on_create: Callable[[dict[str, Any]], None] | None = None

    def put(self, item: dict[str, Any]) -> dict[str, Any]:
        """The object is so now; the cache hears of it."""
        self.items[item["metadata"]["namespace"], item["metadata"]["name"]] = item
        for cache in (self.cache, *self.more_caches):
            cache.on_event("MODIFIED", view_of(item))
        return item

    def drop(self, item: dict[str, Any]) -> None:
        self.items.pop((item["metadata"]["namespace"], item["metadata"]["name"]))
        for cache in (self.cache, *self.more_caches):
            cache.on_event("DELETED", view_of(item))

    async def create(self, resource: Any, body: dict[str, Any], *, namespace: str | None = None) -> dict[str, Any]:
        self._maybe_fail("create")
        if resource.plural != "engineconns":
            self.other_pods[resource.plural, body["metadata"]["name"]] = body
            return body
        assert namespace is not None
        key = namespace, body["metadata"]["name"]
        if key in self.items:
            raise AlreadyExists(409, "AlreadyExists", f"{key[1]} already exists")
        self.writes.append(("create", key[1], body))
        metadata = body["metadata"] | {
            "namespace": namespace,
            "uid": str(uuid.uuid4()),
            "resourceVersion": "1",
            "creationTimestamp": "2026-11-24T05:00:00Z",
        }
        item = {"metadata": metadata, "spec": {"desiredState": "Running"} | body["spec"]}
        self.put(item)
        if self.on_create is not None:
            self.on_create(item)
        if (error := self.fail_after.pop("create", None)) is not None:
            raise error
        return item

    async def get(self, resource: Any, name: str, *, namespace: str | None = None) -> dict[str, Any]:
        self._maybe_fail("get")
        if resource.plural == "engineconnplugins":
            return PLUGIN
        if resource.plural != "engineconns":
            if (found := self.other_pods.get((resource.plural, name))) is None:
                raise NotFound(404, "NotFound", f"{name} not found")
            return found
        assert namespace is not None
        try:
            return self.items[namespace, name]
        except KeyError:
            raise NotFound(404, "NotFound", f"{name} not found") from None

    async def patch(
        self,
        resource: Any,
        name: str,
        body: dict[str, Any],
        *,
        namespace: str | None = None,
        subresource: str | None = None,
    ) -> dict[str, Any]:
        self._maybe_fail("patch")
        item = await self.get(resource, name, namespace=namespace)
        if resource.plural != "engineconns":
            self.writes.append((f"patch {resource.plural}/{subresource or ''}", name, body))
            item |= body
            return item
        old, change = item["metadata"], dict(body.get("metadata") or {})
        if change.pop("resourceVersion", old["resourceVersion"]) != old["resourceVersion"]:
            raise Conflict(409, "Conflict", f"{name} has been modified")
        self.writes.append(("patch", name, body))
        metadata = merged(old, change) | {"resourceVersion": str(int(old["resourceVersion"]) + 1)}
        return self.put(item | {"metadata": metadata, "spec": item["spec"] | body.get("spec", {})})

    async def list(self, resource: Any, *, namespace: str | None = None) -> ObjectList:
        self._maybe_fail("list")
        return ObjectList([item for (plural, _), item in self.other_pods.items() if plural == resource.plural], "1")

    def _maybe_fail(self, verb: str) -> None:
        if (error := self.fail.pop(verb, None)) is not None:
            raise error


AgentHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class ScriptedAgent:
    """An agent on a loopback port that does what the test says; it keeps what it was asked."""

    handler: AgentHandler
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    # Set when a request's connection was lost before its answer was sent whole.
    left: asyncio.Event = field(default_factory=asyncio.Event)
    address: str = ""
    connections: int = 0
    # Of the engine that has this agent: callers want a proof of it before they ask anything.
    key: str = ""
    _runner: web.ServerRunner | None = None

    async def start(self) -> str:
        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            body = await request.read()
            if request.path == "/v1/identity":
                return web.json_response({"proof": proof(self.key, request.query["challenge"])})
            self.requests.append((request.method, request.path_qs, dict(request.headers), body))
            self.asked.set()
            try:
                return await self.handler(request)  # type: ignore[arg-type]
            except (asyncio.CancelledError, ConnectionError):
                self.left.set()
                raise

        self._runner = web.ServerRunner(
            web.Server(handle, handler_cancellation=True, client_max_size=1 << 30), shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.address = f"{host}:{port}"
        return self.address

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()


@dataclass
class Answer:
    """What came back; `body` is the Message where it was JSON."""

    http: int
    headers: Any
    raw: bytes

    @property
    def body(self) -> dict[str, Any]:
        assert self.headers["Content-Type"].startswith("application/json"), self.raw[:200]
        body: dict[str, Any] = json.loads(self.raw)
        return body

    @property
    def message(self) -> str:
        return str(self.body["message"])

    @property
    def data(self) -> Any:
        assert self.http == 200, self.raw[:500]
        assert self.body["status"] == 0
        return self.body["data"]


class Harness:
    """A gateway on a loopback port over a cluster in memory."""

    def __init__(self, settings: Settings, find: Any = None, database: dict[str, Any] | None = None) -> None:
        self.settings = settings
        self.database = database or {}
        self.archive = Archive(f"memory://{uuid.uuid4()}")
        self.clock: Callable[[], datetime] = lambda: datetime.now(UTC)
        # What the client trusts, for a gateway with a certificate.
        self.trust: ssl.SSLContext | bool = True
        self.engines = EngineCache()
        self.plugins = PluginCache()
        self.cluster = FakeCluster(self.engines)
        self.engines.synced = self.plugins.synced = True
        self.plugins.on_event("ADDED", plugin_of(PLUGIN))
        self._find = find
        self.agents: list[ScriptedAgent] = []
        self.authenticator: Authenticator = TokenFile(settings.tokens_file, admins=settings.admins)
        self.code_flow: CodeFlow | None = None

    async def start(self) -> None:
        self.app = build_app(
            settings=self.settings,
            authenticator=self.authenticator,
            cluster=self.cluster,
            engines=self.engines,
            plugins=self.plugins,
            find=self._find,
            archive=self.archive,
            clock=self.clock,
            code_flow=self.code_flow,
            **self.database,
        )
        self.gateway = self.app[GATEWAY]
        self.runner = new_runner(self.app, self.settings)
        await self.runner.setup()
        self.certificate = certificate_of(self.settings, self.gateway.metrics)
        self.site = new_site(
            self.runner,
            "127.0.0.1",
            0,
            settings=self.settings,
            metrics=self.gateway.metrics,
            certificate=self.certificate,
        )
        await self.site.start()
        self.port = self.runner.addresses[0][1]
        self.url = f"{'http' if self.certificate is None else 'https'}://127.0.0.1:{self.port}"
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self.trust),
            auto_decompress=False,
            headers={"Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            # Limits are the gateway's: a clock that is put forward must not end the client's.
            timeout=aiohttp.ClientTimeout(total=None),
        )

    async def stop(self) -> None:
        await self.session.close()
        await self.runner.cleanup()
        for agent in self.agents:
            await agent.stop()

    async def agent(self, handler: AgentHandler) -> ScriptedAgent:
        agent = ScriptedAgent(handler)
        await agent.start()
        self.agents.append(agent)
        return agent

    def engine(self, **changes: Any) -> dict[str, Any]:
        item = engine_item(**changes)
        for agent in self.agents:
            if agent.address == item["status"].get("address"):
                agent.key = agent_key_of(KEY, item["metadata"]["uid"])
        return self.cluster.put(item)

    async def served(self, handler: AgentHandler, **changes: Any) -> tuple[ScriptedAgent, dict[str, Any]]:
        """A scripted agent and its engine."""
        agent = await self.agent(handler)
        status = changes.pop("status", {}) | {"address": agent.address}
        return agent, self.engine(status=status, **changes)

    async def call(
        self,
        verb: str,
        path: str,
        *,
        user: str | None = "alice",
        token: str | None = TOKEN,
        headers: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> Answer:
        login = {"Token-Code": token, "Token-User": user}
        sent = {name: value for name, value in login.items() if value is not None} | (headers or {})
        async with self.session.request(verb, self.url + path, headers=sent, **kwargs) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def post(self, method: str, body: Any, **kwargs: Any) -> Answer:
        return await self.call("POST", f"{BASE}/{method}", json=body, **kwargs)

    async def get(self, method: str, query: Any = None, **kwargs: Any) -> Answer:
        return await self.call("GET", f"{BASE}/{method}", params=query or {}, **kwargs)

    async def execute(self, engine: dict[str, Any], code: str = "1+1", **more: Any) -> Answer:
        user = more.pop("user", "alice")
        body = {"engineId": engine["metadata"]["uid"], "code": code, "runType": "python"} | more
        return await self.post("executeCode", body, user=user)

    def download_query(self, engine: dict[str, Any], log_type: str = "stdout") -> dict[str, str]:
        return {
            "emInstance": EM,
            "instance": engine["status"]["serviceInstance"],
            "logDirSuffix": engine["status"]["logDirSuffix"],
            "logType": log_type,
        }
