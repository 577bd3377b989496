"""An API server in this process: one set of routes over a FakeCluster, with two front doors.

`FakeKubeClient` is the real KubeClient over an in-memory transport: no sockets, so it works in virtual time, and
retries, paging and errors are the real code's. `FakeApiServer.serve()` answers over loopback HTTP, for the real
transport and for kopf. Faults, the request log and the count of writes are the same for both.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import orjson
import yaml
from aiohttp import web

from linkis_ecm.kube.client import JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, KubeClient
from linkis_ecm.kube.errors import Unreachable
from linkis_ecm.kube.resources import Resource
from linkis_ecm.kube.transport import Reply, Request, Stream
from tools.testkit.fakes.cluster import FakeCluster
from tools.testkit.fakes.faults import Call, Fault, Faults
from tools.testkit.fakes.rules import RESOURCES, WITH_STATUS, Object, StatusError
from tools.testkit.fakes.watches import FakeWatch

WRITES = ("create", "patch", "delete")
_METHODS = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}
# A test that sends more than this has lost its way; the log keeps the last ones.
LOG_LENGTH = 100_000


@dataclass(frozen=True, slots=True)
class Logged:
    """One request: what it was, when it came (the loop's clock), how it was answered (0: cut)."""

    call: Call
    at: float
    code: int


class FakeApiServer:
    """The routes, over a cluster, with a script of faults."""

    def __init__(self, cluster: FakeCluster | None = None) -> None:
        self.cluster = cluster or FakeCluster()
        self.faults = Faults()
        self.log: deque[Logged] = deque(maxlen=LOG_LENGTH)
        # Delay before each call is executed, such as `lambda: 0.02`.
        self.latency: Callable[[], float] = lambda: 0.0
        # What the kubelet has of a pod's log, by uid; a line where nothing stands here.
        self.logs: dict[str, bytes] = {}
        # Bearer tokens let in; None lets in everybody.
        self.tokens: set[str] | None = None

    @property
    def watches(self) -> Any:
        """Shorthand for the faults of watches."""
        return self.cluster.watches

    def client(self, **options: Any) -> FakeKubeClient:
        """A client of this server without sockets."""
        return FakeKubeClient(self, **options)

    def writes(self, *, since: int = 0) -> Counter[tuple[str, str]]:
        """Write requests by (verb, resource[/subresource]), those that failed included, from log entry `since` on."""
        entries = list(self.log)[since:]
        return Counter((entry.call.verb, entry.call.label) for entry in entries if entry.call.verb in WRITES)

    async def handle(self, request: Request) -> Reply | FakeWatch:
        """Answers one request; raises ConnectionResetError where a fault cuts it."""
        discovery = _discovery(request.path)
        if discovery is not None:
            return _json(200, discovery)
        try:
            call = _parsed(request)
        except StatusError as error:
            return _refusal(error)
        fault = self.faults.take(call) or Fault()
        # At least one turn of the loop: no call is atomic for its caller.
        await asyncio.sleep(self.latency() + fault.latency)
        code = 0
        try:
            if fault.reset == "before":
                raise ConnectionResetError("reset before the call was executed")
            try:
                if fault.status:
                    reason = fault.reason or _REASONS.get(fault.status, "Fault")
                    raise StatusError(fault.status, reason, fault.message, retry_after=fault.retry_after)
                answer = self._execute(call)
                code = 200
            except StatusError as error:
                answer, code = _refusal(error), error.code
            if fault.reset == "after":
                code = 0
                raise ConnectionResetError("reset after the call was executed")
        finally:
            self.log.append(Logged(call, asyncio.get_running_loop().time(), code))
        if fault.answer_latency:
            await asyncio.sleep(fault.answer_latency)
        return answer

    def _execute(self, call: Call) -> Reply | FakeWatch:
        cluster, resource, query = self.cluster, call.resource, call.query
        where = {
            "namespace": call.namespace or None,
            "labels": query.get("labelSelector"),
            "fields": query.get("fieldSelector"),
        }
        if call.verb == "watch":
            return cluster.watch(
                resource,
                resource_version=query.get("resourceVersion", ""),
                seconds=float(query.get("timeoutSeconds", 1800)),
                bookmarks=query.get("allowWatchBookmarks", "") in ("1", "true"),
                **where,
            )
        if call.verb == "list":
            items, version, token = cluster.page(
                resource, limit=int(query.get("limit", 0)), token=query.get("continue", ""), **where
            )
            if "." not in resource.group or resource.group.endswith(".k8s.io"):
                # Items of a built-in kind come without their kind.
                items = [{key: item[key] for key in item if key not in ("kind", "apiVersion")} for item in items]
            metadata = {"resourceVersion": version} | ({"continue": token} if token else {})
            head = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version}
            return _json(200, head | {"metadata": metadata, "items": items})
        if call.verb == "get" and call.subresource == "log":
            pod = cluster.get(resource, call.name, namespace=call.namespace)
            return Reply(200, self.logs.get(pod["metadata"]["uid"], b"from the kubelet\n"))
        if call.verb == "get":
            return _json(200, cluster.get(resource, call.name, namespace=call.namespace))
        if call.verb == "create":
            return _json(201, cluster.create(resource, call.body, namespace=call.namespace))
        if call.verb == "patch":
            return _json(
                200,
                cluster.patch(
                    resource, call.name, call.body, namespace=call.namespace, subresource=call.subresource
                ),
            )  # fmt: skip
        return _json(200, self._delete(call))

    def _delete(self, call: Call) -> Object:
        options = call.body or {}
        policy = options.get("propagationPolicy", "Background")
        if policy not in ("Background", "Orphan"):
            raise StatusError(400, "BadRequest", f"this fake API server has no propagationPolicy {policy}")
        preconditions = options.get("preconditions") or {}
        return self.cluster.delete(
            call.resource,
            call.name,
            namespace=call.namespace,
            uid=preconditions.get("uid"),
            resource_version=preconditions.get("resourceVersion"),
            grace_seconds=options.get("gracePeriodSeconds"),
            orphan=policy == "Orphan",
        )

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Answers over HTTP on a free loopback port; gives the URL."""
        app = web.Application(client_max_size=4 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._http)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            yield f"http://{host}:{port}"
        finally:
            await runner.cleanup()

    async def _http(self, request: web.Request) -> web.StreamResponse:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.tokens is not None and token not in self.tokens:
            return _web(_refusal(StatusError(401, "Unauthorized", "Unauthorized")))
        raw = await request.read()
        try:
            answer = await self.handle(
                Request(
                    request.method,
                    unquote(request.path),
                    dict(request.query),
                    orjson.loads(raw) if raw else None,
                    request.content_type,
                )
            )
            if isinstance(answer, Reply):
                return _web(answer)
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            async for chunk in answer.chunks():
                await response.write(chunk)
            await response.write_eof()
        except ConnectionResetError:
            # Ours, as a fault, or the client's: either way the connection goes without a last chunk.
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        return response


class FakeKubeClient(KubeClient):
    """KubeClient over the in-memory front door; its jitter is seeded, so a test runs the same each time."""

    def __init__(self, server: FakeApiServer, **options: Any) -> None:
        options.setdefault("rng", random.Random(0))
        super().__init__(FakeTransport(server), **options)


class FakeTransport:
    """The in-memory front door. Bodies go through JSON, so nothing is shared with the server's objects."""

    def __init__(self, server: FakeApiServer) -> None:
        self._server = server

    async def _answer(self, request: Request, timeout: float) -> Reply | FakeWatch:
        body = None if request.body is None else orjson.loads(orjson.dumps(request.body))
        sent = Request(request.method, request.path, request.query, body, request.content_type)
        try:
            async with asyncio.timeout(timeout):
                return await self._server.handle(sent)
        except (ConnectionResetError, TimeoutError) as error:
            raise Unreachable(f"{request.method} {request.path}: {type(error).__name__} ({error})") from error

    async def request(self, request: Request, *, timeout: float) -> Reply:
        answer = await self._answer(request, timeout)
        assert isinstance(answer, Reply)
        return answer

    @asynccontextmanager
    async def stream(self, request: Request, *, timeout: float) -> AsyncIterator[Stream]:
        answer = await self._answer(request, timeout)
        if isinstance(answer, Reply):
            yield Stream(answer, _nothing())
        else:
            yield Stream(Reply(200, b""), _unbroken(answer))

    async def refresh(self) -> None:
        """There are no credentials here."""

    async def close(self) -> None:
        """There is nothing to close."""


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


