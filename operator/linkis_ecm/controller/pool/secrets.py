"""Whether a member's containers beside the engine have a Secret's value of before: each Secret is read once a minute.

The kubelet gives such a container its variables when it starts, and nobody changes them later. The engine's own
variables come with the claim. Secrets are not watched, so the operator needs no more than `get` for them, as for
claims; without that right nothing is known, and members stay. No value is kept. Must not decide what becomes of a
member.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from linkis_ecm.engine.pod_view import ENGINE_CONTAINER, PodView
from linkis_ecm.engine.times import parse_time
from linkis_ecm.kube.client import ApiError, KubeClient
from linkis_ecm.kube.resources import SECRETS

log = logging.getLogger(__name__)

PERIOD = timedelta(seconds=60)
# In one look, those that were not looked at for longest; and at a time: each may have 1 MiB.
MOST, AT_A_TIME = 32, 2
# Seconds for each. A healthy API server answers within some ten milliseconds.
READ_SECONDS = 2.0
# A Secret that no member has had for so long is forgotten.
FORGOTTEN = timedelta(minutes=30)

# Namespace and name.
Key = tuple[str, str]


@dataclass(slots=True)
class _Secret:
    looked: datetime
    # When it says that its data last changed; None: not known.
    said: datetime | None = None
    # When it did as far as is known: whoever may write the Secret may write what it says.
    changed: datetime | None = None


def beside(template: Mapping[str, Any]) -> frozenset[str]:
    """The Secrets that variables of containers beside the engine name, of a pool's template."""
    spec = template["spec"]
    containers = [*spec.get("initContainers", ()), *spec["containers"]]
    entries = [entry for one in containers if one["name"] != ENGINE_CONTAINER for entry in one.get("env", ())]
    names = (((entry.get("valueFrom") or {}).get("secretKeyRef") or {}).get("name") for entry in entries)
    return frozenset(str(name) for name in names if name)


def changed_at(secret: Mapping[str, Any]) -> datetime | None:
    """When the Secret's data last changed: the API server notes when each writer of it last changed something."""
    fields = secret["metadata"].get("managedFields") or []
    times = [parse_time(one.get("time")) for one in fields if "f:data" in (one.get("fieldsV1") or {})]
    return max(filter(None, times), default=None)


class MemberSecrets:
    """What is known of the Secrets of all pools' members."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._known: dict[Key, _Secret] = {}

    def is_outdated(self, pod: PodView, names: Iterable[str]) -> bool:
        """Whether one of these Secrets of the pod's namespace has changed since the pod was made."""
        found = (self._known.get((pod.namespace, name)) for name in names)
        times = (one.changed for one in found if one is not None and one.changed is not None)
        # Both have whole seconds.
        return pod.created is not None and any(pod.created < changed for changed in times)

    async def look(self, keys: Iterable[Key], now: datetime) -> bool:
        """Read the Secrets that are due. Returns whether one has changed."""
        due = [one for one in set(keys) if one not in self._known or self._known[one].looked + PERIOD <= now]
        due.sort(key=lambda one: (self._known[one].looked.timestamp() if one in self._known else 0.0, one))
        limit = asyncio.Semaphore(AT_A_TIME)
        changed = await asyncio.gather(*(self._read(one, now, limit) for one in due[:MOST]))
        self._known = {key: one for key, one in self._known.items() if one.looked + FORGOTTEN > now}
        return any(changed)

    async def _read(self, key: Key, now: datetime, limit: asyncio.Semaphore) -> bool:
        before = self._known.get(key)
        said = before.said if before is not None else None
        try:
            async with limit:
                said = changed_at(await self._client.get(SECRETS, key[1], namespace=key[0], timeout=READ_SECONDS))
        except ApiError as error:
            # Gone, without the right to read it, or no answer: members stay.
            log.info("Secret %s/%s: %s", *key, error)
        changed = _changed(said, before, now)
        self._known[key] = _Secret(now, said, changed)
        return changed is not None and (before is None or before.changed != changed)


def _changed(said: datetime | None, before: _Secret | None, now: datetime) -> datetime | None:
    """A time to come is as good as now, once: else each new pod would be too old again. So is one that went back, as
    of a Secret that was restored."""
    if said is None:
        return None
    if before is None or before.said is None:
        return min(said, now)
    if said == before.said:
        return before.changed
    return min(said, now) if said > before.said else now
