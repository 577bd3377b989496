"""Runs the gateway: settings, cluster, caches, store, server; and ends it in order.

At the end `/readyz` says no first, so that no new calls come; then calls under way have their time; then all is closed.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import AsyncExitStack
from typing import Any

import aiohttp

from linkis_ecm.archive.bundles import Archive
from linkis_ecm.gateway.app import GATEWAY, build_app, new_runner, new_site
from linkis_ecm.gateway.auth.base import Authenticator
from linkis_ecm.gateway.auth.chain import Chain
from linkis_ecm.gateway.auth.code_flow import CodeFlow
from linkis_ecm.gateway.auth.kubernetes import KubernetesAuthenticator
from linkis_ecm.gateway.auth.oidc import OidcAuthenticator
from linkis_ecm.gateway.auth.signed import SignedTokens
from linkis_ecm.gateway.auth.tokens import TokenFile
from linkis_ecm.gateway.http.peers import Peers
from linkis_ecm.gateway.inventory.cache import EngineCache, PluginCache
from linkis_ecm.gateway.inventory.feeds import Feeds
from linkis_ecm.gateway.inventory.history import Find
from linkis_ecm.gateway.inventory.view import KnownEngine, engine_of_record
from linkis_ecm.gateway.metrics import Metrics
from linkis_ecm.gateway.settings import Settings, SettingsError
from linkis_ecm.gateway.tls import CertificateError, ServerCertificate
from linkis_ecm.kube.client import KubeClient
from linkis_ecm.process.scrape import scrape_app
from linkis_ecm.process.startup_heap import freeze_startup_heap
from linkis_ecm.store.database import open_engine
from linkis_ecm.store.journal import Journal
from linkis_ecm.store.queries import Queries

log = logging.getLogger(__name__)

# A scrape under way when the gateway stops; it is rendered within some 10 ms.
SCRAPE_STOP_SECONDS = 1.0
# For the journal's last lines, and as much again for the end of its thread.
JOURNAL_SECONDS = 3.0


async def serve(
    settings: Settings,
    *,
    client: KubeClient,
    queries: Queries | None,
    journal: Journal | None,
    metrics: Metrics,
    stop: asyncio.Event,
    certificate: ServerCertificate | None = None,
) -> None:
    """Serve until `stop` is set, HTTPS where there is a certificate."""
    engines, plugins = EngineCache(), PluginCache()
    issuer = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
    authenticator = authenticators(settings, client=client, session=issuer, metrics=metrics)
    app = build_app(
        settings=settings,
        authenticator=authenticator,
        code_flow=code_flow_of(settings, session=issuer, authenticator=authenticator),
        cluster=client,
        engines=engines,
        plugins=plugins,
        find=finder(queries) if queries is not None else None,
        records=queries,
        store=queries,
        journal=journal,
        metrics=metrics,
        archive=Archive(settings.archive_url.get_secret_value()) if settings.archive_url else None,
    )
    feeds = Feeds(
        client, engines=engines, plugins=plugins, namespaces=settings.watch_namespaces,
        configmap=(settings.own_namespace, settings.state_configmap),
    )  # fmt: skip
    app[GATEWAY].em.watched = feeds.ecm_state
    runner = new_runner(app, settings)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(issuer)
        for reflector in feeds.reflectors:
            task = asyncio.create_task(reflector.run())
            stack.callback(task.cancel)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        if certificate is not None:
            watch = asyncio.create_task(certificate.watch())
            stack.callback(watch.cancel)
        host = settings.host or None
        shared: dict[str, Any] = {"settings": settings, "metrics": metrics, "certificate": certificate}
        await new_site(runner, host, settings.port, **shared).start()
        if settings.metrics_port:
            scraped = new_runner(scrape_app(metrics.registry), settings, stop_seconds=SCRAPE_STOP_SECONDS)
            await scraped.setup()
            stack.push_async_callback(scraped.cleanup)
            await new_site(scraped, host, settings.metrics_port, kind="metrics", **shared).start()
        log.info("the gateway listens on port %d%s", settings.port, " with TLS" if certificate is not None else "")
        await stop.wait()
        engines.synced = False
        # At once, and not when its listeners are closed: who follows something asks another replica meanwhile.
        app[GATEWAY].streams.stop()
        log.info("the gateway stops: calls under way have %g s", settings.shutdown_seconds)


def authenticators(
    settings: Settings, *, client: KubeClient, session: aiohttp.ClientSession, metrics: Metrics
) -> Chain:
    """Every way to log in that is configured. Raises SettingsError."""
    oidc = settings.oidc
    tokens = TokenFile(settings.tokens_file, admins=settings.admins) if settings.tokens_file else None
    if tokens is not None:
        metrics.watch_tokens(tokens.first_expiry)
    try:
        return Chain(
            tokens=tokens,
            oidc=None
            if oidc is None
            else OidcAuthenticator(
                session,
                issuer=oidc.issuer,
                audience=oidc.audience,
                jwks_url=oidc.jwks_url,
                user_claim=oidc.user_claim,
                admins=settings.admins,
                groups_claim=oidc.groups_claim,
                admin_group=oidc.admin_group,
                ca_file=oidc.ca_file,
                token_file=oidc.token_file,
            ),
            kubernetes=KubernetesAuthenticator(
                client,
                # Where every namespace is served, a login counts in all of them or in the first.
                namespaces=settings.engine_namespaces if settings.watch_namespaces else (settings.namespace, ""),
                audiences=settings.kubernetes_audiences,
                failed_per_second=settings.failed_logins_per_second,
                peers=Peers(settings.trusted_proxies, settings.forwarded_header),
                signed=SignedTokens(client, service_accounts_only=settings.kubernetes_service_accounts_only),
            )
            if settings.kubernetes_auth
            else None,
        )
    except ValueError as error:
        raise SettingsError(f"the ECM_OIDC_ settings cannot be used: {error}") from None


def code_flow_of(
    settings: Settings, *, session: aiohttp.ClientSession, authenticator: Authenticator
) -> CodeFlow | None:
    """The console's login at the issuer; None where no client of it is configured."""
    oidc = settings.oidc
    if oidc is None or not oidc.client_id:
        return None
    return CodeFlow(
        session,
        issuer=oidc.issuer,
        client_id=oidc.client_id,
        scopes=oidc.scopes,
        authenticator=authenticator,
        ca_file=oidc.ca_file,
    )