async def _unbroken(watch: FakeWatch) -> AsyncIterator[bytes]:
    try:
        async for chunk in watch.chunks():
            yield chunk
    except ConnectionResetError as error:
        raise Unreachable(f"WATCH: {error}") from error


_REASONS = {
    400: "BadRequest", 403: "Forbidden", 409: "Conflict", 410: "Expired", 429: "TooManyRequests",
    500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout",
}  # fmt: skip


def _json(code: int, body: Any) -> Reply:
    return Reply(code, orjson.dumps(body), {"Content-Type": "application/json"})


def _refusal(error: StatusError) -> Reply:
    reply = _json(error.code, error.body())
    if error.retry_after is None:
        return reply
    return Reply(reply.status, reply.body, {**reply.headers, "Retry-After": str(error.retry_after)})


def _web(reply: Reply) -> web.Response:
    return web.Response(status=reply.status, body=reply.body, headers=dict(reply.headers))


def _parsed(request: Request) -> Call:
    """The call behind a method and a path, or 404/405/415 as the real server says it."""
    parts = request.path.strip("/").split("/")
    group, version, rest = ("", parts[1], parts[2:]) if parts[0] == "api" else (parts[1], parts[2], parts[3:])
    namespace = ""
    if rest and rest[0] == "namespaces" and len(rest) > 2 and rest[2] != "status":
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource = (*rest, "", "", "")[:3]
    for resource in RESOURCES:
        if (resource.group, resource.version, resource.plural) == (group, version, plural):
            break
    else:
        raise StatusError(404, "NotFound", "the server could not find the requested resource")
    query = dict(request.query)
    if request.method == "GET":
        watching = query.get("watch") in ("1", "true")
        verb = "watch" if watching else "get" if name else "list"
    elif request.method in _METHODS and bool(name) == (request.method != "POST"):
        verb = _METHODS[request.method]
    else:
        raise StatusError(405, "MethodNotAllowed", f"{request.method} is not for this path")
    if verb == "patch" and request.content_type not in _patches(request.body, subresource):
        raise StatusError(415, "UnsupportedMediaType", f"this fake API server takes no {request.content_type} here")
    return Call(verb, resource, namespace, name, subresource or None, query, request.body)


