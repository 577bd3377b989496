"""Puts the gateway's parts together as an aiohttp application.

One middleware stands around everything: it bounds how many calls are under way, says who calls, turns every error into
a Message and counts. Endpoints come from `gateway.routes`.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, AsyncExitStack
from datetime import UTC, datetime

import orjson
from aiohttp import web

from linkis_ecm.agent_client.client import AgentClient
from linkis_ecm.archive.bundles import Archive
from linkis_ecm.gateway import openapi
from linkis_ecm.gateway.agents.client import Agents
from linkis_ecm.gateway.agents.link import AgentLink
from linkis_ecm.gateway.answers import Result
from linkis_ecm.gateway.auth.base import Authenticator, Caller
from linkis_ecm.gateway.auth.bearer import AUTHORIZATION
from linkis_ecm.gateway.auth.code_flow import CodeFlow
from linkis_ecm.gateway.auth.tokens import TOKEN_HEADER
from linkis_ecm.gateway.context import Audit, Call, Gateway, call_as
from linkis_ecm.gateway.followers.follow import Followers
from linkis_ecm.gateway.followers.lines import EventBudget
from linkis_ecm.gateway.http import envelope
from linkis_ecm.gateway.http.budget import ByteBudget, ByteQuota, ByteShares
from linkis_ecm.gateway.http.errors import Refused, denied, forbidden, no_login, no_such_path, timed_out, unavailable
from linkis_ecm.gateway.http.peers import Peers
from linkis_ecm.gateway.http.ratelimit import Limits
from linkis_ecm.gateway.http.responses import Responder
from linkis_ecm.gateway.http.sender import HEAD_SENT
from linkis_ecm.gateway.http.standing import while_allowed
from linkis_ecm.gateway.http.streams import STREAM_BYTES, Streams, hold_for_stream
from linkis_ecm.gateway.inventory.cache import EngineCache, PluginCache
from linkis_ecm.gateway.inventory.changes import EngineChanges
from linkis_ecm.gateway.inventory.claims import Claims
from linkis_ecm.gateway.inventory.cluster import Cluster
from linkis_ecm.gateway.inventory.ecm_state import EcmStateStore
from linkis_ecm.gateway.inventory.engine_tokens import EngineTokens
from linkis_ecm.gateway.inventory.history import Find, History, Records
from linkis_ecm.gateway.inventory.lookup import EngineLookup
from linkis_ecm.gateway.inventory.places import Growing
from linkis_ecm.gateway.inventory.trends import Trends
from linkis_ecm.gateway.inventory.usage_reports import UsageReports
from linkis_ecm.gateway.journal import ExecutionJournal, Settler, Store, Writer
from linkis_ecm.gateway.logs.archived import ArchiveLogSource
from linkis_ecm.gateway.logs.live import AgentLogSource
from linkis_ecm.gateway.logs.source import Logs
from linkis_ecm.gateway.metrics import Metrics
from linkis_ecm.gateway.pages import login as console_login
from linkis_ecm.gateway.pages import serve as pages
from linkis_ecm.gateway.reading import arguments
from linkis_ecm.gateway.results.source import ResultSource
from linkis_ecm.gateway.routes import METHODS, Method
from linkis_ecm.gateway.settings import Settings
from linkis_ecm.gateway.tls import ServerCertificate
from linkis_ecm.process.engine_metrics import exemplar_of
from linkis_ecm.process.ports.connections import NOBODY_LOGS_IN, ConnectionLimits
from linkis_ecm.process.ports.listener import Site, prove
from linkis_ecm.process.ports.web_runner import Runner
from linkis_ecm.process.scrape import scrape_handler

log = logging.getLogger(__name__)
# A logger of its own, so that it can be sent elsewhere than the rest.
audit = logging.getLogger("linkis_ecm.audit")

# A client that sends no request, or the first half of one, is cut after this; clients' own pools keep less.
KEEPALIVE_SECONDS = 75.0
BY_ENGINE = frozenset(method.path for method in METHODS if method.by_engine)
STREAMS = frozenset(method.path for method in METHODS if method.is_stream)
GATEWAY: web.AppKey[Gateway] = web.AppKey("gateway", Gateway)
PEERS: web.AppKey[Peers] = web.AppKey("peers", Peers)
CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)
AUDIT: web.RequestKey[Audit] = web.RequestKey("audit", Audit)
DENIED: web.RequestKey[bool] = web.RequestKey("denied", bool)
METHOD: web.RequestKey[str] = web.RequestKey("method", str)
# The call has its line in the audit log.
AUDITED: web.RequestKey[bool] = web.RequestKey("audited", bool)
# The console's login is for people who are not logged in yet: no method, but counted and audited as one.
LOGIN = {console_login.WAYS: "consoleLogin", console_login.TOKEN: "consoleToken"}
Endpoint = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_app(
    *,
    settings: Settings,
    authenticator: Authenticator,
    cluster: Cluster,
    engines: EngineCache,
    plugins: PluginCache,
    find: Find | None,
    archive: Archive | None = None,
    records: Records | None = None,
    store: Store | None = None,
    journal: Writer | None = None,
    metrics: Metrics | None = None,
    code_flow: CodeFlow | None = None,
    new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> web.Application:
    """The application over its parts; to be called where an event loop runs.

    `find`, `records` and `store` ask the database, `journal` writes to it; without them nothing outlives an engine.
    `metrics` are the process's; /metrics serves their registry, here where it has no port of its own.
    """
    metrics = metrics or Metrics()
    metrics.watch_engines(lambda: [(str(e.state), e.engine_type, e.tenant) for e in engines], known_types=plugins.types)
    # No bound on connections: calls are bounded for each engine.
    agent_client = AgentClient(user_agent="linkis-ecm-gateway", connections=0)
    history = History(find)
    lookup = EngineLookup(engines, history, cluster)
    budget = ByteBudget(settings.max_held_bytes)
    metrics.watch_budget(budget)
    streams = Streams(total=settings.max_streams, of_user=settings.user_streams, held_bytes=settings.max_held_bytes)
    metrics.watch_streams(lambda: streams.open)
    link = AgentLink(agent_client, settings=settings, metrics=metrics, budget=budget)
    app = web.Application(middlewares=[_middleware], client_max_size=settings.max_body_bytes)
    executions = ExecutionJournal(history, writer=journal, store=store, counts=metrics.tasks)
    agents = Agents(link, engines)
    # Long events may have a part of the budget, so that followers never take everybody's.
    part = settings.max_held_bytes // 3
    followers = Followers(agents, EventBudget(budget, ByteBudget(part), ByteQuota(part)), metrics)
    streams.on_stop.append(followers.stop)
    results = ResultSource(link, archive, budget)
    app[PEERS] = Peers(settings.trusted_proxies, settings.forwarded_header)
    app[GATEWAY] = Gateway(
        settings=settings,
        authenticator=authenticator,
        cluster=cluster,
        engines=engines,
        plugins=plugins,
        changes=EngineChanges(engines, plugins),
        trends=Trends(engines, clock),
        history=history,
        lookup=lookup,
        agents=agents,
        executions=executions,
        records=records,
        usage_reports=UsageReports(),
        logs=Logs((AgentLogSource(link), *((ArchiveLogSource(archive, budget),) if archive is not None else ()))),
        results=results,
        archive=archive,
        em=EcmStateStore(cluster, settings.own_namespace, settings.state_configmap),
        claims=Claims(cluster, engines, plugins, new_id=new_id, clock=clock, has_key=link.has_key),
        growing=Growing(),
        limits=Limits(per_second=settings.user_per_second, burst=settings.user_burst, at_once=settings.user_at_once),
        streams=streams,
        metrics=metrics,
        budget=budget,
        body_shares=ByteShares(settings.max_held_bytes // 2),
        followers=followers,
        engine_tokens=EngineTokens(settings.master_keys, engines),
        new_id=new_id,
        clock=clock,
    )

    async def settle(_: web.Application) -> AsyncIterator[None]:
        settler = asyncio.create_task(Settler(executions, engine=lookup.find, get_task=agents.task).run())
        yield
        settler.cancel()

    async def sample(app: web.Application) -> AsyncIterator[None]:
        trends = asyncio.create_task(app[GATEWAY].trends.run())
        yield
        trends.cancel()

    async def close(_: web.Application) -> None:
        await agent_client.close()
        history.close()
        results.close()
        if archive is not None:
            archive.close()

    if store is not None:
        app.cleanup_ctx.append(settle)
    app.cleanup_ctx.append(sample)

    async def end_streams(app: web.Application) -> None:
        # Before the calls under way are waited for: a stream would last as long as that wait.
        app[GATEWAY].streams.stop()

    app.on_shutdown.append(end_streams)
    app.on_cleanup.append(close)
    app.on_response_prepare.append(_common_headers)
    app.router.add_get("/healthz", _healthz)
    app.router.add_get("/readyz", _readyz)
    if not settings.metrics_port:
        app.router.add_get("/metrics", scrape_handler(metrics.registry))
    app.router.add_get("/openapi.json", _openapi)
    pages.add_routes(app.router)
    console_login.add_routes(app.router, code_flow, app[PEERS], on_login=_logged_in)
    for method in METHODS:
        for verb in (method.verb, *(("HEAD",) if method.head else ())):
            app.router.add_route(verb, method.path, _endpoint(method))
    return app


def new_runner(app: web.Application, settings: Settings, *, stop_seconds: float | None = None) -> Runner:
    """The server: a client that leaves takes its call with it, so nothing is fetched for nobody. `stop_seconds`: how
    long a stop waits for calls under way, where that is not `settings.shutdown_seconds`."""
    return Runner(
        app,
        error_body=_malformed,
        access_log=None,
        handler_cancellation=True,
        # Bodies with a Content-Encoding are refused, and not unpacked while they are thrown away.
        auto_decompress=False,
        keepalive_timeout=KEEPALIVE_SECONDS,
        shutdown_timeout=settings.shutdown_seconds if stop_seconds is None else stop_seconds,
        # Over the bound of a bearer token (16 KiB): aiohttp's own refusal of a longer header repeats its beginning.
        max_field_size=32 << 10,
        # A query of the longest parameters, each character percent-escaped.
        max_line_size=32 << 10,
        # What a refused body may still send before it is cut.
        lingering_time=5.0,
    )


def new_site(
    runner: Runner,
    host: str | None,
    port: int,
    *,
    settings: Settings,
    metrics: Metrics,
    certificate: ServerCertificate | None = None,
    kind: str = "api",
) -> Site:
    """The listening socket: HTTPS with a certificate, else HTTP. `kind` is api or metrics, where nobody logs in."""
    limits = ConnectionLimits(settings.max_connections, settings.max_strangers)
    return Site(
        runner,
        host,
        port,
        limits=limits if kind == "api" else NOBODY_LOGS_IN,
        counts=metrics.connections.of(kind),
        context=certificate.context if certificate is not None else None,
    )


def _malformed(status: int) -> tuple[bytes, str]:
    """The Message for what is no HTTP request."""
    sentence = "The request is no HTTP that can be read: check the client, and the length of its headers"
    return envelope.encode("", status=1, message=sentence if status < 500 else "unexpected error", data={}), (
        envelope.CONTENT_TYPE
    )


def _endpoint(method: Method) -> Endpoint:
    """The aiohttp handler of one method: reads the request, calls the method, sends what it gives back."""

    async def serve(request: web.Request) -> web.StreamResponse:
        gateway = request.app[GATEWAY]
        request[METHOD] = method.name
        began = time.perf_counter()
        audit = request[AUDIT] = Audit()
        if request[CALLER].read_only and method.changes:
            raise denied(
                forbidden(
                    f"{request[CALLER].user} may only look here, and {method.name} may change something: ask for"
                    " a token without readOnly, or for a Role with the verb create on engineconns"
                )
            )
        async with call_as(gateway, request[CALLER], audit=audit) as call:
            try:
                async with asyncio.timeout(method.seconds):
                    result = await method.handler(call, await arguments(call, request, method))
            except TimeoutError:
                raise timed_out(f"{method.name} took longer than {method.seconds:g} s: try again later") from None
            if method.is_stream:
                # At its end it would be too late to see who is looking.
                _audit(request, method.name, 200, time.perf_counter() - began)
                request[AUDITED] = True
            with _while_allowed(request, call, result) as allowed:
                return await Responder(request, gateway.settings.client_seconds, gateway.metrics).send(allowed)

    return serve


def _while_allowed(request: web.Request, call: Call, result: Result) -> AbstractContextManager[Result]:
    """The result to send, which ends with the rights of its caller where it takes long."""
    gateway, began_as = request.app[GATEWAY], request[CALLER]

    def left(caller: Caller) -> float:
        return caller.expires - gateway.clock().timestamp()

    async def ask() -> float:
        caller, _ = await _login(gateway, request)
        if not caller.has_rights_of(began_as):
            raise forbidden("The rights of this login have changed: call again")
        await call.ask_rights_again()
        return left(caller)

    streams = gateway.streams if request.path in STREAMS else None
    return while_allowed(result, ask, login_seconds=left(began_as), streams=streams, cut=lambda why: _cut(request, why))


@web.middleware
async def _middleware(request: web.Request, handler: Endpoint) -> web.StreamResponse:
    """Answers, counts and audits calls, and the console's login; the pages, health and metrics it only answers."""
    path = request.path
    is_call = path.startswith("/api/")
    if (login := LOGIN.get(path)) is not None:
        request[METHOD] = login
    metrics = request.app[GATEWAY].metrics
    began = time.perf_counter()
    response: web.StreamResponse | None = None
    try:
        response = await (_serve_call(request, handler) if is_call else handler(request))
    except Refused as refusal:
        request[DENIED] = refusal.denied
        if refusal.limit:
            metrics.limits.labels(refusal.limit).inc()
        response = envelope.refused(path, refusal)
    except web.HTTPException as error:
        response = envelope.refused(path, _routing_refusal(request, error))
    except Exception:
        metrics.errors.inc()
        response = envelope.refused(path, _unexpected_error(request))
    finally:
        if is_call or login is not None:
            # 499: the client left before there was an answer.
            _count(request, response.status if response is not None else 499, time.perf_counter() - began)
    if request.get(HEAD_SENT) and not response.prepared:
        _cut(request, "its source failed")  # another head would be taken for a part of the body
    return response


