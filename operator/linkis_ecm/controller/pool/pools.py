"""The warm pools of one operator: one pass over a pool at a time, and what needs one (docs/design/warm.md).

A pass sends what `engine.warm.sizing` decides: members made, marked as ready and deleted, the plugin's status. The key
of the work loop is the value of the label POOL_LABEL. What is remembered between passes may be lost at any time: a
successor finds the members by their label. Must not decide how many there are, nor which engine gets one.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from linkis_ecm.controller.metrics import Metrics
from linkis_ecm.controller.pool.agents import MemberAgents, MemberReport
from linkis_ecm.controller.pool.claim_failures import ClaimFailures
from linkis_ecm.controller.pool.demands import Demands
from linkis_ecm.controller.pool.memory import PoolMemory
from linkis_ecm.controller.pool.nodes import MemberNodes
from linkis_ecm.controller.pool.reservations import Reservations
from linkis_ecm.controller.pool.roster import Roster
from linkis_ecm.controller.pool.secrets import MemberSecrets
from linkis_ecm.controller.pool.templates import Templates
from linkis_ecm.controller.pool.waiting import WaitingEngines
from linkis_ecm.controller.pool.writes import Made, PoolWrites, all_sent, member_name
from linkis_ecm.controller.state.cache import Cache
from linkis_ecm.controller.state.kept import KeptFields
from linkis_ecm.controller.workloop.worker import Result, Worker
from linkis_ecm.engine.admission.ownership import Ownership
from linkis_ecm.engine.causes.cold_starts import UNMET, cold_reason
from linkis_ecm.engine.names import label_hash
from linkis_ecm.engine.pod.launch import PodSettings
from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.view import EngineView, PluginView
from linkis_ecm.engine.warm import pacing, setbacks, sizing
from linkis_ecm.engine.warm.demand import Wanted, largest_size
from linkis_ecm.engine.warm.members import SUSPICIOUS
from linkis_ecm.engine.warm.places import Deletion, Place, PlaceState, Pool, Why
from linkis_ecm.engine.warm.problems import NO_ANSWER, Problem
from linkis_ecm.engine.warm.sizing import Plan
from linkis_ecm.engine.warm.status import shown, status_patch
from linkis_ecm.kube.client import ApiError, KubeClient
from linkis_ecm.kube.events import EventRecorder
from linkis_ecm.kube.resources import PLUGINS
from linkis_ecm.model.engine_status import ColdReason
from linkis_ecm.model.formats import parse_duration

log = logging.getLogger(__name__)

NAME = "pool"
# Few plugins have pools.
WORKERS = 4
# Between two writes of one plugin's status: under load each claim changes it.
STATUS_PERIOD = timedelta(seconds=2)
# After a status that was not taken, such as without the right to write it.
STATUS_RETRY = timedelta(seconds=30)
# A settled pool gets a pass each minute: it looks at its members' nodes, and an event that got lost is made up for.
LONGEST_PAUSE = timedelta(seconds=60)
# From a claim or a cold start to the pass of its pool: many claims are one pass, and a single one is over by then.
AFTER_CLAIM = timedelta(seconds=0.25)
AFTER_REFUSAL = timedelta(seconds=2)  # each engine that waits is refused again each 5 s


class WarmPools:
    """Makes the pools' parts: `reservations` for passes over engines, `agents` for reports."""

    def __init__(
        self,
        *,
        client: KubeClient,
        cache: Cache,
        pod_settings: PodSettings,
        master_keys: Sequence[bytes],
        ownership: Ownership,
        namespaces: tuple[str, ...],
        leading: asyncio.Event,
        may_write: Callable[[], bool],
        clock: Callable[[], datetime],
        rng: random.Random,
        metrics: Metrics,
        recorder: EventRecorder,
        silent_after: timedelta,
        serves: Callable[[str], bool] = lambda _: True,
        elsewhere: Collection[str] = (),
    ) -> None:
        """`namespaces` are those of this shard; empty: all. `serves(namespace)`: whether no other shard has it now;
        `elsewhere` are those of other shards."""
        self._cache = cache
        self._ownership = ownership
        self._namespaces = namespaces
        self._those = frozenset(namespaces)
        self._serves = serves
        self._elsewhere = elsewhere
        self._leading = leading
        self._clock = clock
        self._rng = rng
        self._metrics = metrics.pools
        self._recorder = recorder
        self._memory: dict[str, PoolMemory] = {}
        self.waiting = WaitingEngines(
            cache=cache, is_foreign=ownership.is_foreign, recorder=recorder,
            members=lambda namespace: self.reservations.free(namespace),  # noqa: PLW0108 - it is made below
            free_on=lambda node: self._nodes.free_on(node, cache.pods_on(node)),
            lets_in=lambda node, pod: self._nodes.lets_in(node, pod),  # noqa: PLW0108 - the same
        )  # fmt: skip
        # When a member was last claimed, by namespace.
        self._last_claim: dict[str, datetime] = {}
        self.templates = Templates(settings=pod_settings, master_keys=master_keys)
        self.roster = Roster(cache=cache, ownership=ownership, templates=self.templates, serves=serves)
        self._nodes = MemberNodes(client)
        self._secrets = MemberSecrets(client)
        self.agents = MemberAgents(clock, on_change=self._enqueue_of, silent_after=silent_after)
        self._failures = ClaimFailures(clock, rng, on_change=self._enqueue)
        self.reservations = Reservations(
            cache=cache,
            roster=self.roster,
            templates=self.templates,
            on_refused=self._enqueue_of,
            is_closing=lambda pod: self._nodes.is_closed(pod) or self._is_outdated(pod),
            contact=self.agents.contact,
            failures=self._failures,
            can_give=self._nodes.can_give,
        )
        kept = KeptFields(kind=PLUGINS.kind, clock=clock, recorder=recorder, events_in=next(iter(namespaces), ""))
        self._writes = PoolWrites(client=client, cache=cache, templates=self.templates, kept=kept)
        self.worker: Worker[str] = Worker(
            lambda pool: self.process(pool),  # noqa: PLW0108 - looked up at each call, so that a test can replace it
            name=NAME, leading=leading, may_write=may_write, clock=clock, rng=rng, metrics=metrics.worker,
            is_outage=lambda error: isinstance(error, ApiError), workers=WORKERS,
        )  # fmt: skip
        self._demands = Demands(cache=cache, clock=clock, is_foreign=ownership.is_foreign)
        cache.is_claimed_member = self.templates.seals.holds
        cache.on_member, cache.on_engine = self._member_changed, self._engine_changed

    # Events. Nothing here waits.

    def start_leading(self) -> None:
        """This replica writes from now on."""
        self.agents.began = self._clock()
        for pool in {pool for _, pool in self._cache.pools()} | {label_hash(name) for name in self._cache.plugins}:
            self._enqueue(pool)

    def stop_leading(self) -> None:
        """Another replica has the pools now: what this one remembers of them is not true any more."""
        self._memory.clear()
        self._last_claim.clear()
        self._demands.forget_all()
        self._failures.forget()
        self._metrics.forget_all()

    def plugin_changed(self, name: str) -> None:
        """An EngineConnPlugin was made, changed or deleted."""
        self._enqueue(label_hash(name))

    def _enqueue_of(self, pod: PodView) -> None:
        if pod.member is not None:
            self._enqueue(pod.member.pool)

    def _enqueue(self, pool: str) -> None:
        """Nothing waits in the queue of a replica that does not lead: it has all of them when it begins."""
        if self._leading.is_set():
            self.worker.enqueue(pool)

    def _member_changed(self, before: PodView | None, after: PodView | None) -> None:
        claimed = before is not None and self.reservations.is_claim(before, after)
        if before is not None and claimed and before.member is not None:
            # Its pool has nothing to do that could not wait, and the engine's user waits for the claim.
            if self._leading.is_set():
                self.worker.enqueue_by(before.member.pool, (self._clock() + AFTER_CLAIM).timestamp())
        else:
            for pod in (before, after):
                if pod is not None:
                    self._enqueue_of(pod)
        if before is not None and not claimed:
            self._note_loss(before, after)
        if before is not None and after is not None and _ready(after) and not _ready(before):
            self._demands.became_ready(after)
        if before is not None and (after is None or after.member is None):
            for one in (self.reservations, self.agents, self._writes):
                one.forget(before)
            if claimed:
                self._claimed(before)

    def _note_loss(self, before: PodView, after: PodView | None) -> None:
        """Where somebody else took a member away."""
        memory = self._memory.get(before.member.pool) if before.member is not None else None
        if memory is None or not self._leading.is_set() or not self._serves(before.namespace):
            return
        asked = (before.namespace, before.name) in memory.unanswered
        if how := self._writes.others_did(before, after, asked=asked):
            memory.note_loss(after or before, how, self._clock())

    def _claimed(self, pod: PodView) -> None:
        """Counted by the replica that leads: the other one sees the same changes."""
        if not self._leading.is_set() or not self._serves(pod.namespace):
            return
        if pod.member is None or self._plugin(pod.member.pool) is None or not self.templates.is_known(pod):
            return
        now = self._clock()
        recent = {namespace: at for namespace, at in self._last_claim.items() if now - at < pacing.CALM}
        self._last_claim = recent | {pod.namespace: now}
        self._metrics.starts.labels(pod.member.pool, "warm", "").inc()
        self._demands.arrived(pod.member.pool, pod.namespace)
        if pod.created is not None:
            self._metrics.age_at_claim.observe(max(0.0, (self._clock() - pod.created).total_seconds()))

    def _engine_changed(self, before: EngineView | None, after: EngineView | None) -> None:
        """Note whether an engine waits for room; the pools of its namespace give way then."""
        if before is not None and after is not None and cold_reason(before) is None:
            self._note_cold(after, cold_reason(after))
        if self.waiting.note(before, after):
            for pool in self._all():
                self._enqueue(pool)

    def engine_refused(self, engine: EngineView) -> None:
        """The API server has refused an engine in other words than before: there may be room that is worth it."""
        if self.waiting.is_noted(engine) and self._leading.is_set():
            for pool in self._all():
                self.worker.enqueue_by(pool, (self._clock() + AFTER_REFUSAL).timestamp())

    def _all(self) -> list[str]:
        return [label_hash(name) for name, one in self._cache.plugins.items() if one.spec.warm_pool is not None]

    def _note_cold(self, engine: EngineView, reason: ColdReason | None) -> None:
        plugin = self._cache.plugin_for(engine.spec)
        if reason is None or plugin is None or not self._leading.is_set() or not self._serves(engine.namespace):
            return
        pool = label_hash(plugin.name)
        self._metrics.starts.labels(pool, "cold", reason.value).inc()
        if reason in UNMET and not self._ownership.is_foreign(engine):
            self._demands.arrived(pool, engine.namespace)
            self.worker.enqueue_by(pool, (self._clock() + AFTER_CLAIM).timestamp())

    # One pass.

    async def process(self, pool: str) -> Result:
        """One pass over a pool. Raises ApiError where a write was not answered: it is repeated soon."""
        plugin = self._plugin(pool)
        memory = self._memory.setdefault(pool, PoolMemory())
        now = self._clock()
        if pause := memory.pause(began := _seconds()):
            return Result(requeue_at=now.timestamp() + pause)
        if plugin is not None and memory.generation != plugin.generation:
            memory.generation, memory.setbacks, memory.losses = plugin.generation, {}, {}
            self._failures.forget(pool)
        members = self.roster.by_namespace(pool)
        memory.drop_answered(members)
        known = self._pool(plugin, members, memory, now)
        plan = sizing.plan(known, now, self._rng.uniform(0.75, 1.25))
        memory.note(plan, now)
        self.waiting.gave([one.pod for one in plan.delete if one.why is Why.ROOM])
        self.waiting.tell_kept([one.namespace for one in known.places])
        calls = self._calls(pool, plugin, memory, plan, members)
        took = _seconds() - began
        errors = await all_sent(calls)
        began = _seconds()
        if calls:
            members = self.roster.by_namespace(pool)
            memory.drop_answered(members)
        again = plan.at
        if plugin is not None and not memory.may_tell(now):
            again = _earliest(again, memory.status_after)
        elif plugin is not None:
            # What was done has changed it.
            after = sizing.plan(self._pool(plugin, members, memory, now), now, 1.0) if calls else plan
            self._show(plugin, after)
            patch = self._status(plugin, memory, after.states)
            took += _seconds() - began
            again = _earliest(again, await self._write_status(plugin, memory, patch))
            began = _seconds()
        empty = not known.size and not known.places and not memory.unanswered
        if again is None and empty and not self.roster.by_namespace(pool):
            self._memory.pop(pool, None)
            self.templates.forget(pool)
            self._demands.forget(pool)
            if plugin is None:
                self._metrics.forget(pool)
        nodes = self.roster.nodes(members)
        secrets = [(one, name) for one in members for name in self.templates.secrets_beside(plugin, one)]
        memory.took(took + _seconds() - began, _seconds())
        if errors:
            raise errors[0]
        if await self._nodes.look(nodes, now) or await self._secrets.look(secrets, now):
            self.worker.enqueue(pool)
        again = _earliest(again, now + LONGEST_PAUSE if pool in self._memory else None)
        return Result(requeue_at=again.timestamp() if again is not None else None)

    def _label(self, pool: str) -> str:
        """The pool as a metric's label: "" where no plugin has it. Anybody who labels a pod chooses a pool's name."""
        return pool if self._plugin(pool) is not None else ""

    def _plugin(self, pool: str) -> PluginView | None:
        """By its label: the name itself, or the hash of one that is no label."""
        found = self._cache.plugins.get(pool)
        return found or next((one for name, one in self._cache.plugins.items() if label_hash(name) == pool), None)

    def _pool(
        self, plugin: PluginView | None, members: Mapping[str, tuple[PodView, ...]], memory: PoolMemory, now: datetime
    ) -> Pool:  # fmt: skip
        given = plugin.spec.warm_pool if plugin is not None else None
        names = self._places(plugin) if plugin is not None and largest_size(given) else []
        wanted = self._demands.wanted(plugin, names, now) if plugin is not None and names else {}
        unanswered = Counter(namespace for namespace, _ in memory.unanswered)
        places = tuple(
            self._place(plugin, one, members.get(one, ()), memory, wanted=wanted.get(one), unanswered=unanswered[one])
            for one in names
            if plugin is not None
        )
        here = set(names)
        elsewhere = tuple(pod for namespace, pods in members.items() if namespace not in here for pod in pods)
        return Pool(
            size=given.size if given is not None else 0,
            cap=given.cap if given is not None else 0,
            max_age=parse_duration(given.max_age) if given is not None else 0.0,
            start_timeout=parse_duration(plugin.spec.start_timeout) if plugin is not None else 0.0,
            places=places,
            elsewhere=elsewhere,
            bucket=memory.bucket,
            evened=memory.evened,
            largest=largest_size(given),
        )

    def _places(self, plugin: PluginView) -> list[str]:
        """The namespaces of the plugin's pool that this operator serves now, sorted."""
        given = plugin.spec.warm_pool.namespaces if plugin.spec.warm_pool is not None else None
        wanted = self._namespaces if given is None else given
        return sorted(name for name in set(wanted) if self._is_own(name))

    def _is_own(self, namespace: str) -> bool:
        return (not self._those or namespace in self._those) and self._serves(namespace)

    def _place(
        self, plugin: PluginView, namespace: str, members: tuple[PodView, ...], memory: PoolMemory, *,
        wanted: Wanted | None, unanswered: int,
    ) -> Place:  # fmt: skip
        as_made, why = self.templates.as_made(plugin, namespace)
        secrets = self.templates.secrets_beside(plugin, namespace) if members else ()
        least = as_made.default_requests if as_made is not None and members else {}
        failed = {pod.uid: report.failure for pod, report in self._reported(members) if report.failure is not None}
        return Place(
            namespace=namespace,
            wanted=wanted,
            members=members,
            as_made=as_made,
            no_template=why,
            unanswered=unanswered,
            waiting=self.waiting.helped(namespace),
            gave_way=memory.gave_way.get(namespace),
            waited=memory.waited.get(namespace),
            setback=memory.setbacks.get(namespace),
            lost=memory.losses.get(namespace),
            claims=self._failures.setback((namespace, label_hash(plugin.name))),
            failed=failed,
            reserved=frozenset(pod.uid for pod in members if self.reservations.holder(pod) is not None),
            refused=frozenset(pod.uid for pod in members if self.reservations.is_refused(pod)),
            closing=frozenset(pod.uid for pod in members if self._nodes.is_closed(pod)),
            outdated=frozenset(pod.uid for pod in members if secrets and self._secrets.is_outdated(pod, secrets)),
            cramped=frozenset(pod.uid for pod in members if least and not self._nodes.can_give(pod, least)),
            contacts={pod.uid: self.agents.contact(pod) for pod in members},
            last_claim=self._last_claim.get(namespace),
            held_since=memory.held_since.get(namespace),
            aged=memory.aged.get(namespace),
        )

    def _is_outdated(self, pod: PodView) -> bool:
        """Whether its containers beside the engine have values from before a Secret's change."""
        plugin = self._plugin(pod.member.pool) if pod.member is not None else None
        return self._secrets.is_outdated(pod, self.templates.secrets_beside(plugin, pod.namespace))

    def _reported(self, members: Iterable[PodView]) -> list[tuple[PodView, MemberReport]]:
        return [(pod, report) for pod in members if (report := self.agents.last(pod)) is not None]

    def _calls(
        self, pool: str, plugin: PluginView | None, memory: PoolMemory, plan: Plan,
        members: Mapping[str, tuple[PodView, ...]],
    ) -> list[Coroutine[Any, Any, None]]:  # fmt: skip
        """All that is to be sent, at once."""
        going = {one.pod.uid for one in plan.delete}
        ready = self._newly_ready(pod for pods in members.values() for pod in pods if pod.uid not in going)
        calls = [self._writes.mark_ready(pod, report) for pod, report in ready]
        calls += [self._delete(pool, one) for one in plan.delete]
        calls += [self._ask_again(pool, plugin, memory, *key) for key in list(memory.unanswered)]
        for namespace in plan.create:
            key = (namespace, member_name(pool, self._rng))
            memory.unanswered[key] = None
            calls.append(self._create(pool, plugin, memory, *key))
        return calls

    def _newly_ready(self, members: Iterable[PodView]) -> list[tuple[PodView, MemberReport]]:
        """Members whose agents have said that they are ready, and whose pods do not say so yet."""
        return [
            (pod, report)
            for pod, report in self._reported(members)
            if report.ready and pod.member is not None and pod.member.ready is None and not pod.deleting
        ]

    async def _delete(self, pool: str, deletion: Deletion) -> None:
        pod, why = deletion.pod, deletion.why
        level = logging.WARNING if why in SUSPICIOUS else logging.INFO
        log.log(level, "%s/%s of pool %s is deleted: %s", pod.namespace, pod.name, pool, why)
        if await self._writes.delete(pod):
            if (sentence := SUSPICIOUS.get(why)) is not None:
                regarding = {
                    "apiVersion": "v1", "kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid,
                }  # fmt: skip
                self._recorder.record(regarding, "WarmPoolPodDeleted", sentence, action="Delete", kind="Warning")
            if (how := setbacks.went_for_nothing(pod, why.value)) and (memory := self._memory.get(pool)) is not None:
                memory.note_loss(pod, how, self._clock())
            self._metrics.deletes.labels(self._label(pool), why.value).inc()

    async def _create(
        self, pool: str, plugin: PluginView | None, memory: PoolMemory, namespace: str, name: str
    ) -> None:  # fmt: skip
        if plugin is None:
            return
        template, _ = self.templates.of(plugin, namespace)
        self._settle(pool, memory, namespace, name, await self._writes.create(template, name))

    async def _ask_again(
        self, pool: str, plugin: PluginView | None, memory: PoolMemory, namespace: str, name: str
    ) -> None:  # fmt: skip
        """Repeat a create that was not answered; where there is no pool any more, only look."""
        as_made, _ = self.templates.as_made(plugin, namespace)
        if as_made is not None and plugin is not None and plugin.spec.warm_pool and namespace in self._places(plugin):
            await self._create(pool, plugin, memory, namespace, name)
            return
        self._settle(pool, memory, namespace, name, await self._writes.look(namespace, name))

    def _settle(self, pool: str, memory: PoolMemory, namespace: str, name: str, made: Made) -> None:
        """Note what became of a create. Raises the error of one that was not answered."""
        if made.error is not None:
            self._metrics.creates.labels(pool, "unanswered").inc()
            memory.unanswered[namespace, name] = Problem(NO_ANSWER, str(made.error))
            raise made.error
        memory.unanswered.pop((namespace, name), None)
        setback = memory.setbacks.get(namespace)
        if made.refused is not None:
            self._metrics.creates.labels(pool, "refused").inc()
            jitter = self._rng.uniform(0.75, 1.25)
            memory.setbacks[namespace] = setbacks.after_failure(
                setback, made.refused, self._clock(), jitter, refused=True
            )
            return
        if not made.made:
            return
        self._metrics.creates.labels(pool, "made").inc()
        if setback is not None and setback.refused:
            memory.setbacks[namespace] = None

    def _show(self, plugin: PluginView, plan: Plan) -> None:
        pool = label_hash(plugin.name)
        if plugin.spec.warm_pool is None:
            self._metrics.forget(pool)
            return
        found = shown(plan.states, plan.stuck_elsewhere)
        self._metrics.show(pool, states=found.members, wanted=found.wanted, reasons=found.reasons)

    def _status(
        self, plugin: PluginView, memory: PoolMemory, states: tuple[PlaceState, ...]
    ) -> dict[str, Any]:  # fmt: skip
        """What its status lacks."""
        # As it is now: the pass has waited.
        plugin = self._cache.plugins.get(plugin.name, plugin)
        return status_patch(
            plugin, memory.with_outages(states), is_own=self._is_own, now=self._clock(), served=self._namespaces,
            # Also what another shard serves until it has stopped: it says how that pool is.
            elsewhere={*self._elsewhere, *(one for one in self._namespaces if not self._serves(one))},
        )  # fmt: skip

    async def _write_status(self, plugin: PluginView, memory: PoolMemory, patch: dict[str, Any]) -> datetime | None:
        """Write what has changed, at most each STATUS_PERIOD. Returns when to come again for it."""
        plugin = self._cache.plugins.get(plugin.name, plugin)
        now = self._clock()
        if not self._writes.worth_writing(plugin, patch):
            return None
        held = [until for since in memory.held_since.values() if now < (until := since + pacing.LATEST)]
        if held:
            # Claims have the API server to themselves, and each one changes what would be written.
            return min(*held, now + pacing.QUIET)
        taken = await self._writes.write_status(plugin, patch)
        memory.status_after = self._clock() + (STATUS_PERIOD if taken else STATUS_RETRY)
        # Also after one that was taken: it may have been too late, and then it has to be made again.
        return memory.status_after


def _ready(pod: PodView) -> bool:
    return pod.member is not None and pod.member.ready is not None


def _earliest(*times: datetime | None) -> datetime | None:
    return min((one for one in times if one is not None), default=None)


def _seconds() -> float:
    """Of the loop: between two awaits, so long nothing else ran."""
    return asyncio.get_running_loop().time()