def certificate_of(settings: Settings, metrics: Metrics) -> ServerCertificate | None:
    """The certificate of the gateway's port; None where it speaks HTTP. Raises SettingsError."""
    if not settings.tls_cert_file:
        return None
    try:
        found = ServerCertificate(
            settings.tls_cert_file,
            settings.tls_key_file,
            minimum=settings.tls_min_version,
            on_reload=metrics.count_tls_reload,
        )
    except CertificateError as error:
        raise SettingsError(str(error)) from None
    metrics.watch_certificate(found)
    return found


async def run(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT. Raises SettingsError."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    metrics = Metrics()
    certificate = certificate_of(settings, metrics)
    queries = journal = None
    if settings.database_url:
        database = open_engine(settings.database_url.get_secret_value())
        queries, journal = Queries(database), Journal(database, metrics=metrics.journal)
        journal.start()
    freeze_startup_heap()
    try:
        async with await KubeClient.connect(metrics=metrics.kube) as client:
            await serve(
                settings,
                client=client,
                queries=queries,
                journal=journal,
                metrics=metrics,
                stop=stop,
                certificate=certificate,
            )
    finally:
        if journal is not None:
            journal.close(JOURNAL_SECONDS)


def finder(queries: Queries) -> Find:
    """The store's answer for a ticket id or a service instance: the newest record of it."""

    def find(engine_id: str) -> KnownEngine | None:
        row = queries.record_by_ticket(engine_id)
        if row is None and ":" in engine_id:
            # A service instance is host:port. A create asks for its ticket, which is in no row yet, and waits for it.
            row = queries.latest_record_by_instance(engine_id)
        if row is None:
            return None
        engine = queries.engine(row.ticket_id)
        return engine_of_record(
            ticket_id=row.ticket_id,
            label_value=row.label_value,
            user=row.create_user,
            service_instance=row.service_instance or row.ticket_id,
            ecm_instance=row.ecm_instance or "",
            status=row.status or "",
            log_dir_suffix=row.log_dir_suffix or "",
            create_time=row.create_time,
            used_time=row.used_time,
            release_time=row.release_time,
            reason=engine.reason if engine is not None else "",
            message=engine.message if engine is not None else "",
            namespace=engine.namespace if engine is not None else "",
            name=engine.name if engine is not None else "",
            uid=engine.uid if engine is not None else "",
        )

    return find