def _cut(request: web.Request, why: str) -> None:
    """Break off an answer that is being sent."""
    request.app[GATEWAY].metrics.answers_cut.labels("gateway").inc()
    log.info("an answer to %s is cut: %s", request.path, why)
    if request.transport is not None:
        request.transport.abort()


def _count(request: web.Request, http: int, took: float) -> None:
    """Count an answered call, and write its line of the audit log unless it has one."""
    metrics, name = request.app[GATEWAY].metrics, request.get(METHOD, "other")
    metrics.requests.labels(name, str(http)).inc()
    named = request.get(AUDIT)
    metrics.seconds.labels(name).observe(took, exemplar_of(named.engines[0]) if named and named.engines else None)
    if not request.get(AUDITED, False):
        _audit(request, name, http, took)


async def _serve_call(request: web.Request, handler: Endpoint) -> web.StreamResponse:
    """A call of somebody: it logs in, within the bounds on calls. A stream is one until it has logged in. Raises
    Refused."""
    gateway = request.app[GATEWAY]
    metrics = gateway.metrics
    metrics.calls += 1
    under_way = 1
    try:
        if metrics.calls > gateway.settings.max_requests:
            raise unavailable("The gateway has too many calls under way: try again in a second", limit="requests")
        request[CALLER], counted_as = await _login(gateway, request)
        prove(request, counted_as)
        if request.path in STREAMS:
            metrics.calls -= under_way
            under_way = 0
            return await _serve_stream(request, handler, counted_as)
        with gateway.limits.call(counted_as):
            return await handler(request)
    finally:
        metrics.calls -= under_way


