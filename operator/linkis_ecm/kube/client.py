"""The one module that calls the Kubernetes API: generic verbs over resources, plain dicts in and out.

Adds to its transport: timeouts on every call, the retries of `retry`, typed errors, paging, watches decoded, counts.
Must not cache, decide or know what an engine is.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import orjson
from prometheus_client import CollectorRegistry

from linkis_ecm.kube.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    ReplyTooLarge,
    ServerError,
    Throttled,
    Unauthorized,
    Unreachable,
    error_from_status,
)
from linkis_ecm.kube.metrics import KubeMetrics
from linkis_ecm.kube.resources import PODS, Resource
from linkis_ecm.kube.retry import RetryPolicy
from linkis_ecm.kube.transport import Reply, Request, RestTransport, Transport, load_configuration

__all__ = [
    "AlreadyExists", "ApiError", "Conflict", "Forbidden", "Gone", "Invalid", "KubeClient", "NotFound", "Object",
    "ObjectList", "ServerError", "Throttled", "Unauthorized", "Unreachable", "WatchEvent",
]  # fmt: skip

Object = dict[str, Any]

# The API server answers 406 where only JSON is accepted.
JWKS = "application/jwk-set+json"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
FIELD_MANAGER = "linkis-ecm"
# client-go's page size: a page of 500 pods has some megabytes, which both sides hold at once.
PAGE = 500
# The API server's own limit of a request is 60 s; a healthy one answers in tens of milliseconds.
TRY_TIMEOUT = 10.0
# Of one event of a watch: an object has 1.5 MiB at most in etcd, and its JSON some more.
EVENT_BYTES = 16 << 20
# All tries and the waits between them.
CALL_TIMEOUT = 30.0


class WatchEvent(NamedTuple):
    """ADDED, MODIFIED, DELETED or BOOKMARK, and the object (of a bookmark only its resourceVersion counts)."""

    type: str
    object: Object


@dataclass(frozen=True, slots=True)
class ObjectList:
    """A consistent list: all items as of `resource_version`, from which a watch goes on."""

    items: list[Object]
    resource_version: str


class KubeClient:
    """`await KubeClient.connect()` for a real cluster; tests pass in another transport.

    `metrics` are those of the process's registry; without them what is counted is not scraped (tools and tests).
    """

    def __init__(
        self,
        transport: Transport,
        *,
        retry: RetryPolicy | None = None,
        rng: random.Random | None = None,
        metrics: KubeMetrics | None = None,
        try_timeout: float = TRY_TIMEOUT,
        call_timeout: float = CALL_TIMEOUT,
    ) -> None:
        self._transport = transport
        self._retry = retry or RetryPolicy()
        self._rng = rng or random.Random()  # noqa: S311 (jitter)
        self.metrics = metrics or KubeMetrics(CollectorRegistry())
        self._try_timeout = try_timeout
        self._call_timeout = call_timeout
        # Write requests sent, each try counted, by (verb, resource), such as ("patch", "engineconns/status").
        self.writes: Counter[tuple[str, str]] = Counter()

    @classmethod
    async def connect(cls, kubeconfig: str | None = None, **options: Any) -> Self:
        """A client of the cluster that KUBECONFIG, the pod's service account or ~/.kube/config names."""
        return cls(RestTransport(await load_configuration(kubeconfig), kubeconfig=kubeconfig), **options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._transport.close()

    async def server_version(self, *, timeout: float | None = None) -> Object:
        return await self._call("version", "version", Request("GET", "/version"), timeout)

    async def signing_keys(self, *, timeout: float | None = None) -> Object:
        """The public keys of the API server's service account tokens, as a JSON Web Key Set."""
        return await self._call("get", "jwks", Request("GET", "/openid/v1/jwks", accept=JWKS), timeout)

    async def get(
        self, resource: Resource, name: str, *, namespace: str | None = None, timeout: float | None = None
    ) -> Object:
        path = resource.path(namespace=namespace, name=name)
        return await self._call("get", resource.plural, Request("GET", path), timeout)

    async def list(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int = PAGE,
        timeout: float | None = None,
    ) -> ObjectList:
        """Everything at once; as `pages`."""
        items: list[Object] = []
        version = ""
        async for page in self.pages(
            resource, namespace=namespace, label_selector=label_selector, field_selector=field_selector, limit=limit,
            timeout=timeout,
        ):  # fmt: skip
            items += page.items
            version = page.resource_version
        return ObjectList(items, version)

    async def pages(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int = PAGE,
        timeout: float | None = None,
    ) -> AsyncIterator[ObjectList]:
        """Everything, page by page, each with the version of the whole: who keeps little of a page needs little memory.

        `timeout` bounds each page. Raises Gone where the pages outlived the snapshot: begin again.
        """
        query = _selectors(label_selector, field_selector) | {"limit": str(limit)}
        while True:
            request = Request("GET", resource.path(namespace=namespace), query)
            try:
                page = await self._call("list", resource.plural, request, timeout)
            except ReplyTooLarge:
                if int(query["limit"]) == 1:
                    raise
                query = query | {"limit": str(int(query["limit"]) // 2)}
                continue
            metadata = page["metadata"]
            yield ObjectList(page.get("items") or [], metadata["resourceVersion"])
            if not metadata.get("continue"):
                return
            query = query | {"continue": metadata["continue"]}

    async def watch(
        self,
        resource: Resource,
        *,
        resource_version: str,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        timeout_seconds: int = 300,
        on_accepted: Callable[[], None] | None = None,
    ) -> AsyncGenerator[WatchEvent]:
        """Changes after `resource_version`, until the server ends the watch (after `timeout_seconds`).

        `on_accepted` is called when the server has taken the watch. The first event may come a minute later.

        Raises Gone where that version is too old (said either by the status or by an ERROR event), Unreachable where
        the stream breaks. Never tries again: its caller has to know.
        """
        query = _selectors(label_selector, field_selector) | {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(timeout_seconds),
        }
        request = Request("GET", resource.path(namespace=namespace), query)
        try:
            async with self._transport.stream(request, timeout=self._try_timeout) as stream:
                self.metrics.count_request("watch", resource.plural, stream.reply.status)
                if stream.reply.status != 200:
                    raise _error_of(stream.reply)
                if on_accepted is not None:
                    on_accepted()
                lines = _Lines()
                async for chunk in stream.chunks:
                    for line in lines.feed(chunk):
                        event = orjson.loads(line)
                        if event["type"] == "ERROR":
                            status = event["object"]
                            raise error_from_status(int(status.get("code") or 500), status)
                        yield WatchEvent(event["type"], event["object"])
                lines.end()
        except Unreachable:
            self.metrics.count_request("watch", resource.plural, 0)
            raise

    async def create(
        self, resource: Resource, body: Object, *, namespace: str | None = None, timeout: float | None = None
    ) -> Object:
        """Not tried again after a reset: on AlreadyExists look whether the object is the one you wanted."""
        path = resource.path(namespace=namespace or _namespace_of(resource, body))
        return await self._call("create", resource.plural, Request("POST", path, _MANAGED, body), timeout)

    async def patch(
        self,
        resource: Resource,
        name: str,
        body: Object,
        *,
        namespace: str | None = None,
        subresource: str | None = None,
        strategic: bool = False,
        timeout: float | None = None,
    ) -> Object:
        """A merge patch (RFC 7386); `metadata.resourceVersion` in it makes it conditional (Conflict).

        `strategic` merges lists by their keys, such as containers by their names; only Kubernetes's own kinds take it.
        """
        path = resource.path(namespace=namespace, name=name, subresource=subresource)
        label = f"{resource.plural}/{subresource}" if subresource else resource.plural
        kind = STRATEGIC_PATCH if strategic else MERGE_PATCH
        return await self._call("patch", label, Request("PATCH", path, _MANAGED, body, kind), timeout)

    async def patch_operations(
        self,
        resource: Resource,
        name: str,
        operations: Sequence[Object],
        *,
        namespace: str | None = None,
        timeout: float | None = None,
    ) -> Object:
        """A JSON patch (RFC 6902). Raises Invalid where a `test` in it does not hold.

        It is tried again after a reset, as any patch. So Invalid may also mean that an earlier try was executed and
        its answer got lost: look at the object.
        """
        path = resource.path(namespace=namespace, name=name)
        return await self._call(
            "patch", resource.plural, Request("PATCH", path, _MANAGED, list(operations), JSON_PATCH), timeout
        )

    async def delete(
        self,
        resource: Resource,
        name: str,
        *,
        namespace: str | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
        grace_seconds: int | None = None,
        timeout: float | None = None,
    ) -> Object:
        """Asks for the deletion, in the background; `uid` and `resource_version` are preconditions (Conflict).

        NotFound after a retry may mean that the first try did it.
        """
        options: Object = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        preconditions = {key: value for key, value in preconditions.items() if value is not None}
        if preconditions:
            options["preconditions"] = preconditions
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        path = resource.path(namespace=namespace, name=name)
        return await self._call("delete", resource.plural, Request("DELETE", path, body=options), timeout)

    async def pod_log(self, name: str, *, namespace: str, container: str, tail_bytes: int, timeout: float) -> bytes:
        """The end of a container's log as the kubelet still has it."""
        # limitBytes keeps the head; by lines the kubelet keeps the end: of lines of 100 bytes and more.
        query = {"container": container, "tailLines": str(max(1, tail_bytes // 100)), "limitBytes": str(tail_bytes)}
        path = PODS.path(namespace=namespace, name=name, subresource="log")
        return await self._answer("get", "pods/log", Request("GET", path, query), timeout)

    async def _call(self, verb: str, label: str, request: Request, timeout: float | None) -> Object:
        """As `_answer`, for the JSON that all calls but a log's answer."""
        body = await self._answer(verb, label, request, timeout)
        try:
            answer: Object = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            message = f"{request.method} {request.path} answered {body[:200]!r}"
            raise ServerError(502, "NotJSON", message) from error
        return answer

    async def _answer(self, verb: str, label: str, request: Request, timeout: float | None) -> bytes:
        """One call: tries until there is an answer, an error that the caller must handle, or no time left."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (self._call_timeout if timeout is None else timeout)
        attempt, refreshed = 0, False
        while True:
            attempt += 1
            try:
                return await self._try(verb, label, request, min(self._try_timeout, deadline - loop.time()))
            except Unauthorized:
                # The token may have been rotated: one more try, with fresh credentials.
                if refreshed:
                    raise
                refreshed = True
                await self._transport.refresh()
            except ApiError as error:
                wait = self._retry.next_delay(verb, attempt, error, rng=self._rng)
                if wait is None or loop.time() + wait >= deadline:
                    raise
                self.metrics.retries.labels(verb, label).inc()
                await asyncio.sleep(wait)

    async def _try(self, verb: str, label: str, request: Request, limit: float) -> bytes:
        if request.method != "GET":
            self.writes[verb, label] += 1
        code, begun = 0, time.perf_counter()
        try:
            reply = await self._transport.request(request, timeout=limit)
            code = reply.status
        finally:
            self.metrics.count_request(verb, label, code, time.perf_counter() - begun)
        if not 200 <= reply.status < 300:
            raise _error_of(reply)
        return reply.body


_MANAGED = {"fieldManager": FIELD_MANAGER}


def _selectors(label_selector: str | None, field_selector: str | None) -> dict[str, str]:
    pairs = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {key: value for key, value in pairs.items() if value}


def _namespace_of(resource: Resource, body: Object) -> str | None:
    namespace: str | None = body.get("metadata", {}).get("namespace")
    if resource.namespaced and not namespace:
        raise ValueError(f"create {resource.plural}: give a namespace, as an argument or in metadata.namespace")
    return namespace


def _error_of(reply: Reply) -> ApiError:
    try:
        body: Any = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        body = reply.body[:500].decode(errors="replace")
    # Retry-After may also be a date; API servers send seconds, and a proxy's date falls back to our own delay.
    header = reply.headers.get("Retry-After", "")
    return error_from_status(reply.status, body, retry_after=float(header) if header.isdecimal() else None)


class _Lines:
    """The lines of a stream, split by hand: one chunk often holds hundreds of events, or a part of one."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that end in this chunk. Raises Unreachable for one without an end."""
        if b"\n" not in chunk:
            self._parts.append(chunk)
            self._size += len(chunk)
            if self._size > EVENT_BYTES:
                raise Unreachable(f"the watch sent an event of more than {EVENT_BYTES} bytes")
            return []
        first, *rest = chunk.split(b"\n")
        lines = [b"".join((*self._parts, first)), *rest[:-1]]
        self._parts, self._size = [rest[-1]], len(rest[-1])
        return [line for line in lines if line]

    def end(self) -> None:
        """The stream has ended. Raises Unreachable where it did within a line."""
        if tail := b"".join(self._parts).strip():
            raise Unreachable(f"the watch was cut within an event ({len(tail)} bytes of it had come)")
