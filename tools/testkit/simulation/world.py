"""A whole cluster in virtual time: the fake API server, a scripted node with agents, and operators that can crash.

The tests speak to `World` alone, in words that hold on a real cluster, too: create an engine, wait for its state, look
at its pods and rows, kill the operator.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from linkis_ecm.controller.agents.pod_tokens import PodClaims
from linkis_ecm.controller.metrics import Metrics
from linkis_ecm.controller.operator import Operator
from linkis_ecm.controller.settings import OperatorSettings
from linkis_ecm.engine.admission.limits import NO_LIMITS
from linkis_ecm.engine.decision import KeyRefused
from linkis_ecm.engine.names import MEMBER_UID, host_port
from linkis_ecm.kube.reflector import Reflector
from linkis_ecm.kube.resources import ENGINECONNS, NODES, PLUGINS, PODS, Resource
from linkis_ecm.model.record import EngineRecord
from tools.testkit.fakes.apiserver import FakeApiServer
from tools.testkit.fakes.archive import MemoryArchive
from tools.testkit.fakes.cluster import FakeCluster, loop_now, timestamp
from tools.testkit.fakes.inline_executor import InlineExecutor
from tools.testkit.fakes.rows import Rows
from tools.testkit.fakes.rules import StatusError
from tools.testkit.fakes.watches import Change
from tools.testkit.simulation.agent_calls import AgentCalls, no_claim

NAMESPACE = "engines"
NODE = "node"
KEY = b"0123456789abcdef0123456789abcdef"
PLUGIN_SPEC = {
    "engineType": "python", "engineVersion": "3.11", "default": True, "image": "engine:1", "runTypes": ["python"],
    "defaultResources": {"cpu": "500m", "memory": "1Gi"}, "maxResources": {"cpu": "4", "memory": "8Gi"},
    "idleTimeout": "0s", "startTimeout": "2m", "ttlAfterFinished": "24h",
}  # fmt: skip


@dataclass
class Script:
    """How an engine's pod and agent behave; times in (virtual) seconds after the step before."""

    schedule: float = 0.01
    start: float = 0.2
    ready: float = 0.5
    # A pod status to show in place of running, such as an image that cannot be pulled.
    stuck: dict[str, Any] | None = None
    silent: bool = False
    stop_takes: float = 0.1
    ignores_stop: bool = False
    # Whether the agent, on its way out, gets its log files into the archive.
    ships: bool = True
    # Of a pod of a warm pool, by the plugin's name in place of an engine's: why its agent fails; "" where it does not.
    preload_fails: str = ""
    # The exit code of a `once` engine's job; None for a session.
    once: int | None = None


@dataclass
class Agent:
    """The process in a pod."""

    world: World
    pod: dict[str, Any]
    script: Script
    state: str = "Starting"
    sequence: int = 0
    answers: list[int] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    # What the operator answered to the first report, and the random number that it was asked with.
    key: str = ""
    nonce: str = "0123456789abcdef" * 2
    _task: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        env = {item["name"]: item.get("value", "") for item in self.pod["spec"]["containers"][0]["env"]}
        # The agent of a pod of a warm pool says so in place of an engine's name, uid and attempt.
        self.member = env.get("ECM_MEMBER") == "1"
        self.env = ({"ECM_NAME": "", "ECM_UID": MEMBER_UID, "ECM_ATTEMPT": "0"} if self.member else {}) | env

    def report(self, **more: Any) -> int:
        """One report to whoever leads; the answer's HTTP status (0: nobody there)."""
        self.sequence += 1
        if self.env["ECM_NAME"] in self.world.cut_off:
            self.answers.append(0)
            return 0
        body = self.body(**more)
        code = 0
        url = self.env["ECM_REPORT_URL"]
        for operator in [one for one in self.world.operators if url in _addresses(one.parts.settings)]:
            reply = operator.parts.reports.answer(self.key or self.claims(), orjson.dumps(body))
            self.key = reply.key or self.key
            code = 204 if reply.key else reply.status
            if code == 204:
                break
        self.answers.append(code)
        return code

    def claims(self) -> PodClaims:
        """What the pod's own token says; that it is checked, the tests of the tokens hold."""
        meta = self.pod["metadata"]
        return PodClaims(meta["namespace"], meta["name"], meta["uid"])

    def body(self, **more: Any) -> dict[str, Any]:
        """The report's JSON."""
        return {
            "namespace": self.env["ECM_NAMESPACE"], "name": self.env["ECM_NAME"], "uid": self.env["ECM_UID"],
            "attempt": int(self.env["ECM_ATTEMPT"]), "sequence": self.sequence, "state": self.state,
            "podUid": self.pod["metadata"]["uid"], "enrolment": self.nonce,
            "timings": {}, "usage": {"memoryPeakBytes": 5 << 20}, "metrics": {"totalIdleTimeMills": 1},
        } | self._member() | self.extra | more  # fmt: skip

    def _member(self) -> dict[str, Any]:
        ready = {"ready": self.state == "Idle", "takes": ["env", "workingDir"]}
        return {"member": ready} if self.member else {}

    def become(self, state: str, **more: Any) -> None:
        self.state = state
        self.report(**more)

    def live(self) -> None:
        """Reports each 10 s, as the real one does, and sooner where nobody took its report."""
        self._task = asyncio.get_running_loop().create_task(self._period())

    async def _period(self) -> None:
        while True:
            await asyncio.sleep(10 if self.answers and self.answers[-1] == 204 else 0.2)
            self.report()

    def end(self) -> None:
        if self._task is not None:
            self._task.cancel()