async def _serve_stream(request: web.Request, handler: Endpoint, counted_as: str) -> web.StreamResponse:
    """A call whose answer has no end: it has a place of its own, and memory. Raises Refused."""
    gateway = request.app[GATEWAY]
    place = gateway.streams.hold(
        user=counted_as, token=_credentials(request), address=request.app[PEERS].client(request.remote, request.headers)
    )
    with gateway.limits.call(counted_as, is_stream=True), place:
        async with AsyncExitStack() as held:
            await hold_for_stream(held, gateway.budget, STREAM_BYTES)
            return await handler(request)


def _credentials(request: web.Request) -> str:
    """What stands for the credentials of a call, and tells nothing of them."""
    token = request.headers.get(TOKEN_HEADER) or request.cookies.get(TOKEN_HEADER, "")
    sent = f"{request.headers.get(AUTHORIZATION, '')}\0{token}"
    return hashlib.sha256(sent.encode(errors="replace")).hexdigest()


async def _login(gateway: Gateway, request: web.Request) -> tuple[Caller, str]:
    """Who calls, and under which name the calls are limited. Reads headers only. Raises Refused."""
    if request.path not in BY_ENGINE:
        caller = await gateway.authenticator.authenticate(request)
        return caller, caller.user
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme != "Bearer" or not token:
        raise no_login("Authorization is missing: an engine reports with its own token, as a Bearer token")
    uid = gateway.engine_tokens.owner(token)
    if uid is None:
        raise forbidden("the token is not that of this engine: an engine reports of itself only")
    # A space is in no user's name.
    return Caller(""), f"engine {uid}"


