"""Any order of lives, faults and crashes: a state machine that shuffles them, and what must hold all the while.

The database is real (SQLite in memory, written by the store's own statements); API server, node and time are fakes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from datetime import datetime
from typing import Any

import looptime
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import create_engine, select
from sqlalchemy.pool import StaticPool

from linkis_ecm.kube.resources import ENGINECONNS, PODS
from linkis_ecm.model.record import EngineRecord
from linkis_ecm.model.states import FINAL, EngineState, may_follow
from linkis_ecm.store import linkis, rows, schema
from tools.testkit.clocks import NOOP_CYCLES
from tools.testkit.fakes.cluster import loop_now
from tools.testkit.fakes.faults import Fault
from tools.testkit.fakes.rules import StatusError
from tools.testkit.fakes.watches import Change
from tools.testkit.simulation.world import NAMESPACE, Rows, Script, World

POLICIES = st.sampled_from(["Never", "OnFailure", "OnInfrastructureFailure"])
ENDS = st.sampled_from([(0, ""), (3, ""), (137, "OOMKilled"), (139, "")])
STATES = st.sampled_from(["Idle", "Busy", "Idle", "Busy", "ShuttingDown", "Failed", "Starting"])
WATCH_FAULTS = st.sampled_from(["cut", "expire", "repeat", "reorder", "end"])


class SqlRows(Rows):
    """The real tables behind the operator's sink, written at once."""

    def __init__(self) -> None:
        super().__init__()
        # One connection for all; the simulation has no threads.
        self.engine = create_engine(
            "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
        )  # fmt: skip
        linkis.metadata.create_all(self.engine)
        schema.metadata.create_all(self.engine)
        self.finals: dict[str, tuple[Any, ...]] = {}

    def offer(self, record: EngineRecord) -> None:
        with self.engine.begin() as connection:
            rows.write(connection, [record], loop_now(), on_foreign=self.on_foreign)

    def resync(self, live_uids: set[str], now: datetime, namespaces: Any = None) -> list[str]:
        with self.engine.begin() as connection:
            return rows.end_absent(connection, live_uids, now, started=now, namespaces=namespaces)

    def open_elsewhere(self, namespaces: Any) -> dict[str, int]:
        with self.engine.connect() as connection:
            return rows.open_elsewhere(connection, namespaces)

    def differing(self, expected: list[EngineRecord]) -> dict[str, str]:
        with self.engine.connect() as connection:
            return rows.differing(connection, expected)

    def repair(self, record: EngineRecord) -> None:
        with self.engine.begin() as connection:
            rows.repair(connection, record, loop_now())

    def all(self) -> dict[str, Any]:
        with self.engine.connect() as connection:
            return {row.ticket_id: row for row in connection.execute(select(linkis.record))}

    def final_tickets(self) -> set[str]:
        with self.engine.connect() as connection:
            return set(connection.scalars(select(schema.engine.c.ticket_id).where(schema.engine.c.final.is_(True))))


