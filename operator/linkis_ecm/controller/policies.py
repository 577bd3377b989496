"""Reads the admission policies that the chart made, and says it where one is not in force. Must not judge an engine."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from linkis_ecm.controller.metrics import Metrics
from linkis_ecm.engine.admission.in_force import InForce, must_be_read, too_young
from linkis_ecm.engine.times import parse_time
from linkis_ecm.engine.view import EngineView
from linkis_ecm.kube.client import ApiError, Forbidden, KubeClient, NotFound
from linkis_ecm.kube.resources import POLICIES, POLICY_BINDINGS, Resource

log = logging.getLogger(__name__)

# Seconds between two readings that no engine asks for. It is how late a metric and the log may say that one is gone.
PERIOD = 30.0
# Seconds while one is not there: Helm makes the operator first, and its readiness waits for them to count.
PERIOD_MISSING = 1.0


class Policies:
    """`read` before a decision that depends on them; `run` besides. `names` are those of policies and bindings alike.

    Without a name nothing is read, and `last` stays None. `on_change` is called when others are in force than before.
    """

    def __init__(
        self, *, client: KubeClient, names: tuple[str, ...], metrics: Metrics, on_change: Callable[[], None]
    ) -> None:
        self._client = client
        self._names = names
        self._on_change = on_change
        self._lock = asyncio.Lock()
        self._begun = 0
        self.last: InForce | None = None
        metrics.policies_missing.set_function(lambda: float(self.last is not None and bool(self.last.missing)))

    def problem(self, now: datetime) -> str:
        """Why an engine that is made `now` might be refused for them, as a sentence; empty if it would not be."""
        if self._names and self.last is None:
            return "the admission policies were not read yet"
        return too_young(self.last, now)

    async def read(self) -> InForce | None:
        """The policies as they are now or later. Callers that wait share one reading that begins after they asked.

        Raises ApiError where the API server does not answer.
        """
        if not self._names:
            return None
        asked = self._begun
        async with self._lock:
            if self._begun == asked or self.last is None:
                self._begun += 1
                self._take(await self._read())
            return self.last

    async def read_for(self, look: Callable[[], EngineView | None]) -> EngineView | None:
        """The engine that `look` gives, after the policies were read if its pass depends on them. None: it is gone.

        Raises ApiError as `read`.
        """
        while (engine := look()) is not None and self._names and must_be_read(engine):
            await self.read()
            if look() is engine:
                break
        return engine

    async def run(self) -> None:
        """Read them again and again, until cancelled."""
        while self._names:
            try:
                await self.read()
            except ApiError as error:
                log.warning("the admission policies cannot be read, tried again: %s", error)
            await asyncio.sleep(PERIOD_MISSING if self.last is None or self.last.missing else PERIOD)

    def _take(self, found: InForce) -> None:
        before, self.last = self.last, found
        if before == found:
            return
        if found.missing:
            log.error(
                "%s: no new engine is started until it is there, as nobody asks for the rights of its author; engines"
                " that were accepted before go on",
                found.missing,
            )  # fmt: skip
        else:
            log.info("the admission policies are in force since %s", found.since)
        if before is not None:
            self._on_change()

    async def _read(self) -> InForce:
        objects = []
        for name in self._names:
            for resource in (POLICIES, POLICY_BINDINGS):
                try:
                    found = await self._client.get(resource, name)
                except NotFound:
                    return InForce(missing=f"the {resource.kind} {name} is not there")
                except Forbidden:
                    return InForce(missing=f"the {resource.kind} {name} may not be read (apply the chart's roles)")
                if why := _weak(resource, found, name):
                    return InForce(missing=f"the {resource.kind} {name} {why}")
                objects.append(found)
        times = [moment for found in objects for moment in _times(found)]
        identity = hashlib.sha256(repr([(_uid(found), sorted(map(str, _times(found)))) for found in objects]).encode())
        return InForce(since=max(times, default=None), identity=identity.hexdigest()[:32])


def _weak(resource: Resource, found: Mapping[str, Any], name: str) -> str:
    """Why it lets through what it is there to refuse; "" if it does not."""
    spec = found.get("spec") or {}
    if (found.get("metadata") or {}).get("deletionTimestamp"):
        return "is being deleted"
    if resource is POLICIES:
        return "" if spec.get("failurePolicy", "Fail") == "Fail" else "has another failurePolicy than Fail"
    if spec.get("policyName") != name:
        return "is for another policy"
    return "" if "Deny" in (spec.get("validationActions") or ()) else "denies nothing (validationActions)"


def _uid(found: Mapping[str, Any]) -> str:
    return str((found.get("metadata") or {}).get("uid") or "")


def _times(found: Mapping[str, Any]) -> list[datetime]:
    """When it was made. For a binding also when its spec was last written: it says in which namespaces the policy is
    asked, and a namespace may be added while engines are in it. Only the platform writes bindings."""
    meta = found.get("metadata") or {}
    texts = [meta.get("creationTimestamp")]
    if found.get("kind") == POLICY_BINDINGS.kind:
        texts += [one.get("time") for one in meta.get("managedFields") or () if "f:spec" in (one.get("fieldsV1") or {})]
    return [moment for text in texts if (moment := parse_time(text)) is not None]