def _patches(body: Any, subresource: str) -> tuple[str, ...]:
    """The content types that a patch may have: a list is operations, and a resize merges containers by their names."""
    if isinstance(body, list):
        return (JSON_PATCH,)
    return (MERGE_PATCH, STRATEGIC_PATCH) if subresource == "resize" else (MERGE_PATCH,)


def _discovery(path: str) -> Object | None:
    """What kopf and kubectl ask first; None where the path is no discovery."""
    path = path.rstrip("/")
    groups = sorted({(resource.group, resource.version) for resource in RESOURCES if resource.group})
    if path == "/version":
        return {"major": "1", "minor": "37", "gitVersion": "v1.37.0-fake", "platform": "fake"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        entries = []
        for group, version in groups:
            known = {"groupVersion": f"{group}/{version}", "version": version}
            entries.append({"name": group, "versions": [known], "preferredVersion": known})
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": entries}
    for group, version in (("", "v1"), *groups):
        if path == (f"/apis/{group}/{version}" if group else f"/api/{version}"):
            found = [entry for entry in RESOURCES if (entry.group, entry.version) == (group, version)]
            entries = [_described(entry, "") for entry in found]
            entries += [_described(entry, "/status") for entry in found if entry in WITH_STATUS]
            return {"kind": "APIResourceList", "groupVersion": path.split("/", 2)[2], "resources": entries}
    return None


def _described(resource: Resource, suffix: str) -> Object:
    verbs = ["get", "patch"] if suffix else ["create", "delete", "get", "list", "patch", "watch"]
    return {
        "name": resource.plural + suffix, "singularName": resource.kind.lower(), "namespaced": resource.namespaced,
        "kind": resource.kind, "verbs": verbs,
    }  # fmt: skip


def write_kubeconfig(path: Path, url: str, *, token: str = "") -> Path:
    """A kubeconfig for a served fake API server."""
    cluster = {"name": "fake", "cluster": {"server": url}}
    user = {"name": "fake", "user": {"token": token} if token else {}}
    context = {"name": "fake", "context": {"cluster": "fake", "user": "fake"}}
    body = {
        "apiVersion": "v1", "kind": "Config", "current-context": "fake",
        "clusters": [cluster], "users": [user], "contexts": [context],
    }  # fmt: skip
    path.write_text(yaml.safe_dump(body))
    return path