class Engines(RuleBasedStateMachine):
    """Engines under every fault; the invariants are checked after each step."""

    names = Bundle("names")

    @initialize(seed=st.integers(0, 1000))
    def begin(self, seed: int) -> None:
        self.loop = looptime.new_event_loop(start=0, noop_cycles=NOOP_CYCLES)
        asyncio.set_event_loop(self.loop)
        self.rng = random.Random(seed)
        self.backwards: list[str] = []
        self.uids: dict[str, str] = {}
        self.lives = 0

        async def start() -> None:
            self.world = World(seed)
            self.world.rows = self.rows = SqlRows()
            self.world.install_plugin(idleTimeout="60s", startTimeout="60s", ttlAfterFinished="24h")
            self.world.cluster.listen(ENGINECONNS, self._watch_states)
            await self.world.start("0")
            await asyncio.sleep(3)

        self.run(start())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def _watch_states(self, change: Change) -> None:
        """Every version of every engine passes here: none may go back within an attempt."""
        if change.deleted or change.old is None:
            return
        before, after = (item.get("status") or {} for item in (change.old, change.new))
        if not before.get("engineState") or before.get("attempt", 0) != after.get("attempt", 0):
            return
        old, new = EngineState(before["engineState"]), EngineState(after["engineState"])
        if not may_follow(old, new):
            self.backwards.append(f"{change.new['metadata']['name']}: {old} to {new}")

    # What happens.

    @rule(target=names, policy=POLICIES, start=st.floats(0, 2), ready=st.floats(0, 2), deaf=st.booleans())
    def create(self, policy: str, start: float, ready: float, deaf: bool) -> str:
        name = f"e{len(self.uids)}"

        async def make() -> str:
            script = Script(start=start, ready=ready, ignores_stop=deaf)
            return self.world.create(name, script, restartPolicy={"type": policy, "maxAttempts": 2})

        self.uids[name] = self.run(make())
        return name

    @rule(name=names)
    def stop(self, name: str) -> None:
        self._try(lambda: self.world.edit(name, desiredState="Stopped"))

    @rule(name=names)
    def delete(self, name: str) -> None:
        self._try(lambda: self.world.delete(name))

    @rule(name=names, grace=st.sampled_from([0, 30]))
    def delete_pod(self, name: str, grace: int) -> None:
        def act() -> None:
            for pod in self.world.pods(name):
                self.world.cluster.delete(
                    PODS, pod["metadata"]["name"], namespace=NAMESPACE, grace_seconds=grace
                )  # fmt: skip

        self._try(act)

    @rule(name=names, state=STATES, late=st.booleans())
    def report(self, name: str, state: str, late: bool) -> None:
        def act() -> None:
            for agent in self._agents(name):
                if agent.state in ("Failed", "ShuttingDown"):
                    continue
                if late:
                    # A report that was overtaken: sent now, with an earlier number.
                    agent.report(state=state, sequence=max(0, agent.sequence - 2))
                else:
                    agent.become(state)

        self._try(act)

    @rule(name=names, end=ENDS)
    def exit(self, name: str, end: tuple[int, str]) -> None:
        def act() -> None:
            for agent in self._agents(name):
                self.world.exit_pod(agent.pod, *end)

        self._try(act)

    @rule(name=names)
    def evict(self, name: str) -> None:
        def act() -> None:
            for pod in self.world.pods(name):
                key = (NAMESPACE, pod["metadata"]["name"])
                self.world.cluster.change(PODS, key, lambda i: i["status"].update(phase="Failed", reason="Evicted"))

        self._try(act)

    @rule(name=names, cut=st.booleans())
    def cut_off(self, name: str, cut: bool) -> None:
        (self.world.cut_off.add if cut else self.world.cut_off.discard)(name)

    @rule(fault=WATCH_FAULTS, pods=st.booleans())
    def break_watch(self, fault: str, pods: bool) -> None:
        self._try(lambda: getattr(self.world.server.watches, fault)(PODS if pods else ENGINECONNS))

    @rule(verb=st.sampled_from(["create", "patch", "delete", "get", "list"]), status=st.sampled_from([409, 429, 500]))
    def fail_calls(self, verb: str, status: int) -> None:
        if status == 409 and verb in ("create", "list", "get"):
            return
        after = 1.0 if status == 429 else None
        self.world.server.faults.add(Fault(verb=verb, status=status, times=2, retry_after=after))

    @rule(verb=st.sampled_from(["create", "patch", "delete"]), when=st.sampled_from(["before", "after"]))
    def reset_calls(self, verb: str, when: Any) -> None:
        self.world.server.faults.add(Fault(verb=verb, reset=when, times=1))

    @rule()
    def crash(self) -> None:
        async def act() -> None:
            await self.world.crash(self.world.operators[0])
            self.lives += 1
            await self.world.start(str(self.lives))

        self.run(act())

    @rule(seconds=st.sampled_from([0.02, 0.3, 1.5, 12.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    def _agents(self, name: str) -> list[Any]:
        live = {pod["metadata"]["uid"] for pod in self.world.pods(name) if pod["status"].get("phase") == "Running"}
        return [agent for uid, agent in self.world.agents.items() if uid in live]

    def _try(self, act: Any) -> None:
        async def run() -> None:
            try:
                act()
            except StatusError as error:
                if error.code not in (404, 409, 422):
                    raise
            await asyncio.sleep(0.01)

        self.run(run())

    # What must hold.

    @invariant()
    def one_live_pod_per_engine(self) -> None:
        if not hasattr(self, "world"):
            return
        live: dict[str, int] = {}
        for pod in self.run(self._pods()):
            ended = pod["status"].get("phase") in ("Succeeded", "Failed")
            if not ended and "deletionTimestamp" not in pod["metadata"]:
                uid = pod["metadata"]["ownerReferences"][0]["uid"]
                live[uid] = live.get(uid, 0) + 1
        assert all(count == 1 for count in live.values()), live

    async def _pods(self) -> list[dict[str, Any]]:
        return self.world.cluster.all(PODS)

    @invariant()
    def no_state_goes_back(self) -> None:
        assert getattr(self, "backwards", []) == []

    @invariant()
    def final_rows_never_change(self) -> None:
        if not hasattr(self, "rows"):
            return
        table, finals = self.rows.all(), self.rows.final_tickets()
        for ticket, row in self.rows.finals.items():
            assert tuple(table[ticket]) == row
        self.rows.finals = {ticket: tuple(table[ticket]) for ticket in finals}

    def teardown(self) -> None:
        """Without more faults every engine ends within its deadlines, and the database says what the API says."""
        if not hasattr(self, "world"):
            return

        async def end() -> None:
            self.world.cut_off.clear()
            self.world.server.faults.clear()
            # Two attempts: 60 s for each start, 60 s idle, a stop's 45 s, the back-off, and the watch's silence.
            await asyncio.sleep(900)
            running = self.world.operators[0]
            await running.parts.resync.run_once()
            await running.parts.resync.end_absent_rows()
            await asyncio.sleep(5)
            table, finals = self.rows.all(), self.rows.final_tickets()
            for name, uid in self.uids.items():
                try:
                    item = self.world.cluster.get(ENGINECONNS, name, namespace=NAMESPACE)
                except StatusError:
                    item = None
                if item is None:
                    if uid in table:
                        assert uid in finals, f"{name} is gone and its row is open"
                    continue
                status = item.get("status", {})
                state = status.get("engineState")
                assert state in FINAL or self._works(name), f"{name}: {status}"
                killed = state == "Success" and status["reason"] in ("StoppedByUser", "Deleted")
                assert table[uid].status == ("ShuttingDown" if killed else state), name
                assert (uid in finals) == (state in FINAL)
            self.final_rows_never_change()
            await self.world.close()

        try:
            self.run(end())
        finally:
            self.loop.close()

    def _works(self, name: str) -> bool:
        """An engine at a task lives as long as that."""
        return any(agent.state in ("Busy", "Running", "Starting") for agent in self._agents(name))


# It computes for 6 s on an idle machine.
TestEngines = pytest.mark.timeout(300)(Engines.TestCase)
TestEngines.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)  # fmt: skip