def _logged_in(request: web.Request, caller: Caller) -> None:
    """The console's login has found who it is."""
    request[CALLER] = caller


def _audit(request: web.Request, method: str, http: int, took: float) -> None:
    """A line of who did what: of each call that changes something, of each that was not allowed, whatever its status,
    and of each that was about another user's engines. No body, no token: code and settings are the user's."""
    caller, named = request.get(CALLER), request.get(AUDIT)
    denied = request.get(DENIED, False)
    others = named is not None and named.others
    if request.method in ("GET", "HEAD") and not denied and not others:
        return
    # A flood of failed logins must not become a flood of lines, nor a flood of what is no login.
    if caller is None and (http == 429 or (method in LOGIN.values() and not denied)):
        return
    line = {
        "user": caller.user if caller is not None else None,
        "admin": caller is not None and caller.is_admin,
        "method": method,
        "engine": " ".join(named.engines) or None if named is not None else None,
        "others": others,
        "denied": denied,
        "http": http,
        "millis": round(took * 1000),
        "from": request.app[PEERS].client(request.remote, request.headers),
    }
    audit.info("%s", orjson.dumps(line).decode())


def _routing_refusal(request: web.Request, error: web.HTTPException) -> Refused:
    """aiohttp's own refusals: no such path, another verb."""
    if error.status == 404:
        return no_such_path("No such path: /docs lists the gateway's methods, /console is the console in a browser")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return Refused(f"{request.method} is not served here: use {allowed}", http=405, headers={"Allow": allowed})
    if error.status < 500:
        return Refused(f"The request cannot be read: {error.reason}", http=error.status)
    return _unexpected_error(request)


