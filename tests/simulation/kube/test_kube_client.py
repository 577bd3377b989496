"""KubeClient against a faulty API server, in virtual time: what it tries again, what its caller gets, and when."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import orjson
import pytest

from linkis_ecm.kube.client import KubeClient, Object, WatchEvent
from linkis_ecm.kube.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    ServerError,
    Throttled,
    Unauthorized,
    Unreachable,
)
from linkis_ecm.kube.resources import CONFIGMAPS, ENGINECONNS, PODS
from linkis_ecm.kube.transport import Reply, Request, Stream
from tools.testkit.fakes.apiserver import FakeApiServer, FakeTransport
from tools.testkit.fakes.faults import Fault

pytestmark = pytest.mark.looptime
NS = "engines"
ENGINE = {"metadata": {"name": "e"}, "spec": {"engineType": "python", "user": "hadoop"}}
LABEL = {"metadata": {"labels": {"a": "b"}}}


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    made = FakeApiServer()
    made.cluster.create(ENGINECONNS, {"metadata": {"name": "old"}, "spec": ENGINE["spec"]}, namespace=NS)
    yield made
    made.cluster.close()


@pytest.fixture
def client(server: FakeApiServer) -> KubeClient:
    return server.client()


Call = Callable[[KubeClient], Awaitable[Any]]
CALLS: dict[str, Call] = {
    "get": lambda client: client.get(ENGINECONNS, "old", namespace=NS),
    "list": lambda client: client.list(ENGINECONNS, namespace=NS),
    "patch": lambda client: client.patch(ENGINECONNS, "old", LABEL, namespace=NS),
    "delete": lambda client: client.delete(ENGINECONNS, "old", namespace=NS),
    "create": lambda client: client.create(ENGINECONNS, ENGINE, namespace=NS),
}
IDEMPOTENT = [verb for verb in CALLS if verb != "create"]


def now() -> float:
    return asyncio.get_running_loop().time()


def sent(server: FakeApiServer, verb: str) -> list[float]:
    """When each request of that verb came."""
    return [entry.at for entry in server.log if entry.call.verb == verb]


# Throttled


@pytest.mark.parametrize("verb", CALLS)
async def test_a_throttled_call_of_any_verb_comes_back_after_the_wait_asked_for(
    server: FakeApiServer, client: KubeClient, verb: str
) -> None:
    server.faults.add(Fault(verb=verb, status=429, retry_after=3, times=2))
    await CALLS[verb](client)
    first, second, third = sent(server, verb)
    for wait in (second - first, third - second):
        assert 3 <= wait <= 3 * 1.25 + 0.01


async def test_a_throttled_call_without_a_wait_comes_back_soon(server: FakeApiServer, client: KubeClient) -> None:
    server.faults.add(Fault(verb="create", status=429))
    await CALLS["create"](client)
    first, second = sent(server, "create")
    assert 0.05 <= second - first <= 0.1


@pytest.mark.parametrize("verb", CALLS)
async def test_a_wait_above_the_longest_is_left_to_the_caller(
    server: FakeApiServer, client: KubeClient, verb: str
) -> None:
    server.faults.add(Fault(verb=verb, status=429, retry_after=11, times=None))
    with pytest.raises(Throttled) as refusal:
        await CALLS[verb](client)
    assert refusal.value.retry_after == 11
    assert len(sent(server, verb)) == 1
    assert now() < 1


# Broken and cut


@pytest.mark.parametrize("verb", IDEMPOTENT)
async def test_a_500_on_what_is_harmless_twice_is_tried_five_times(
    server: FakeApiServer, client: KubeClient, verb: str
) -> None:
    server.faults.add(Fault(verb=verb, status=500, times=4))
    await CALLS[verb](client)
    times = sent(server, verb)
    assert len(times) == 5
    assert 0.75 <= times[-1] - times[0] <= 1.5


@pytest.mark.parametrize("verb", IDEMPOTENT)
@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 503}, {"reset": "before"}], ids=str)
async def test_after_five_tries_the_caller_gets_the_error(
    server: FakeApiServer, client: KubeClient, verb: str, fault: dict[str, Any]
) -> None:
    server.faults.add(Fault(verb=verb, times=None, **fault))
    with pytest.raises((ServerError, Unreachable)) as refusal:
        await CALLS[verb](client)
    assert refusal.value.status == fault.get("status", 0)
    assert len(sent(server, verb)) == 5


async def test_a_500_on_a_create_is_reported_at_once(server: FakeApiServer, client: KubeClient) -> None:
    server.faults.add(Fault(verb="create", status=500))
    with pytest.raises(ServerError):
        await CALLS["create"](client)
    assert len(sent(server, "create")) == 1


@pytest.mark.parametrize(("reset", "made"), [("before", False), ("after", True)])
async def test_a_create_that_is_cut_is_reported_once_whether_it_was_executed_or_not(
    server: FakeApiServer, client: KubeClient, reset: Any, made: bool
) -> None:
    server.faults.add(Fault(verb="create", reset=reset))
    with pytest.raises(Unreachable):
        await CALLS["create"](client)
    assert len(sent(server, "create")) == 1
    assert client.writes == {("create", "engineconns"): 1}
    assert (server.cluster.peek(ENGINECONNS, (NS, "e")) is not None) is made


async def test_a_patch_that_is_cut_is_tried_again_and_done_once(server: FakeApiServer, client: KubeClient) -> None:
    before = await client.get(ENGINECONNS, "old", namespace=NS)
    server.faults.add(Fault(verb="patch", reset="after", times=2))
    after = await CALLS["patch"](client)
    assert len(sent(server, "patch")) == 3
    assert after["metadata"]["labels"] == {"a": "b"}
    assert int(after["metadata"]["resourceVersion"]) == int(before["metadata"]["resourceVersion"]) + 1


async def test_a_delete_that_is_cut_after_it_was_done_says_not_found(server: FakeApiServer, client: KubeClient) -> None:
    server.faults.add(Fault(verb="delete", reset="after"))
    with pytest.raises(NotFound):
        await CALLS["delete"](client)
    assert len(sent(server, "delete")) == 2


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [(403, "Forbidden", Forbidden), (409, "Conflict", Conflict), (409, "AlreadyExists", AlreadyExists),
     (410, "Expired", Gone), (422, "Invalid", Invalid), (400, "BadRequest", ApiError)],
)  # fmt: skip
@pytest.mark.parametrize("verb", CALLS)
async def test_a_refusal_is_reported_at_once_by_its_type(
    server: FakeApiServer, client: KubeClient, verb: str, code: int, reason: str, kind: type[ApiError]
) -> None:
    server.faults.add(Fault(verb=verb, status=code, reason=reason))
    with pytest.raises(ApiError) as refusal:
        await CALLS[verb](client)
    assert (type(refusal.value), refusal.value.status, refusal.value.reason) == (kind, code, reason)
    assert len(sent(server, verb)) == 1


# Counts


async def test_every_try_of_a_write_is_counted_and_no_read(server: FakeApiServer, client: KubeClient) -> None:
    server.faults.add(Fault(verb="patch", subresource="status", status=500, times=2))
    server.faults.add(Fault(verb="create", status=429, times=1))
    server.faults.add(Fault(verb="delete", resource=PODS, reset="before", times=3))
    server.faults.add(Fault(verb="get", status=500, times=2))
    await client.get(ENGINECONNS, "old", namespace=NS)
    await client.list(ENGINECONNS)
    await client.patch(ENGINECONNS, "old", {"status": {"engineState": "Idle"}}, namespace=NS, subresource="status")
    await client.patch(ENGINECONNS, "old", LABEL, namespace=NS)
    await client.create(CONFIGMAPS, {"metadata": {"name": "c", "namespace": NS}})
    with pytest.raises(NotFound):
        await client.delete(PODS, "absent", namespace=NS)
    assert client.writes == {
        ("patch", "engineconns/status"): 3,
        ("patch", "engineconns"): 1,
        ("create", "configmaps"): 2,
        ("delete", "pods"): 4,
    }
    assert client.writes == server.writes()


# Time


@pytest.mark.parametrize("verb", CALLS)
async def test_an_answer_that_hangs_is_given_up_after_the_callers_time(server: FakeApiServer, verb: str) -> None:
    client = server.client(call_timeout=4.0)
    server.faults.add(Fault(verb=verb, latency=1000, times=None))
    with pytest.raises(Unreachable):
        await CALLS[verb](client)
    assert 3.5 <= now() <= 4.0


async def test_the_timeout_of_one_call_goes_before_the_clients(server: FakeApiServer, client: KubeClient) -> None:
    server.faults.add(Fault(latency=1000, times=None))
    with pytest.raises(Unreachable):
        await client.get(ENGINECONNS, "old", namespace=NS, timeout=2)
    assert now() == pytest.approx(2)


@pytest.mark.parametrize(
    "fault",
    [{"latency": 1000}, {"answer_latency": 1000}, {"status": 429, "retry_after": 9}, {"latency": 7, "status": 500}],
    ids=str,
)
@pytest.mark.parametrize("verb", CALLS)
async def test_all_tries_and_waits_of_a_call_end_within_30_seconds(
    server: FakeApiServer, client: KubeClient, verb: str, fault: dict[str, Any]
) -> None:
    server.faults.add(Fault(verb=verb, times=None, **fault))
    with pytest.raises(ApiError):
        await CALLS[verb](client)
    assert now() <= 30.0
    # The server notes a call when it executes it: one that was given up before that is not among them.
    if verb != "create" and fault.get("latency") != 1000 and "retry_after" not in fault:
        assert len(sent(server, verb)) >= 2, "one answer that hangs leaves time for another try"


async def test_a_slow_answer_is_one_call(server: FakeApiServer, client: KubeClient) -> None:
    server.faults.add(Fault(verb="create", latency=5, answer_latency=4))
    made = await CALLS["create"](client)
    assert made["metadata"]["name"] == "e"
    assert now() == pytest.approx(9)
    assert client.writes.total() == 1


async def test_each_page_of_a_list_is_tried_again_by_itself(server: FakeApiServer, client: KubeClient) -> None:
    for n in range(6):
        server.cluster.create(CONFIGMAPS, {"metadata": {"name": f"c{n}"}}, namespace=NS)
    server.faults.add(Fault(verb="list", resource=CONFIGMAPS, status=500, skip=1, times=2))
    found = await client.list(CONFIGMAPS, namespace=NS, limit=2)
    assert [item["metadata"]["name"] for item in found.items] == [f"c{n}" for n in range(6)]
    assert len(sent(server, "list")) == 5


async def test_a_list_whose_pages_have_expired_is_gone(server: FakeApiServer, client: KubeClient) -> None:
    for n in range(4):
        server.cluster.create(CONFIGMAPS, {"metadata": {"name": f"c{n}"}}, namespace=NS)
    server.faults.add(
        Fault(verb="list", when=lambda call: "continue" in call.query and bool(server.cluster.expire_pages() or True))
    )
    with pytest.raises(Gone):
        await client.list(CONFIGMAPS, namespace=NS, limit=2)


# Credentials


class Rotating(FakeTransport):
    """Refuses with 401 until the credentials are fetched anew, `stale` times over."""

    def __init__(self, server: FakeApiServer, *, stale: int) -> None:
        super().__init__(server)
        self.stale = stale
        self.refreshes = 0
        self.refused = 0

    def _refusal(self) -> Reply | None:
        if not self.stale:
            return None
        self.refused += 1
        return Reply(401, orjson.dumps({"kind": "Status", "reason": "Unauthorized", "message": "no", "code": 401}))

    async def request(self, request: Request, *, timeout: float) -> Reply:
        await asyncio.sleep(0)
        return self._refusal() or await super().request(request, timeout=timeout)

    @asynccontextmanager
    async def stream(self, request: Request, *, timeout: float) -> AsyncIterator[Stream]:
        refusal = self._refusal()
        if refusal is not None:
            yield Stream(refusal, _no_chunks())
            return
        async with super().stream(request, timeout=timeout) as stream:
            yield stream

    async def refresh(self) -> None:
        self.refreshes += 1
        self.stale = max(0, self.stale - 1)


async def _no_chunks() -> AsyncIterator[bytes]:
    return
    yield b""


@pytest.mark.parametrize("verb", CALLS)
async def test_expired_credentials_are_fetched_anew_once_and_the_call_succeeds(
    server: FakeApiServer, verb: str
) -> None:
    transport = Rotating(server, stale=1)
    await CALLS[verb](KubeClient(transport))
    assert (transport.refused, transport.refreshes) == (1, 1)
    assert len(sent(server, verb)) == 1


@pytest.mark.parametrize("verb", CALLS)
async def test_credentials_that_are_refused_again_are_the_callers(server: FakeApiServer, verb: str) -> None:
    transport = Rotating(server, stale=9)
    with pytest.raises(Unauthorized):
        await CALLS[verb](KubeClient(transport))
    assert (transport.refused, transport.refreshes) == (2, 1)


# Answers that are none


class Canned(FakeTransport):
    """Answers from a list, whatever is asked."""

    def __init__(self, *replies: Reply) -> None:
        super().__init__(FakeApiServer())
        self.replies = deque(replies)

    async def request(self, request: Request, *, timeout: float) -> Reply:
        return self.replies.popleft()


async def test_a_proxys_page_of_html_is_a_server_error() -> None:
    client = KubeClient(Canned(*[Reply(200, b"<html>sign in</html>")] * 5))
    with pytest.raises(ServerError) as refusal:
        await CALLS["get"](client)
    assert "sign in" in refusal.value.message


async def test_a_refusal_without_a_status_object_has_its_words_and_its_type() -> None:
    client = KubeClient(Canned(Reply(403, b"blocked by the proxy")))
    with pytest.raises(Forbidden) as refusal:
        await CALLS["get"](client)
    assert (refusal.value.reason, refusal.value.message) == ("HTTP403", "blocked by the proxy")


async def test_a_retry_after_that_is_a_date_falls_back_to_our_own_delay(server: FakeApiServer) -> None:
    date = {"Retry-After": "Fri, 27 Nov 2026 10:00:00 GMT"}
    client = KubeClient(Canned(Reply(429, b"{}", date), Reply(200, b'{"kind": "Status"}')), rng=random.Random(0))
    assert await CALLS["create"](client) == {"kind": "Status"}
    assert 0.05 <= now() <= 0.1


# Watches


async def following(client: KubeClient, version: str) -> list[WatchEvent]:
    """All events of a watch until it ends; raises what it raises."""
    async with aclosing(client.watch(ENGINECONNS, resource_version=version, namespace=NS)) as watch:
        return [event async for event in watch]


def engine(server: FakeApiServer, name: str) -> Object:
    return server.cluster.create(ENGINECONNS, {"metadata": {"name": name}, "spec": ENGINE["spec"]}, namespace=NS)


async def test_a_watch_refused_with_status_410_is_gone(server: FakeApiServer, client: KubeClient) -> None:
    server.faults.add(Fault(verb="watch", status=410))
    with pytest.raises(Gone):
        await following(client, server.cluster.version)
    assert len(sent(server, "watch")) == 1, "a watch never tries again"


async def test_a_watch_from_a_version_too_old_is_gone(server: FakeApiServer, client: KubeClient) -> None:
    old = server.cluster.version
    engine(server, "a")
    server.watches.compact()
    with pytest.raises(Gone):
        await following(client, old)


async def test_an_open_watch_that_gets_410_gives_what_it_had_and_is_gone(
    server: FakeApiServer, client: KubeClient
) -> None:
    told: list[WatchEvent] = []

    async def follow() -> None:
        async with aclosing(client.watch(ENGINECONNS, resource_version=server.cluster.version)) as watch:
            async for event in watch:
                told.append(event)

    task = asyncio.create_task(follow())
    await asyncio.sleep(1)
    engine(server, "a")
    server.watches.expire(ENGINECONNS)
    with pytest.raises(Gone):
        await task
    assert [event.object["metadata"]["name"] for event in told] == ["a"]


@pytest.mark.parametrize(("code", "kind"), [(500, ServerError), (403, Forbidden), (429, Throttled)])
async def test_an_error_event_is_raised_by_its_type(
    server: FakeApiServer, client: KubeClient, code: int, kind: type[ApiError]
) -> None:
    task = asyncio.create_task(following(client, server.cluster.version))
    await asyncio.sleep(1)
    server.watches.error(ENGINECONNS, code, "Reason")
    with pytest.raises(kind):
        await task


@pytest.mark.parametrize("end", ["reset", "closed in good order"])
async def test_a_watch_cut_within_an_event_is_unreachable(server: FakeApiServer, client: KubeClient, end: str) -> None:
    task = asyncio.create_task(following(client, server.cluster.version))
    await asyncio.sleep(1)
    (watch,) = server.watches.opened(ENGINECONNS)
    if end == "reset":
        server.watches.cut(ENGINECONNS, within_event=True)
    else:
        watch.push(b'{"type":"ADDED","object":{"kind":"Eng')
        watch.push(None)
    with pytest.raises(Unreachable):
        await task


async def test_a_watch_cut_between_events_is_unreachable_and_one_that_ends_is_not(
    server: FakeApiServer, client: KubeClient
) -> None:
    task = asyncio.create_task(following(client, server.cluster.version))
    await asyncio.sleep(1)
    server.watches.cut(ENGINECONNS)
    with pytest.raises(Unreachable):
        await task
    task = asyncio.create_task(following(client, server.cluster.version))
    await asyncio.sleep(1)
    engine(server, "a")
    server.watches.end(ENGINECONNS)
    assert [event.type for event in await task] == ["ADDED"]


async def test_a_watch_that_gets_no_answer_is_unreachable_after_its_try(
    server: FakeApiServer, client: KubeClient
) -> None:
    server.faults.add(Fault(verb="watch", latency=1000))
    with pytest.raises(Unreachable):
        await following(client, server.cluster.version)
    assert now() == pytest.approx(10)


@pytest.mark.parametrize("size", [1, 7, 64, 100_000])
async def test_events_are_whole_however_the_bytes_are_cut(size: int) -> None:
    objects = [{"metadata": {"name": f"é{n}", "resourceVersion": str(n)}, "data": "x" * (n * 40)} for n in range(20)]
    data = b"".join(orjson.dumps({"type": "ADDED", "object": item}) + b"\n" for item in objects)

    class Chunked(FakeTransport):
        @asynccontextmanager
        async def stream(self, request: Request, *, timeout: float) -> AsyncIterator[Stream]:
            async def chunks() -> AsyncIterator[bytes]:
                for start in range(0, len(data), size):
                    yield data[start : start + size]

            yield Stream(Reply(200, b""), chunks())

    told = await following(KubeClient(Chunked(FakeApiServer())), "1")
    assert [event.object for event in told] == objects
