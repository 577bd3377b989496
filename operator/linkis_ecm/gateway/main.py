"""Runs the gateway: settings, cluster, caches, store, server; and ends it in order.

At the end `/readyz` says no first, so that no new calls come; then calls under way have their time; then all is closed.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import AsyncExitStack

from aiohttp import web

from linkis_ecm.gateway.app import build_app, new_runner
from linkis_ecm.gateway.auth import TokenFile
from linkis_ecm.gateway.caches import EngineCache, PluginCache
from linkis_ecm.gateway.feeds import Feeds
from linkis_ecm.gateway.history import Find
from linkis_ecm.gateway.settings import Settings
from linkis_ecm.kube.client import KubeClient

log = logging.getLogger(__name__)


async def serve(
    settings: Settings,
    *,
    client: KubeClient,
    find: Find | None,
    stop: asyncio.Event,
) -> None:
    """Serve until `stop` is set."""
    engines, plugins = EngineCache(), PluginCache()
    app = build_app(
        settings=settings,
        authenticator=TokenFile(settings.tokens_file, admins=settings.admins),
        cluster=client,
        engines=engines,
        plugins=plugins,
        find=find,
    )
    feeds = Feeds(client, engines=engines, plugins=plugins, namespaces=settings.watch_namespaces)
    runner = new_runner(app, settings)
    async with AsyncExitStack() as stack:
        for reflector in feeds.reflectors:
            task = asyncio.create_task(reflector.run())
            stack.callback(task.cancel)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, settings.host or None, settings.port, backlog=1024).start()
        log.info("the gateway listens on port %d", settings.port)
        await stop.wait()
        engines.synced = False
        log.info("the gateway stops: calls under way have %g s", settings.shutdown_seconds)


async def run(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with await KubeClient.connect() as client:
        await serve(settings, client=client, find=None, stop=stop)