def _unexpected_error(request: web.Request) -> Refused:
    """A bug. The caller gets a number, the log gets the rest."""
    error_id = uuid.uuid4().hex[:12]
    log.exception("error %s in %s %s", error_id, request.method, request.path)
    return Refused(
        f"operation failed(操作失败): an unexpected error; tell whoever runs this gateway its id {error_id}",
        http=500,
        data={"errorId": error_id},
    )


async def _common_headers(_: web.Request, response: web.StreamResponse) -> None:
    headers = response.headers
    headers["Server"] = "linkis-ecm"
    # An answer is for one user: no cache may keep it, and no browser may show a log as a page.
    headers["Cache-Control"] = "no-store"
    headers["X-Content-Type-Options"] = "nosniff"


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok")


async def _readyz(request: web.Request) -> web.Response:
    gateway = request.app[GATEWAY]
    waits = [
        name
        for name, synced in (("engines", gateway.engines.synced), ("catalogue", gateway.plugins.synced))
        if not synced
    ]
    if waits:
        return web.Response(status=503, text=f"not read yet: {', '.join(waits)}")
    stalled = gateway.budget.stalled_seconds
    # Whoever holds bytes is cut when its client takes or gives nothing for `client_seconds`.
    if stalled > 2 * gateway.settings.client_seconds:
        return web.Response(status=503, text=f"calls have waited for memory for {stalled:.0f} s, and none was freed")
    return web.Response(text="ok")


async def _openapi(_: web.Request) -> web.Response:
    return web.Response(body=openapi.served(), content_type=envelope.JSON)
