"""Reads the Kubernetes Events of one pod: what the scheduler, the kubelet and other controllers say of it.

Must not judge them: that is `engine.causes.start_problems`.
"""

from __future__ import annotations

from typing import Any

from linkis_ecm.kube.client import KubeClient
from linkis_ecm.kube.resources import EVENTS

# The newest are kept.
EVENTS_MAX = 100


async def read_pod_events(client: KubeClient, namespace: str, pod: str) -> list[dict[str, Any]]:
    """The pod's events, the oldest first: type, reason, note, time, count. Raises ApiError."""
    found = await client.list(EVENTS, namespace=namespace, field_selector=f"regarding.name={pod}", timeout=5.0)
    kept = []
    for item in found.items:
        series = item.get("series") or {}
        kept.append(
            {
                "type": item.get("type"), "reason": item.get("reason"), "note": item.get("note"),
                "time": item.get("eventTime") or item.get("deprecatedFirstTimestamp"),
                "count": series.get("count") or item.get("deprecatedCount") or 1,
                "last": series.get("lastObservedTime") or item.get("deprecatedLastTimestamp") or item.get("eventTime"),
            }
        )  # fmt: skip
    kept.sort(key=lambda event: str(event.pop("last") or ""))
    return kept[-EVENTS_MAX:]