@dataclass
class Running:
    """One operator process."""

    parts: Operator
    tasks: list[asyncio.Task[Any]]


class World:
    """Everything; `close` at the end of a test."""

    def __init__(self, seed: int = 0) -> None:
        self.cluster = FakeCluster(seed=seed)
        self.server = FakeApiServer(self.cluster)
        self.rows = Rows()
        self.operators: list[Running] = []
        self.scripts: dict[str, Script] = {}
        self.agents: dict[str, Agent] = {}
        self.pods_made: list[str] = []
        # uids of pods that run a process in place of an agent.
        self.processes: set[str] = set()
        # Names of pods that are there at once (simulation/members.py); what plays an agent, and answers a claim.
        self.members: set[str] = set()
        self.agent_type: type[Agent] = Agent
        self.answer_claim: Callable[[str, tuple[str, str], dict[str, Any]], Awaitable[Any]] = no_claim
        self.stops: list[str] = []
        self.archive = MemoryArchive()
        # Of people; for operators that start afterwards.
        self.limits = NO_LIMITS
        # Agents whose network is cut off: neither reports nor answers get through.
        self.cut_off: set[str] = set()
        # Seconds after which agents of these engines answer the operator.
        self.slow: dict[str, float] = {}
        # Engines on a dead node: its kubelet confirms no deletion.
        self.unconfirmed: set[str] = set()
        self.stop_graces: list[int] = []
        self.addresses = ""  # of pods, by their number
        self.node_of: Callable[[dict[str, Any]], str] = lambda _pod: NODE
        # A container that runs beside each engine and does not end with it; "" for none.
        self.sidecar = ""
        self._seed = seed
        self._timers: list[asyncio.TimerHandle] = []
        self.cluster.listen(PODS, self._kubelet)
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        self.cluster.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}, "status": ready})

    def install_plugin(self, **changes: Any) -> None:
        body = {"metadata": {"name": "python-3.11"}, "spec": PLUGIN_SPEC | changes}
        self.cluster.create(PLUGINS, {"apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConnPlugin"} | body)

    def create(self, name: str, script: Script | None = None, **spec: Any) -> str:
        """Creates an engine; its uid."""
        self.scripts[name] = script or Script()
        body = {
            "apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConn",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"engineType": "python", "user": "hadoop"} | spec,
        }  # fmt: skip
        uid: str = self.cluster.create(ENGINECONNS, body, namespace=NAMESPACE)["metadata"]["uid"]
        return uid

    def edit(self, name: str, **spec: Any) -> None:
        self.cluster.patch(ENGINECONNS, name, {"spec": spec}, namespace=NAMESPACE)

    def delete(self, name: str) -> None:
        self.cluster.delete(ENGINECONNS, name, namespace=NAMESPACE)

    def delete_pod(self, name: str, grace: int = 30) -> None:
        (pod,) = self.pods(name)
        self.cluster.delete(PODS, pod["metadata"]["name"], namespace=NAMESPACE, grace_seconds=grace)

    def status(self, name: str) -> dict[str, Any]:
        status: dict[str, Any] = self.cluster.get(ENGINECONNS, name, namespace=NAMESPACE).get("status", {})
        return status

    def state(self, name: str) -> str:
        return str(self.status(name).get("engineState", ""))

    def condition(self, name: str, kind: str) -> dict[str, Any]:
        """Its condition of that type; empty where it has none."""
        found = [c for c in self.status(name).get("conditions", []) if c["type"] == kind]
        return found[0] if found else {}

    def pods(self, name: str) -> list[dict[str, Any]]:
        found = self.cluster.all(PODS)
        return [p for p in found if any(o["name"] == name for o in p["metadata"].get("ownerReferences", []))]

    def row(self, name: str) -> EngineRecord | None:
        """The newest row of an engine of that name."""
        found = [row for row in self.rows.rows.values() if row.name == name]
        return found[-1] if found else None

    def agent(self, name: str) -> Agent:
        """The agent in the engine's pod."""
        (pod,) = self.pods(name)
        return self.agents[pod["metadata"]["uid"]]

    async def until(self, what: Callable[[], Any], seconds: float = 60) -> None:
        """Waits, in virtual time, until the answer is truthy."""
        begun = asyncio.get_running_loop().time()
        while not what():
            waited = asyncio.get_running_loop().time() - begun
            assert waited < seconds, f"not within {seconds} s; {self._picture()}"
            # Looked at often at first; a long wait costs real time by the look.
            await asyncio.sleep(0.01 if waited < 5 else 0.2)

    async def until_state(self, name: str, state: str, seconds: float = 60) -> None:
        await self.until(lambda: self.state(name) == state, seconds)

    def writes(self) -> int:
        """Successful writes on engines and pods so far, and failed ones: the budget counts tries."""
        return sum(
            count for (_, label), count in self.server.writes().items() if label.startswith(("engineconns", "pods"))
        )

    async def start(self, identity: str = "one", *, pool: Any = None, **changes: Any) -> Running:
        """Starts an operator as `run` does, but for kopf: reflectors feed it the same events. `changes`: settings."""
        asyncio.get_running_loop().set_default_executor(InlineExecutor(1))
        values: dict[str, Any] = {
            "database_url": "", "ecm_instance": "ecm:9102", "report_url": "http://10.0.0.9:9103", "token_key": KEY,
            "namespace": "default", "identity": identity, "archive_url": "memory://", "limits": self.limits,
        }  # fmt: skip
        settings = OperatorSettings(**values | changes)
        client = self.server.client()
        rng = random.Random(self._seed)
        sink: Any = self.rows
        parts = Operator(
            client=client,
            sink=sink,
            settings=settings,
            archive=self.archive,
            metrics=Metrics(),
            clock=loop_now,
            wall=loop_now,
            rng=rng,
            agents=AgentCalls(self),
            lease_client=self.server.client(),
            pool=pool,
        )
        if pool is not None:
            pool.cache = parts.cache
        feeds = [
            Reflector(
                client, resource, transform=dict, rng=random.Random(1),
                on_event=_taker(parts, resource),
            )
            for resource in ((PLUGINS,) if parts.watches.engines else (ENGINECONNS, PLUGINS))
        ]  # fmt: skip
        running = Running(parts, [])

        async def begin() -> None:
            await parts.fill_caches()
            loops = [one.run() for one in parts.watches.reflectors]
            loops += [parts.reconciler.run(), parts.resync.run(), parts.policies.run(), parts.orphans.worker.run()]
            if pool is None:
                loops.append(parts.pools.worker.run())
            running.tasks += [asyncio.create_task(loop) for loop in loops]
            await parts.watches.wait_pods_synced()
            loops = [parts.lease.run(), parts.claims.run(), parts.recorder.run(), *(feed.run() for feed in feeds)]
            running.tasks += [asyncio.create_task(loop) for loop in loops]

        running.tasks.append(asyncio.create_task(begin()))
        self.operators.append(running)
        return running

    async def crash(self, running: Running) -> None:
        """kill -9: everything stops at whatever it waits for, nothing is released."""
        self.operators.remove(running)
        running.parts.reconciler.leading.clear()
        for task in running.tasks:
            task.cancel()
        await asyncio.gather(*running.tasks, return_exceptions=True)

    async def close(self) -> None:
        for running in list(self.operators):
            await self.crash(running)
        for agent in self.agents.values():
            agent.end()
        for timer in self._timers:
            timer.cancel()
        self.cluster.close()

    async def stop(self, address: str, key: str, *, grace: int, reason: str) -> bool:
        for agent in self.agents.values():
            pod = self.cluster.peek(PODS, _key(agent.pod))
            if pod is None or host_port(pod["status"].get("podIP", ""), 9105) != address:
                continue
            if key != agent.key:
                return False
            if agent.script.ignores_stop or agent.env["ECM_NAME"] in self.cut_off:
                return False
            await asyncio.sleep(self.slow.get(agent.env["ECM_NAME"], 0))
            self.stops.append(agent.env["ECM_NAME"])
            self.stop_graces.append(grace)
            agent.become("ShuttingDown")
            self._later(agent.script.stop_takes, self.exit_pod, agent.pod, 0)
            return True
        return False

    async def status_of(self, address: str, key: str) -> dict[str, Any] | KeyRefused | None:
        """What the agent at that address says of itself."""
        for agent in self.agents.values():
            pod = self.cluster.peek(PODS, _key(agent.pod))
            if pod is None or host_port(pod["status"].get("podIP", ""), 9105) != address:
                continue
            await asyncio.sleep(self.slow.get(agent.env["ECM_NAME"], 0))
            if agent.env["ECM_NAME"] in self.cut_off or pod["status"]["phase"] != "Running":
                return None
            if key != agent.key:
                return KeyRefused("It answers, and proves another key.")
            agent.sequence += 1
            return agent.body()
        return None

    def exit_pod(self, pod: dict[str, Any], code: int, reason: str = "") -> None:
        """The engine's container ends."""
        uid = pod["metadata"]["uid"]
        if uid in self.agents:
            agent = self.agents[uid]
            agent.end()
            if agent.script.ships and not agent.member and not reason and agent.env["ECM_NAME"] not in self.cut_off:
                kept = self.archive.bundles.setdefault((agent.env["ECM_UID"], int(agent.env["ECM_ATTEMPT"])), {})
                kept |= {"stdout": b"hello\n", "stderr": b""}
        ended = {"exitCode": code, "reason": reason or ("Completed" if code == 0 else "Error"), "message": "last words"}

        def edit(item: dict[str, Any]) -> None:
            phase = "Running" if self.sidecar else "Succeeded" if code == 0 else "Failed"
            beside = [{"name": self.sidecar, "state": {"running": {}}}] if self.sidecar else []
            item["status"] |= {"phase": phase}
            item["status"]["containerStatuses"] = [{"name": "engine", "state": {"terminated": ended}}, *beside]

        self.cluster.change(PODS, _key(pod), edit)

    def _kubelet(self, change: Change) -> None:
        if change.old is None:
            pod = json.loads(json.dumps(change.new))
            name = pod["metadata"]["name"]
            if name in self.members:
                return
            self.pods_made.append(name)
            owners = pod["metadata"].get("ownerReferences") or []
            script = replace(self.scripts.get(owners[0]["name"], Script())) if owners else Script()
            self._later(script.schedule, self._schedule, pod, script)
        elif "deletionTimestamp" in change.new["metadata"] and "deletionTimestamp" not in change.old["metadata"]:
            owners = change.new["metadata"].get("ownerReferences") or [{}]
            if owners[0].get("name") in self.unconfirmed:
                return
            # As the kubelet: SIGTERM, on which the agent drains and exits with 143, or with 0 where the operator has
            # asked it to stop before; then the object goes.
            agent = self.agents.get(change.new["metadata"]["uid"])
            if agent is not None and change.new["metadata"].get("deletionGracePeriodSeconds", 0) > 0:
                code = 0 if agent.state == "ShuttingDown" else 143
                if agent.state not in ("ShuttingDown", "Failed"):
                    agent.become("ShuttingDown")
                self._later(0.05, self.exit_pod, change.new, code)
            if change.new["metadata"]["uid"] in self.processes:
                self._later(0.05, self.exit_pod, change.new, 143)
            self._later(0.1, self._remove, change.new)

    def _schedule(self, pod: dict[str, Any], script: Script) -> None:
        if script.stuck is not None:
            self.cluster.change(PODS, _key(pod), lambda item: item.update(status=script.stuck))
            return

        def edit(item: dict[str, Any]) -> None:
            item["spec"]["nodeName"] = self.node_of(pod)
            scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": timestamp(loop_now())}
            item["status"] = {"phase": "Pending", "conditions": [scheduled], "qosClass": item["status"]["qosClass"]}

        self.cluster.change(PODS, _key(pod), edit)
        self._later(script.start, self._run, pod, script)

    def _run(self, pod: dict[str, Any], script: Script) -> None:
        number = len(self.agents) + len(self.processes) + 1

        def edit(item: dict[str, Any]) -> None:
            started = {"running": {"startedAt": timestamp(loop_now())}}
            item["status"] |= {
                "phase": "Running",
                "podIP": self.addresses.format(number) or f"10.0.{number // 250}.{number % 250}",
            }
            item["status"]["containerStatuses"] = [{"name": "engine", "state": started}]

        if self.cluster.change(PODS, _key(pod), edit) is None:
            return
        names = {variable["name"] for variable in pod["spec"]["containers"][0]["env"]}
        if not names & {"ECM_NAME", "ECM_MEMBER"}:
            self.processes.add(pod["metadata"]["uid"])
            if not script.silent:
                self._later(script.ready, self.set_ready, pod, True)
            return
        agent = self.agents[pod["metadata"]["uid"]] = self.agent_type(self, pod, script)
        if not script.silent:
            self._later(script.ready, self._ready, agent)

    def _ready(self, agent: Agent) -> None:
        if self.cluster.peek(PODS, _key(agent.pod)) is not None:
            if agent.script.once is not None:
                agent.become("Running")
                self._later(1.0, self._end_job, agent)
                return
            if agent.script.preload_fails:
                agent.become("Failed", reason="PreloadFailed", message=agent.script.preload_fails)
                self._later(0.1, self.exit_pod, agent.pod, 1)
                return
            agent.become("Idle")
            agent.live()

    def set_ready(self, pod: dict[str, Any], ready: bool) -> None:
        """The kubelet's check of a process, as it shows in the pod."""
        condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": timestamp(loop_now())}

        def edit(item: dict[str, Any]) -> None:
            others = [c for c in item["status"].get("conditions", []) if c["type"] != "Ready"]
            item["status"]["conditions"] = [*others, condition]

        self.cluster.change(PODS, _key(pod), edit)

    def _end_job(self, agent: Agent) -> None:
        bundle = self.archive.bundles.setdefault((agent.env["ECM_UID"], int(agent.env["ECM_ATTEMPT"])), {})
        bundle["result.json"] = b"{}"
        code = agent.script.once or 0
        if code:
            agent.become("Failed", reason="JobFailed", message="ValueError: bad")
        else:
            agent.become("Success", reason="Completed")
        self.exit_pod(agent.pod, code)

    def _remove(self, pod: dict[str, Any]) -> None:
        if pod["metadata"]["uid"] in self.agents:
            self.agents[pod["metadata"]["uid"]].end()
        namespace, name = _key(pod)
        try:
            self.cluster.delete(PODS, name, namespace=namespace, uid=pod["metadata"]["uid"], grace_seconds=0)
        except StatusError as error:
            if error.code not in (404, 409):
                raise

    def _later(self, delay: float, action: Callable[..., None], *arguments: Any) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(delay, action, *arguments))

    def _picture(self) -> str:
        engines = {e["metadata"]["name"]: e.get("status", {}).get("engineState") for e in self.cluster.all(ENGINECONNS)}
        return f"engines {engines}, pods {[p['metadata']['name'] for p in self.cluster.all(PODS)]}"


def _taker(parts: Operator, resource: Resource) -> Callable[[str, dict[str, Any]], None]:
    """As kopf's handler: hands each event on."""
    return lambda kind, body: parts.watches.on_event(resource, kind == "DELETED", body)


def _addresses(settings: OperatorSettings) -> set[str]:
    """Where this operator can be reached: by the Service of all operators, and by those of its namespaces."""
    return {settings.report_url, *settings.report_urls.values()}


def _key(item: dict[str, Any]) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]
