"""The adapter to kopf: the only module here that imports it (besides the entry point).

kopf brings the watches of EngineConnPlugin, and of EngineConn where all namespaces are watched, their logins and
re-connections, and the process's life.
Of its handlers only `on.event` is used, which writes nothing: no finalizers, no annotations, no timers
(docs/design/operator.md says why). Must not hold state or decide.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import kopf

from linkis_ecm.engine.names import host_port
from linkis_ecm.kube.errors import Unreachable
from linkis_ecm.kube.resources import ENGINECONNS, PLUGINS, Resource

log = logging.getLogger(__name__)

# Called with (resource, deleted, object) for each event.
Listener = Callable[[Resource, bool, dict[str, Any]], None]


class NoDiff(kopf.DiffBaseStorage):
    """Keeps no last-handled copy. We do not use it, and it would cost 0.7 ms per event and an annotation per object."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> kopf.BodyEssence:
        return kopf.BodyEssence({})

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Nowhere."""


class NoProgress(kopf.ProgressStorage):
    """Our handlers have no progress."""

    def fetch(self, *, key: Any, body: kopf.Body) -> Any:
        return None

    def store(self, *, key: Any, record: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        """Nowhere."""

    def purge(self, *, key: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        """Nothing."""

    def touch(self, *, body: kopf.Body, patch: kopf.Patch, value: Any) -> None:
        """Nothing."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


def settings() -> kopf.OperatorSettings:
    """kopf's settings for an operator that only listens through it."""
    made = kopf.OperatorSettings()
    made.persistence.diffbase_storage = NoDiff()
    made.persistence.progress_storage = NoProgress()
    made.posting.enabled = False
    # The CRDs are ours and installed first: no watch on CRDs and namespaces, and no right to them.
    made.scanning.disabled = True
    made.networking.request_timeout = 10
    made.networking.error_backoffs = (0.5, 1, 2, 4)
    made.queueing.error_delays = (1, 2, 5, 10, 30)
    made.watching.chunk_size = 500
    # kopf keeps a worker and the whole object for this time after an event. With 5 s, 10,000 listed objects are 300
    # MiB.
    made.queueing.idle_timeout = 0.2
    made.queueing.batch_window = 0.01
    made.networking.connect_timeout = 5
    made.watching.server_timeout = 300
    made.watching.client_timeout = 330
    made.watching.connect_timeout = 5
    made.watching.reconnect_backoff = 0.2
    # Under the pod's terminationGracePeriodSeconds of 30.
    made.process.ultimate_exiting_timeout = 20
    return made


def by_address(found: Any) -> Any:
    """kopf's login of a service account, at the address that Kubernetes gives each pod, as our own client has it.

    kopf would dial kubernetes.default.svc: without DNS its watches fail, while all else works.
    """
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT") or "443"
    if found is None or not host:
        return found
    return dataclasses.replace(found, server=f"https://{host_port(host, int(port))}")


def registry(listener: Listener, *resources: Resource) -> kopf.OperatorRegistry:
    """A registry whose handlers pass each event of these resources to `listener`."""
    made = kopf.OperatorRegistry()

    @kopf.on.login(registry=made)
    def login(**kwargs: Any) -> Any:
        return by_address(kopf.login_with_service_account(**kwargs)) or kopf.login_with_kubeconfig(**kwargs)

    for resource in resources:
        _listen(made, resource, listener)
    return made


def _listen(made: kopf.OperatorRegistry, resource: Resource, listener: Listener) -> None:
    @kopf.on.event(resource.group, resource.version, resource.plural, registry=made, id=f"{resource.plural}-event")
    async def on_event(event: Any, **_: Any) -> None:
        body = dict(event["object"])
        try:
            listener(resource, event["type"] == "DELETED", body)
        except Exception:
            # An unreadable object must not stop the events of others.
            log.exception("%s %s: the event cannot be taken", resource.plural, body.get("metadata", {}).get("name"))


async def run(listener: Listener, *, engines: bool, stopping: Callable[[], Awaitable[None]]) -> None:
    """Runs kopf until SIGTERM or SIGINT, or until this is cancelled. Raises kopf's error where a watch is refused.

    `engines`: whether kopf watches the EngineConns of all namespaces. It never watches single namespaces: where one of
    them is refused, kopf ends all of its watches, and every task of this process that began after it did.
    `stopping` is awaited before kopf ends: kopf takes seconds, and another replica waits for the Lease.
    """
    watched = (ENGINECONNS, PLUGINS) if engines else (PLUGINS,)
    stop, ready = asyncio.Event(), asyncio.Event()
    operator = asyncio.create_task(
        kopf.operator(
            registry=registry(listener, *watched),
            settings=settings(),
            standalone=True,
            clusterwide=True,
            stop_flag=stop,
            ready_flag=ready,
        )
    )
    ending: set[asyncio.Task[None]] = set()

    async def end() -> None:
        try:
            await stopping()
        finally:
            stop.set()

    def on_signal() -> None:
        if not ending:
            ending.add(asyncio.create_task(end()))

    try:
        started = asyncio.create_task(ready.wait())
        await asyncio.wait((operator, started), return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        # kopf has set handlers of its own by now; these replace them.
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, on_signal)
        try:
            await operator
        except (aiohttp.ClientError, TimeoutError) as error:
            what = f"{type(error).__name__} {error}".strip()
            raise Unreachable(
                f"the API server gives no watch of {watched[0].kind}s ({what}):"
                " check that it runs, and that networkPolicy.apiServer of the chart names its address"
            ) from error
    finally:
        operator.cancel()
        await asyncio.gather(operator, *ending, return_exceptions=True)
