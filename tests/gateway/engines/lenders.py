"""What the tests of lent engines share: logins with groups, a plugin that lends, an agent with tasks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from aiohttp import web

from linkis_ecm.engine.matching import CLAIM_ANNOTATION, CLAIM_HOLD, Claim
from linkis_ecm.gateway.auth.base import Caller, Credentials
from linkis_ecm.gateway.inventory.view import plugin_of
from linkis_ecm.gateway.settings import Settings
from tests.gateway.engines.test_linkis import LABELS, send
from tools.testkit.agents.keys import agent_key_of, key_status
from tools.testkit.gateway.harness import KEY, PLUGIN, Answer, Harness
from tools.testkit.gateway.replicas import Clock, another_replica, first_replica

Item = dict[str, Any]
OWNER = "pool"
GROUP: Item = {"share": "group", "shareAs": OWNER, "shareGroups": ["analysts", "science"]}
SERVER: Item = {"share": "server", "shareAs": OWNER}
# Logins by Token-User; who is not here has a login without groups, as Linkis's tokens.
GROUPS: dict[str, frozenset[str]] = {
    "alice": frozenset({"analysts", "staff"}),
    "ann": frozenset({"analysts"}),
    "bob": frozenset({"science"}),
    "eve": frozenset({"staff"}),
}


class Logins:
    """The Authenticator: whoever says so is that user."""

    async def authenticate(self, request: Credentials) -> Caller:
        user = request.headers["Token-User"]
        return Caller(user, user == "root", groups=GROUPS.get(user))


class Agent:
    """The agent of an engine that is lent: it keeps its tasks, and for whom the kernel was."""

    def __init__(self) -> None:
        self.tasks: dict[str, Item] = {}
        self.kernel_users: list[str] = []
        self.forced: list[bool] = []
        self.paths: list[str] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path)
        match request.path.split("/")[2:]:
            case ["execute", *kind]:
                body = json.loads(await request.read())
                self.kernel_users += [body["user"]] if kind else [""]
                self.forced.append(body.get("force", False))
                task = {
                    "taskId": body["taskId"], "status": "Succeed", "executionCount": 1, "acceptedAt": 1.0,
                    "startedAt": 1.0, "endedAt": 2.0, "progress": 1.0, "progressMessage": "", "code": body["code"],
                    "outputs": [{"type": "text", "name": "result", "text": body["code"]}],
                }  # fmt: skip
                self.tasks[body["taskId"]] = task
                return web.json_response(task, status=200 if body.get("wait", True) else 202)
            case ["tasks"]:
                return web.json_response({"tasks": list(self.tasks.values())})
            case ["tasks", task_id, *rest] if (found := self.tasks.get(task_id)) is not None:
                if rest == ["events"]:
                    line = json.dumps({"event": "end", "id": "0.1", **found}) + "\n"
                    return web.Response(text=line, content_type="application/x-ndjson")
                if rest[:1] == ["outputs"]:
                    told = {"taskId": task_id, "index": 0, "outputs": 1, "output": found["outputs"][0]}
                    return web.json_response(told)
                return web.json_response(found, status=202 if rest == ["cancel"] else 200)
        return web.json_response({"error": "no such path"}, status=404)


def lends(gw: Harness, **spec: Any) -> None:
    gw.plugins.on_event("MODIFIED", plugin_of(PLUGIN | {"spec": PLUGIN["spec"] | spec}))


def operator_accepts(gw: Harness, **status: Any) -> None:
    """An operator that makes each new engine Idle at once, and lends those that are made to be lent."""

    def ready(item: Item) -> None:
        uid = item["metadata"]["uid"]
        found = {
            "engineState": "Idle", "address": "127.0.0.1:1", "engineType": "python", "engineVersion": "3.11",
            "serviceInstance": f"{item['metadata']['name']}:9105", "agentKey": key_status(KEY, uid), "attempt": 0,
            "startup": {"accepted": "2026-11-24T04:00:00Z"},
        } | ({"share": {"shared": True}} if "share" in item["spec"] else {})  # fmt: skip
        gw.cluster.put(item | {"status": found | status})

    gw.cluster.on_create = ready


@asynccontextmanager
async def lender(settings: Settings, clock: Clock, plugin: Item) -> AsyncIterator[Harness]:
    """A gateway over a cluster whose writes take some turns of the loop, with logins that have groups."""

    def prepare(made: Harness) -> None:
        has_logins(made, plugin)
        operator_accepts(made)

    async with first_replica(settings, clock, prepare) as made:
        yield made


@asynccontextmanager
async def another_lender(first: Harness, settings: Settings, plugin: Item) -> AsyncIterator[Harness]:
    """Another gateway over the same cluster."""
    async with another_replica(first, settings, lambda made: has_logins(made, plugin)) as made:
        yield made


def has_logins(gw: Harness, plugin: Item) -> None:
    gw.authenticator = Logins()
    lends(gw, **plugin)


async def lent(
    gw: Harness,
    user: str = "",
    *,
    group: str = "analysts",
    name: str = "lent-1",
    agent: Agent | None = None,
    **more: Any,
) -> Item:
    """An engine that is lent, Idle and the owner's; held by `user`, if one is given."""
    share = {"level": "group", "group": group} if group else {"level": "server"}
    parts: Item = {"spec": {"user": OWNER, "share": share}, "status": {"share": {"shared": True}}, "metadata": {}}
    if user:
        parts["metadata"] = {"annotations": {CLAIM_ANNOTATION: claim_text(gw, user)}}
    parts = {part: found | more.get(part, {}) for part, found in parts.items()}
    if agent is not None:
        scripted = await gw.agent(agent)
        parts["status"]["address"] = scripted.address
    item = gw.engine(name=name, **parts)
    if agent is not None:
        scripted.key = agent_key_of(KEY, item["metadata"]["uid"])
    return item


def claim_text(gw: Harness, user: str, by: str = "lock-1", after: timedelta = timedelta()) -> str:
    return Claim(by, gw.clock() + CLAIM_HOLD + after, user=user).text()


def held_by(gw: Harness, item: Item, user: str, by: str = "lock-1") -> None:
    """Somebody else holds the engine now; "" for nobody."""
    known = gw.cluster.items["linkis", item["metadata"]["name"]]
    version = str(int(known["metadata"]["resourceVersion"]) + 1)
    notes = {CLAIM_ANNOTATION: claim_text(gw, user, by)} if user else {}
    gw.cluster.put(known | {"metadata": known["metadata"] | {"resourceVersion": version, "annotations": notes}})


async def ask(gw: Harness, user: str, **more: Any) -> Answer:
    labels = LABELS | {"userCreator": f"{user}-IDE"}
    return await send(gw, "askEngineConn", {"labels": labels, "timeOut": 5000} | more, user=user)
