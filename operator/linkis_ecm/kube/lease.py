"""Who may write: leader election by a coordination.k8s.io Lease.

Three times, the shortest first. The holder renews the Lease each `retry_period`. If that fails, it stops being the
leader `renew_deadline` after it began its last successful renewal. Another process takes the Lease if it has seen no
change of it for `duration`. So the old leader stops at least `duration - renew_deadline` before a new one begins. Each
process measures with its own clock; only the clocks' speeds must agree. Must not know what the leader does.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from datetime import datetime

from prometheus_client import CollectorRegistry

from linkis_ecm.kube.client import KubeClient, Object
from linkis_ecm.kube.errors import ApiError, Conflict, NotFound
from linkis_ecm.kube.metrics import LeaseMetrics
from linkis_ecm.kube.resources import LEASES
from linkis_ecm.kube.times import micro_time, utc_now

log = logging.getLogger(__name__)

# client-go's 15/10/2 s, about halved: a crashed leader is replaced within 8 s + one retry. Shorter would take a busy
# API server's slow answers for a crash.
DURATION = 8.0
RENEW_DEADLINE = 5.0
RETRY_PERIOD = 1.5


class SeenLease:
    """A lease as it was last read, and since when by our own clock it has not changed."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # Empty if there is none.
        self.object: Object = {}
        self._since = 0.0

    def observe(self, lease: Object) -> None:
        """It was read, or written, and is this now; empty: there is none."""
        if not lease or not self.object or self.version != lease["metadata"]["resourceVersion"]:
            self._since = self._clock()
        self.object = lease

    @property
    def version(self) -> str:
        """Its resourceVersion. Raises KeyError where there is no lease."""
        return str(self.object["metadata"]["resourceVersion"])

    @property
    def spec(self) -> Object:
        """Its spec, empty where there is none."""
        spec: Object = self.object.get("spec") or {}
        return spec

    @property
    def holder(self) -> str:
        """Its holder, empty if there is none."""
        return str(self.spec.get("holderIdentity") or "")

    def has_expired(self, duration: float = DURATION) -> bool:
        """Whether its holder has not renewed it in time; `duration` counts where the lease names none."""
        return self._clock() >= self._since + float(self.spec.get("leaseDurationSeconds") or duration)


class LeaseWatch:
    """Somebody else's lease: whether there may be a leader by it. It is read alone, never taken."""

    def __init__(
        self, client: KubeClient, *, namespace: str, name: str, clock: Callable[[], float] | None = None
    ) -> None:  # fmt: skip
        self._client = client
        self._namespace = namespace
        self._name = name
        self._seen = SeenLease(clock or (lambda: asyncio.get_running_loop().time()))

    async def may_be_led(self) -> bool:
        """Read it. False: it has no holder, or one that has not renewed it for its duration since we first read it,
        and has stopped by then. Raises ApiError."""
        try:
            self._seen.observe(
                await self._client.get(LEASES, self._name, namespace=self._namespace, timeout=RENEW_DEADLINE)
            )
        except NotFound:
            self._seen.observe({})
        return bool(self._seen.holder) and not self._seen.has_expired()


