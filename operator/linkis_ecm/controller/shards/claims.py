"""Says which of the watched namespaces this operator may serve now: those that no other shard still serves.

`assignment` decides by the claims of all shards; this reads and writes them. The order makes it safe: a new leader
first holds its Lease, then writes its claim by compare-and-swap. A claim of another shard counts while there may be a
leader by that shard's Lease. What was taken once stays until this operator's own term ends. Must not decide.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress

from linkis_ecm.controller.metrics import Metrics
from linkis_ecm.controller.shards.assignment import ALL, COMMON, Assignment, assign, read_claims, rivals
from linkis_ecm.kube.client import ApiError, Conflict, Forbidden, KubeClient, NotFound
from linkis_ecm.kube.lease import LeaseWatch
from linkis_ecm.kube.resources import CONFIGMAPS

log = logging.getLogger(__name__)

# Seconds for a call, as for one of the Lease.
CALL_SECONDS = 5.0
# Seconds between two looks while another shard still serves a namespace of this one: about a renewal of its Lease.
# Sooner at first, since all shards may begin at a time, and each has to see what the others claim.
FIRST_WAIT_SECONDS, WAIT_SECONDS = 0.1, 1.0
# While this one only stands by for the common work, and to see that its claim is still there.
LOOK_SECONDS = 10.0
# After a claim that another shard's write was faster than, and after one that was not answered.
CONFLICT_SECONDS, RETRY_SECONDS = 0.1, 1.0


class NamespaceClaims:
    """`start_leading`, `stop_leading` with the Lease; `run` until cancelled; `serves` before anything is done.

    Without a `configmap` there are no shards: who leads serves everything. `on_served` gets what may be served from now
    on, within the call of `start_leading` where there are no shards.
    """

    def __init__(
        self,
        *,
        client: KubeClient,
        namespace: str,
        configmap: str,
        lease: str,
        identity: str,
        watched: Collection[str],
        neighbours: Mapping[str, Collection[str]],
        may_write: Callable[[], bool],
        on_served: Callable[[frozenset[str]], None],
        metrics: Metrics,
    ) -> None:
        """`watched`: the namespaces of this shard; empty: all. `neighbours`: those of other shards, by their Leases."""
        self._client = client
        self._namespace = namespace
        self._configmap = configmap
        self._lease = lease
        self._identity = identity
        self._watched = frozenset(watched)
        self._wanted = (self._watched or {ALL}) | {COMMON}
        self._neighbours = neighbours
        self._may_write = may_write
        self._on_served = on_served
        self._watches: dict[str, LeaseWatch] = {}
        # Of the terms of this process, to tell an answer that belongs to one before.
        self._term = 0
        self._leading = False
        # Whether the claim of this term is written, and what another shard still serves.
        self._settled = False
        self._waiting: dict[str, str] = {}
        self._pause = FIRST_WAIT_SECONDS
        self._wake = asyncio.Event()
        # Set while something is served.
        self.serving = asyncio.Event()
        # Why the claims cannot be read or written, as a sentence; empty if they can.
        self.problem = ""
        metrics.namespaces_waiting.set_function(lambda: float(self._count_unserved()))
        metrics.shards.set(1 + sum(bool(names) for names in neighbours.values()))

    @property
    def elsewhere(self) -> frozenset[str]:
        """The namespaces that other shards of this installation serve, by the settings."""
        return frozenset(name for names in self._neighbours.values() for name in names)

    @property
    def waiting(self) -> dict[str, str]:
        """The namespaces of this shard that another one still serves, with that one's Lease."""
        return {name: lease for name, lease in self._waiting.items() if name != COMMON}

    def serves(self, namespace: str) -> bool:
        """Whether this operator may act in the namespace, or do the common work, while it leads."""
        if not self._configmap:
            return True
        if not self._settled or namespace in self._waiting or ALL in self._waiting:
            return False
        return not self._watched or namespace in self._wanted

    def is_misdirected(self, namespace: str) -> bool:
        """Whether an agent of that namespace has to look for another operator: it is told to connect again."""
        if not self._configmap:
            return False
        if self._watched and namespace not in self._watched:
            return bool(self._neighbours)
        return not self.serves(namespace)

    def _count_unserved(self) -> int:
        """How many of its namespaces this shard does not serve although it leads; at least 1 where it serves none."""
        if not self._leading or not self._configmap:
            return 0
        return len(self.waiting) if self._settled else max(1, len(self._watched))

    @property
    def unserved(self) -> dict[str, str]:
        """Why each watched namespace that is not served is not, by its name."""
        if not self._configmap:
            return {}
        why = {name: f"the shard {lease} still serves it" for name, lease in self.waiting.items()}
        return {name: "it is not claimed yet" for name in self._watched if not self.serves(name)} | why

    def start_leading(self) -> None:
        """The Lease is held. Nothing is served before the claim is written."""
        self._term += 1
        self._leading, self._pause = True, FIRST_WAIT_SECONDS
        if self._configmap:
            self._wake.set()
        else:
            self._take({})

    def stop_leading(self) -> None:
        """The Lease is lost: nothing is served."""
        self._term += 1
        self._leading = self._settled = False
        self._waiting = {}
        self._watches.clear()
        self.serving.clear()
        self._wake.set()

    async def run(self) -> None:
        """Claim what is free, again and again while this operator leads, until cancelled."""
        while True:
            self._wake.clear()
            pause = await self._round() if self._leading and self._configmap else None
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def _round(self) -> float | None:
        """Seconds until the next look; None: no other one in this term."""
        try:
            await self._claim()
        except Conflict:
            return CONFLICT_SECONDS
        except (Forbidden, NotFound) as error:
            return self._refused(error)
        except ApiError as error:
            log.warning("the claims of the shards: %s", error)
            return RETRY_SECONDS
        self.problem = ""
        if not self._settled:
            return RETRY_SECONDS
        if self.waiting:
            self._pause = min(2 * self._pause, WAIT_SECONDS)
            return self._pause
        return LOOK_SECONDS if self._neighbours or self._waiting else None

    def _refused(self, error: ApiError) -> float | None:
        """An operator without neighbours serves all the same: nobody else is to be there."""
        sentence = (
            f"the ConfigMap {self._configmap} with the claims of the shards cannot be read or written ({error}): let"
            " the chart make it, or give this operator get and patch on it"
        )
        if self.problem != sentence:
            log.warning("%s", sentence)
        if self._neighbours:
            self.problem = sentence
            return RETRY_SECONDS
        if not self._settled:
            self._take({})
        return None

    async def _claim(self) -> None:
        term = self._term
        found = await self._client.get(
            CONFIGMAPS, self._configmap, namespace=self._namespace, timeout=CALL_SECONDS
        )  # fmt: skip
        claims = read_claims(found.get("data") or {}, self._neighbours)
        led = []
        for name in rivals(claims, own=self._lease, wanted=self._wanted):
            watch = self._watches.get(name)
            if watch is None:
                watch = self._watches[name] = LeaseWatch(self._client, namespace=self._namespace, name=name)
            if await watch.may_be_led():
                led.append(name)
        plan = assign(
            claims, own=self._lease, wanted=self._wanted, led=led, holder=self._identity, begins=not self._settled
        )
        if not self._may_write() or term != self._term:
            return
        if plan.changed:
            await self._write(found["metadata"]["resourceVersion"], plan)
        if term == self._term:
            self._take(plan.waiting)

    async def _write(self, version: str, plan: Assignment) -> None:
        """Only if nobody has written since it was read. Raises Conflict."""
        data = {name: claim.text() for name, claim in plan.changed.items()}
        body = {"metadata": {"resourceVersion": version}, "data": data}
        await self._client.patch(
            CONFIGMAPS, self._configmap, body, namespace=self._namespace, timeout=CALL_SECONDS
        )  # fmt: skip

    def _take(self, waiting: Mapping[str, str]) -> None:
        """From now on all is served but `waiting`."""
        for name, lease in sorted(waiting.items()):
            if self._waiting.get(name) != lease and name != COMMON:
                log.info("the namespace %s waits: the shard %s still serves it", name, lease)
        begins = not self._settled
        before = self._wanted if begins else frozenset(self._waiting)
        self._settled, self._waiting = True, dict(waiting)
        served = frozenset(before) - waiting.keys()
        if self._wanted - {COMMON} - waiting.keys():
            self.serving.set()
        if served or begins:
            if self._neighbours:
                log.info("serves %s from now on", ", ".join(sorted(served)) or "nothing")
            self._on_served(served)
