"""Puts the gateway's parts together as an aiohttp application.

One middleware stands around everything: it bounds how many calls are under way, says who calls, turns every error into
a Message and counts. Endpoints come from `gateway.routes`.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import orjson
from aiohttp import web

from linkis_ecm.agent_client.client import AgentClient
from linkis_ecm.archive.bundles import Archive
from linkis_ecm.gateway import openapi
from linkis_ecm.gateway.agents.client import Agents
from linkis_ecm.gateway.agents.link import AgentLink
from linkis_ecm.gateway.auth.base import Authenticator, Caller
from linkis_ecm.gateway.context import Audit, Gateway, call_as
from linkis_ecm.gateway.http import envelope
from linkis_ecm.gateway.http.budget import ByteBudget, ByteShares
from linkis_ecm.gateway.http.errors import Refused, forbidden, no_login, no_such_path, timed_out, unavailable
from linkis_ecm.gateway.http.peers import Peers
from linkis_ecm.gateway.http.ratelimit import Limits
from linkis_ecm.gateway.http.responses import Responder
from linkis_ecm.gateway.http.sender import HEAD_SENT
from linkis_ecm.gateway.inventory.cache import EngineCache, PluginCache
from linkis_ecm.gateway.inventory.claims import Claims
from linkis_ecm.gateway.inventory.cluster import Cluster
from linkis_ecm.gateway.inventory.ecm_state import EcmStateStore
from linkis_ecm.gateway.inventory.engine_tokens import EngineTokens
from linkis_ecm.gateway.inventory.history import Find, History, Records
from linkis_ecm.gateway.inventory.lookup import EngineLookup
from linkis_ecm.gateway.inventory.places import Growing
from linkis_ecm.gateway.inventory.usage_reports import UsageReports
from linkis_ecm.gateway.journal import ExecutionJournal, Settler, Store, Writer
from linkis_ecm.gateway.logs.archived import ArchiveLogSource
from linkis_ecm.gateway.logs.live import AgentLogSource
from linkis_ecm.gateway.logs.source import Logs
from linkis_ecm.gateway.metrics import Metrics
from linkis_ecm.gateway.pages import serve as pages
from linkis_ecm.gateway.reading import arguments
from linkis_ecm.gateway.results.source import ResultSource
from linkis_ecm.gateway.routes import METHODS, Method
from linkis_ecm.gateway.settings import Settings
from linkis_ecm.gateway.tls import ServerCertificate
from linkis_ecm.process.connections import NOBODY_LOGS_IN, ConnectionLimits
from linkis_ecm.process.listener import Site, prove
from linkis_ecm.process.scrape import scrape_handler
from linkis_ecm.process.web_runner import Runner

log = logging.getLogger(__name__)
# A logger of its own, so that it can be sent elsewhere than the rest.
audit = logging.getLogger("linkis_ecm.audit")

# A client that sends no request, or the first half of one, is cut after this; clients' own pools keep less.
KEEPALIVE_SECONDS = 75.0
BY_ENGINE = frozenset(method.path for method in METHODS if method.by_engine)
GATEWAY: web.AppKey[Gateway] = web.AppKey("gateway", Gateway)
PEERS: web.AppKey[Peers] = web.AppKey("peers", Peers)
CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)
AUDIT: web.RequestKey[Audit] = web.RequestKey("audit", Audit)
DENIED: web.RequestKey[bool] = web.RequestKey("denied", bool)
METHOD: web.RequestKey[str] = web.RequestKey("method", str)
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
    new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> web.Application:
    """The application over its parts; to be called where an event loop runs.

    `find`, `records` and `store` ask the database, `journal` writes to it; without them nothing outlives an engine.
    `metrics` are the process's; /metrics serves their registry, here where it has no port of its own.
    """
    metrics = metrics or Metrics()
    metrics.watch_engines(lambda: [(str(e.state), e.engine_type, e.tenant) for e in engines])
    # No bound on connections: calls are bounded for each engine.
    agent_client = AgentClient(user_agent="linkis-ecm-gateway", connections=0)
    history = History(find)
    lookup = EngineLookup(engines, history, cluster)
    budget = ByteBudget(settings.max_held_bytes)
    metrics.watch_budget(budget)
    link = AgentLink(agent_client, settings=settings, metrics=metrics, budget=budget)
    app = web.Application(middlewares=[_middleware], client_max_size=settings.max_body_bytes)
    executions = ExecutionJournal(history, writer=journal, store=store)
    agents = Agents(link, engines)
    results = ResultSource(link, archive, budget)
    app[PEERS] = Peers(settings.trusted_proxies, settings.forwarded_header)
    app[GATEWAY] = Gateway(
        settings=settings,
        authenticator=authenticator,
        cluster=cluster,
        engines=engines,
        plugins=plugins,
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
        metrics=metrics,
        budget=budget,
        body_shares=ByteShares(settings.max_held_bytes // 2),
        event_budget=ByteBudget(settings.max_held_bytes // 3),
        engine_tokens=EngineTokens(settings.master_keys, engines),
        new_id=new_id,
        clock=clock,
    )

    async def settle(_: web.Application) -> AsyncIterator[None]:
        settler = asyncio.create_task(Settler(executions, engine=lookup.find, get_task=agents.task).run())
        yield
        settler.cancel()

    async def close(_: web.Application) -> None:
        await agent_client.close()
        history.close()
        results.close()
        if archive is not None:
            archive.close()

    if store is not None:
        app.cleanup_ctx.append(settle)
    app.on_cleanup.append(close)
    app.on_response_prepare.append(_common_headers)
    app.router.add_get("/healthz", _healthz)
    app.router.add_get("/readyz", _readyz)
    if not settings.metrics_port:
        app.router.add_get("/metrics", scrape_handler(metrics.registry))
    app.router.add_get("/openapi.json", _openapi)
    pages.add_routes(app.router)
    for method in METHODS:
        for verb in (method.verb, *(("HEAD",) if method.head else ())):
            app.router.add_route(verb, method.path, _endpoint(method))
    return app


def new_runner(app: web.Application, settings: Settings) -> Runner:
    """The server: a client that leaves takes its call with it, so nothing is fetched for nobody."""
    return Runner(
        app,
        error_body=_malformed,
        access_log=None,
        handler_cancellation=True,
        # Bodies with a Content-Encoding are refused, and not unpacked while they are thrown away.
        auto_decompress=False,
        keepalive_timeout=KEEPALIVE_SECONDS,
        shutdown_timeout=settings.shutdown_seconds,
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
        audit = request[AUDIT] = Audit()
        async with call_as(gateway, request[CALLER], audit=audit) as call:
            try:
                async with asyncio.timeout(method.seconds):
                    result = await method.handler(call, await arguments(call, request, method))
            except TimeoutError:
                raise timed_out(f"{method.name} took longer than {method.seconds:g} s: try again later") from None
            return await Responder(request, gateway.settings.client_seconds, gateway.metrics).send(result)

    return serve


@web.middleware
async def _middleware(request: web.Request, handler: Endpoint) -> web.StreamResponse:
    path = request.path
    if not path.startswith("/api/"):
        return await _serve_plain(request, handler)
    gateway = request.app[GATEWAY]
    metrics = gateway.metrics
    began = time.perf_counter()
    metrics.calls += 1
    response: web.StreamResponse | None = None
    try:
        if metrics.calls > gateway.settings.max_requests:
            raise unavailable("The gateway has too many calls under way: try again in a second", limit="requests")
        request[CALLER], counted_as = await _login(gateway, request)
        prove(request, counted_as)
        with gateway.limits.call(counted_as):
            response = await handler(request)
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
        if request.get(HEAD_SENT) and request.transport is not None:
            request.transport.abort()
    finally:
        metrics.calls -= 1
        name = request.get(METHOD, "other")
        # 499: the client left before there was an answer.
        metrics.requests.labels(name, str(response.status if response is not None else 499)).inc()
        took = time.perf_counter() - began
        metrics.seconds.labels(name).observe(took)
        _audit(request, name, response.status if response is not None else 499, took)
    return response


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


def _audit(request: web.Request, method: str, http: int, took: float) -> None:
    """A line of who did what: of each call that changes something, of each that was not allowed, whatever its status,
    and of each that was about another user's engines. No body, no token: code and settings are the user's."""
    caller, named = request.get(CALLER), request.get(AUDIT)
    denied = request.get(DENIED, False)
    others = named is not None and named.others
    if request.method in ("GET", "HEAD") and not denied and not others:
        return
    if caller is None and http == 429:
        return  # a flood of failed logins must not become a flood of lines
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


async def _serve_plain(request: web.Request, handler: Endpoint) -> web.StreamResponse:
    """Health, metrics, the page, and what is not there at all."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return envelope.refused(request.path, _routing_refusal(request, error))


def _routing_refusal(request: web.Request, error: web.HTTPException) -> Refused:
    """aiohttp's own refusals: no such path, another verb."""
    if error.status == 404:
        return no_such_path("No such path: /docs lists the gateway's methods")
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
