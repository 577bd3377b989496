"""Which pods of a warm pool an engine may take, by what the API server says of them. Must not call it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from linkis_ecm.engine.names import READY_ANNOTATION


def claimable(pod: Mapping[str, Any]) -> bool:
    """Whether an engine may take the pod: it is marked as ready, and neither ends nor has ended."""
    metadata = pod["metadata"]
    marked = READY_ANNOTATION in (metadata.get("annotations") or {})
    runs = (pod.get("status") or {}).get("phase") == "Running"
    return marked and runs and "deletionTimestamp" not in metadata
