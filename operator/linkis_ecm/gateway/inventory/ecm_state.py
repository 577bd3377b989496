"""What an admin has set of this ECM: its health, labels and description, kept in a ConfigMap.

An ECM that is not healthy takes no new engines (Linkis's drain); those that run go on. Must not know of requests.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from linkis_ecm.gateway.http.errors import unavailable
from linkis_ecm.gateway.inventory.cluster import Cluster
from linkis_ecm.kube.errors import ApiError, NotFound
from linkis_ecm.kube.resources import CONFIGMAPS

_KEY = "em.json"
# How old what is known of the ConfigMap may be when an engine is created.
FRESH_SECONDS = 5.0
# A healthy ECM takes engines; Linkis's NodeHealthy.isAvailable.
AVAILABLE = ("Healthy", "WARN")


@dataclass(frozen=True, slots=True)
class EcmState:
    """What an admin has set of the ECM."""

    health: str = "Healthy"
    labels: list[dict[str, Any]] = field(default_factory=list)
    description: str = ""


class EcmStateStore:
    """The ConfigMap of this ECM: as `watched` gives it, else read at most every FRESH_SECONDS.

    `watched` gives None where no watch is served.
    """

    def __init__(self, cluster: Cluster, namespace: str, configmap: str) -> None:
        self._cluster = cluster
        self._configmap = configmap
        self._namespace = namespace
        self._state = EcmState()
        self._read = float("-inf")
        self.watched: Callable[[], EcmState | None] = lambda: None

    async def state(self) -> EcmState:
        """What was set last; where the API server does not answer, what is known."""
        if time.monotonic() - self._read >= FRESH_SECONDS:
            # A state that was just written here may be newer than what the watch shows.
            if (seen := self.watched()) is not None:
                return seen
            try:
                found = await self._cluster.get(CONFIGMAPS, self._configmap, namespace=self._namespace)
                self._state = state_of(found)
            except NotFound:
                self._state = EcmState()
            except ApiError:
                return self._state
            self._read = time.monotonic()
        return self._state

    async def write(self, state: EcmState) -> None:
        """Raises Refused where the API server does not take it."""
        text = json.dumps({"health": state.health, "labels": state.labels, "description": state.description})
        data = {"data": {_KEY: text}}
        try:
            try:
                await self._cluster.patch(CONFIGMAPS, self._configmap, data, namespace=self._namespace)
            except NotFound:
                body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": self._configmap}, **data}
                await self._cluster.create(CONFIGMAPS, body, namespace=self._namespace)
        except ApiError as error:
            raise unavailable(f"The API server does not take the change now ({error.reason}): try again") from None
        self._state, self._read = state, time.monotonic()


def state_of(configmap: Mapping[str, Any]) -> EcmState:
    """What a ConfigMap of the API says; what cannot be read is the state of an ECM of which nothing was set."""
    text = (configmap.get("data") or {}).get(_KEY, "")
    try:
        body = json.loads(text)
        return EcmState(str(body["health"]), list(body.get("labels") or []), str(body.get("description") or ""))
    except (ValueError, KeyError, TypeError):
        return EcmState()
