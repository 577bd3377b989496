"""The cluster of a loopback installation: the fake API server over HTTP, and a kubelet that runs real agents.

`python -m tools.loopback.cluster SETTINGS` is its process; SETTINGS is JSON, {"folder": …, "network": "127.x.y"}. The
name of an engine says what is in its pod: `real-N` a real agent at <network>.N, `hostile-N` nothing of ours at
<network>.(100 + N), where the caller may listen, any other name nothing at all. A pod of a warm pool has a real agent,
at one of <network>.200 to 249. Must not decide about engines.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from linkis_ecm.engine.names import MEMBER_UID, POOL_LABEL
from linkis_ecm.kube.resources import NODES, PODS
from linkis_ecm.kube.transport import Reply, Request
from linkis_ecm.model.agent_key import Enrolment, agent_key
from tools.testkit.agents.keys import NONCE
from tools.testkit.agents.process import AgentProcess
from tools.testkit.fakes.apiserver import FakeApiServer
from tools.testkit.fakes.cluster import FakeCluster, timestamp
from tools.testkit.fakes.rules import StatusError
from tools.testkit.fakes.watches import Change, FakeWatch
from tools.testkit.gateway.harness import KEY
from tools.testkit.servers.serving import until_let_go

NAMESPACE = "engines"
NODE = "node"
# Seconds between two looks at which agents have ended.
LOOK = 0.2
# Host numbers of the network: real agents, hostile ones from there on, and where nobody listens.
HOSTILE, MEMBERS, NOBODY = 100, 200, 250
_NAME = re.compile(r"(real|hostile)-([1-9][0-9]?)")


def host_of(engine: str) -> int:
    """The last number of the address of that engine's pod."""
    found = _NAME.fullmatch(engine)
    if found is None:
        return NOBODY
    return int(found[2]) + (HOSTILE if found[1] == "hostile" else 0)


def now() -> datetime:
    return datetime.now(UTC)


class Server(FakeApiServer):
    """The fake API server, with what the product asks besides objects: signing keys, and who a token belongs to."""

    async def handle(self, request: Request) -> Reply | FakeWatch:
        if request.path == "/openid/v1/jwks":
            return _json(200, {"keys": []})
        if request.path.endswith("/tokenreviews"):
            await asyncio.sleep(0.002)  # as long as a real one takes at least
            return _json(201, {"status": {"authenticated": False}})
        return await super().handle(request)


class Kubelet:
    """The one node: pods run at once, real agents are processes, a deletion ends them."""

    def __init__(self, cluster: FakeCluster, folder: Path, network: str) -> None:
        self._cluster = cluster
        self._folder = folder
        self._network = network
        self._agents: dict[tuple[str, str], AgentProcess] = {}
        # Pods of warm pools so far: of so many, no two have one address.
        self._members = 0
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        cluster.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}, "status": ready})
        cluster.listen(PODS, self._changed)

    def _changed(self, change: Change) -> None:
        loop = asyncio.get_running_loop()
        if change.old is None:
            loop.call_soon(self._run, change.new)
        elif "deletionTimestamp" in change.new["metadata"] and not change.deleted:
            loop.call_soon(self._stop, change.new)

    def _run(self, pod: dict[str, Any]) -> None:
        host = self._host(pod)
        address = f"{self._network}.{host}"
        if host <= HOSTILE or MEMBERS <= host < NOBODY:
            self._agents[_key(pod)] = self._start(pod, address)

        def running(item: dict[str, Any]) -> None:
            item["spec"]["nodeName"] = NODE
            item["status"] = {
                "phase": "Running", "podIP": address,
                "conditions": [
                    {"type": "PodScheduled", "status": "True", "lastTransitionTime": timestamp(now())}
                ],
                "containerStatuses": [{"name": "engine", "state": {"running": {"startedAt": timestamp(now())}}}],
            }  # fmt: skip

        self._cluster.change(PODS, _key(pod), running)

    def _host(self, pod: dict[str, Any]) -> int:
        if POOL_LABEL in pod["metadata"].get("labels", {}):
            self._members += 1
            return MEMBERS + (self._members - 1) % (NOBODY - MEMBERS)
        owners = pod["metadata"].get("ownerReferences") or [{}]
        return host_of(owners[0].get("name", ""))

    def _start(self, pod: dict[str, Any], address: str) -> AgentProcess:
        env = {one["name"]: one["value"] for one in pod["spec"]["containers"][0]["env"] if "value" in one}
        del env["ECM_LOG_DIR"]
        uid = pod["metadata"]["uid"]
        place = self._folder / f"pod-{uid}"
        place.mkdir()
        enrolment = Enrolment(uid, env.get("ECM_UID", MEMBER_UID), int(env.get("ECM_ATTEMPT", "0")), NONCE)
        given = {
            "ECM_AGENT_HOST": address, "ECM_POD_UID": uid, "ECM_AGENT_KEY": agent_key(KEY, enrolment),
        }  # fmt: skip
        return AgentProcess(place, wait=False, **(env | given))

    def _stop(self, pod: dict[str, Any]) -> None:
        agent = self._agents.get(_key(pod))
        if agent is None:
            self._remove(_key(pod))
        elif pod["metadata"].get("deletionGracePeriodSeconds") == 0:
            agent.process.kill()
        else:
            agent.process.terminate()

    async def run(self) -> None:
        """Say of agents that have ended what the kubelet says of containers."""
        while True:
            await asyncio.sleep(LOOK)
            for key, agent in list(self._agents.items()):
                code = agent.process.poll()
                if code is not None:
                    del self._agents[key]
                    self._ended(key, code)

    def _ended(self, key: tuple[str, str], code: int) -> None:
        ended = {"exitCode": code if code >= 0 else 128 - code, "reason": "Error" if code else "Completed"}

        def edit(item: dict[str, Any]) -> None:
            item["status"] |= {"phase": "Failed" if code else "Succeeded"}
            item["status"]["containerStatuses"] = [{"name": "engine", "state": {"terminated": ended}}]

        pod = self._cluster.change(PODS, key, edit)
        if pod is not None and "deletionTimestamp" in pod["metadata"]:
            self._remove(key)

    def _remove(self, key: tuple[str, str]) -> None:
        with contextlib.suppress(StatusError):
            self._cluster.delete(PODS, key[1], namespace=key[0], grace_seconds=0)

    def close(self) -> None:
        for agent in self._agents.values():
            agent.process.kill()
            agent.process.wait()


def _key(item: dict[str, Any]) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _json(code: int, body: Any) -> Reply:
    return Reply(code, json.dumps(body).encode(), {"Content-Type": "application/json"})


async def serve(folder: Path, network: str) -> None:
    """The process: says its port, serves until it is let go."""
    server = Server(FakeCluster(now=now))
    kubelet = Kubelet(server.cluster, folder, network)
    looking = asyncio.create_task(kubelet.run())
    try:
        async with server.serve() as url:
            await until_let_go(int(url.rpartition(":")[2]))
    finally:
        looking.cancel()
        kubelet.close()


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    asyncio.run(serve(Path(told["folder"]), told["network"]))
