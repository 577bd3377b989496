"""The operator's real endpoints for agents, over an archive in a folder and an index that keeps what it is offered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import web

from linkis_ecm.archive.bundles import Archive
from linkis_ecm.controller.agents.uploads import Uploads
from linkis_ecm.controller.metrics import Metrics
from linkis_ecm.controller.pods.evidence import EvidenceKeeper
from linkis_ecm.controller.state.cache import Cache
from linkis_ecm.engine.pod_view import pod_view
from linkis_ecm.model.record import PostMortemRecord
from tools.testkit.agents.keys import NONCE, agent_key_of, enrolment_of
from tools.testkit.agents.process import AgentProcess

KEY = b"k" * 32
UID = "0c6f0d3e-6a0b-4f4e-9a51-3c8f3c0c9a11"
TICKET = "11111111-2222-3333-4444-555555555555"
TOKEN = agent_key_of(KEY, UID, 0)


# The archive's bound for a file. Little, so that it is sent within the agent's 8 s also where the machine is busy.
FILE_MAX = 4 << 20

# The query of an enrolled agent.
QUERY = {
    "uid": UID, "attempt": "0", "namespace": "lab", "name": "first", "ticket": TICKET,
    "podUid": enrolment_of(UID).pod_uid, "enrolment": NONCE,
}  # fmt: skip


class Index:
    """The store's side of the keeper."""

    def __init__(self) -> None:
        self.entries: list[PostMortemRecord] = []
        self.held = 0

    def offer_post_mortem(self, entry: PostMortemRecord) -> None:
        self.entries.append(entry)

    def expired_post_mortems(self, now: datetime, total: int, per_user: int, limit: int = 100) -> list[str]:
        return []

    def archived_bytes(self) -> int:
        return self.held

    def first_expiry(self) -> datetime | None:
        return None

    def delete_post_mortems(self, uid: str) -> None: ...

    def purge_transitions(self, before: datetime, limit: int = 1000) -> int:
        return 0


class Operator:
    """The operator's port for agents, over a folder."""

    def __init__(self, folder: Path, file_max: int) -> None:
        self.archive = Archive(f"file://{folder}/archive")
        self.index = Index()
        self.cache = Cache(epoch=datetime.now(UTC))
        self.version = 0
        self.hang = False
        # So many files are refused before one is taken.
        self.busy = 0
        # A list of results has been taken.
        self.listed = asyncio.Event()
        client: Any = None  # no pod is looked at here
        metrics = self.metrics = Metrics()
        self.keeper = EvidenceKeeper(
            client=client, archive=self.archive, index=self.index, clock=lambda: datetime.now(UTC),
            retention=timedelta(days=7), total=1 << 40,
            engine_max=1 << 40, user_max=1 << 40, metrics=metrics,
        )  # fmt: skip
        self.reports: list[dict[str, Any]] = []
        self.app = web.Application(middlewares=[self._around])
        self.uploads = Uploads(
            cache=self.cache, keeper=self.keeper, master_keys=(KEY,), file_max=file_max, metrics=metrics
        )
        self.uploads.add_routes(self.app)
        self.app.router.add_post("/v1/report", self._report)

    @web.middleware
    async def _around(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.hang and request.method == "PUT":
            await asyncio.Event().wait()
        if self.busy and request.method == "PUT":
            self.busy -= 1
            return web.Response(status=503, text="in a moment")
        answer: web.StreamResponse = await handler(request)
        if request.path == "/v1/archive/results.json":
            self.listed.set()
        return answer

    async def _report(self, request: web.Request) -> web.Response:
        self.reports.append(json.loads(await request.read()))
        return web.Response(status=204)

    async def start(self) -> str:
        self.pod("Running")
        self.runner = web.AppRunner(self.app, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"
        return self.url

    def engine(self, **spec: Any) -> None:
        self.version += 1  # the cache keeps the newest
        self.cache.apply_engine(
            {
                "metadata": {"namespace": "lab", "name": "first", "uid": UID, "resourceVersion": str(self.version)},
                "spec": {"engineType": "python", "user": "hadoop"} | spec,
            }
        )
        self.pod("Running")

    def pod(self, phase: str) -> None:
        """The engine's pod, as the watch shows it."""
        self.version += 1
        owner = {"kind": "EngineConn", "uid": UID, "name": "first"}
        self.cache.apply_pod(
            pod_view(
                {
                    "metadata": {
                        "namespace": "lab", "name": "first-0", "uid": enrolment_of(UID).pod_uid,
                        "resourceVersion": str(self.version), "ownerReferences": [owner],
                        "annotations": {"linkis.apache.org/ticket-id": TICKET},
                    },
                    "status": {"phase": phase},
                }
            )
        )  # fmt: skip


Start = Callable[..., AgentProcess]


async def started(start: Start, operator: Operator, **environment: str) -> AgentProcess:
    """An enrolled agent that reports to the operator. A job's agent is not waited for."""
    settings = {
        "ECM_REPORT_URL": operator.url,
        "ECM_UID": UID,
        "ECM_TICKET_ID": TICKET,
        "ECM_AGENT_KEY": TOKEN,
        "ECM_POD_UID": f"pod-{UID}",
    }
    wait = environment.get("ECM_MODE") != "once"
    return await asyncio.to_thread(start, wait=wait, **(settings | environment))


async def ended(agent: AgentProcess) -> int:
    """The agent's exit code, once it has one."""
    return await asyncio.to_thread(agent.exit_code)