class Lease:
    """One contender. `run()` until cancelled; read `held` before each write; `release()` on the way out.

    `on_started` and `on_stopped` are plain functions, called alternately, each once per term. After a crash of its
    holder a lease is taken once we saw it unchanged for its duration; a free or released one at the next look.
    """

    def __init__(
        self,
        client: KubeClient,
        *,
        namespace: str,
        name: str,
        identity: str,
        on_started: Callable[[], None] = lambda: None,
        on_stopped: Callable[[], None] = lambda: None,
        duration: float = DURATION,
        renew_deadline: float = RENEW_DEADLINE,
        retry_period: float = RETRY_PERIOD,
        clock: Callable[[], float] | None = None,
        now: Callable[[], datetime] = utc_now,
        rng: random.Random | None = None,
        metrics: LeaseMetrics | None = None,
    ) -> None:
        if not retry_period < renew_deadline < duration:
            raise ValueError("lease: retry_period < renew_deadline < duration must hold")
        self._client = client
        self._namespace = namespace
        self._name = name
        self.identity = identity
        self._on_started = on_started
        self._on_stopped = on_stopped
        self._duration = duration
        self._renew_deadline = renew_deadline
        self._retry_period = retry_period
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._now = now
        self._rng = rng or random.Random()  # noqa: S311 (jitter)
        self._metrics = metrics or LeaseMetrics(CollectorRegistry())
        self._seen = SeenLease(self._clock)
        self._held_until: float | None = None
        self._started = False
        # The holder that was logged last: a replica that waits says once for whom.
        self._logged = ""

    @property
    def held(self) -> bool:
        """Whether we may write now: our term has not expired by our own clock, even if the event loop was busy."""
        return self._started and self.remaining > 0

    @property
    def remaining(self) -> float:
        """Seconds for which `held` stays true without another renewal."""
        return max(0.0, self._held_until - self._clock()) if self._held_until is not None else 0.0

    @property
    def holder(self) -> str:
        """The holder as last read, empty if there is none."""
        return self._seen.holder

    async def run(self) -> None:
        """Acquire and renew the lease, repeatedly. Ends only by cancellation; calls `on_stopped` if it held the
        lease."""
        try:
            while True:
                pause = self._retry_period
                try:
                    await (self._renew() if self._started else self._try_acquire())
                except ApiError as error:
                    log.warning("lease %s: %s", self._name, error)
                    # A holder tries again sooner: three more tries fit before its deadline.
                    pause /= 4 if self._started else 1
                # Up to a tenth less, so that contenders do not try at the same moments.
                pause *= 1 - 0.1 * self._rng.random()
                await asyncio.sleep(min(pause, self.remaining) if self._started else pause)
                if not self.held:
                    self._stop("not renewed in time")
        finally:
            self._stop("ended")

    async def release(self) -> None:
        """End the term and free the lease, so that another contender gets it at its next try. Cancel `run()` first."""
        self._stop("released")
        try:
            # Read first, because the last renewal may have been cancelled before its answer.
            await self._read(self._retry_period)
            if self.holder == self.identity:
                # As client-go: no holder, and one second for readers that look at the times alone.
                spec = {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": micro_time(self._now())}
                await self._write(spec, timeout=self._retry_period)
        except ApiError as error:
            log.warning("lease %s: not released, it runs out by itself: %s", self._name, error)

    async def _renew(self) -> None:
        began = self._clock()
        # Half of it, as in client-go: after a hanging call there must be time for another try.
        timeout = min(self.remaining, self._renew_deadline / 2)
        try:
            await self._write({"renewTime": micro_time(self._now())}, timeout=timeout)
        except NotFound:
            self._seen.observe({})
            self._stop("deleted")
            return
        except Conflict:
            # Another contender has it, or it is our own write whose answer was lost. Then the next try renews it.
            await self._read(timeout)
            if self.holder != self.identity:
                self._stop(f"taken by {self.holder or 'nobody'}")
                return
            raise
        self._renewed(began)

    async def _try_acquire(self) -> None:
        """Read the lease once, and acquire it if it is free."""
        began, timeout = self._clock(), self._renew_deadline / 2
        try:
            await self._read(timeout)
            if not self._seen.object:
                metadata = {"name": self._name, "namespace": self._namespace}
                body = {"metadata": metadata, "spec": self._own_spec(transitions=0)}
                made = await self._client.create(LEASES, body, namespace=self._namespace, timeout=timeout)
                self._seen.observe(made)
            elif self._is_free():
                changes = int(self._seen.spec.get("leaseTransitions") or 0)
                spec = self._own_spec(transitions=changes + (self.holder != self.identity))
                await self._write(spec, timeout=timeout)
            else:
                self._log_holder()
                return
        except Conflict:
            # Another contender was faster. The next read shows which one.
            return
        self._renewed(began)

    def _log_holder(self) -> None:
        if self.holder != self._logged:
            self._logged = self.holder
            log.info("lease %s/%s: %s waits, %s holds it", self._namespace, self._name, self.identity, self.holder)

    async def _read(self, timeout: float) -> None:
        try:
            self._seen.observe(await self._client.get(LEASES, self._name, namespace=self._namespace, timeout=timeout))
        except NotFound:
            self._seen.observe({})

    def _is_free(self) -> bool:
        """Whether the lease has no holder, or our name from before a restart, or a holder that has not renewed it in
        time."""
        return self.holder in ("", self.identity) or self._seen.has_expired(self._duration)

    def _own_spec(self, *, transitions: int) -> Object:
        moment = micro_time(self._now())
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": max(1, round(self._duration)),
            "acquireTime": moment,
            "renewTime": moment,
            "leaseTransitions": transitions,
        }

    async def _write(self, spec: Object, *, timeout: float) -> None:
        """Write the lease, only if it is still the version that we have read."""
        body = {"metadata": {"resourceVersion": self._seen.version}, "spec": spec}
        self._seen.observe(
            await self._client.patch(LEASES, self._name, body, namespace=self._namespace, timeout=timeout)
        )

    def _renewed(self, began: float) -> None:
        self._held_until = began + self._renew_deadline
        # If the answer is too late to be of use, the next read finds our own name.
        if self._started or not self.remaining:
            return
        self._started, self._logged = True, ""
        self._metrics.changes.labels("gained").inc()
        log.info("lease %s: held by %s", self._name, self.identity)
        self._on_started()

    def _stop(self, why: str) -> None:
        self._held_until = None
        if not self._started:
            return
        self._started = False
        self._metrics.changes.labels("lost").inc()
        log.info("lease %s: no longer held by %s: %s", self._name, self.identity, why)
        self._on_stopped()
