"""Knows which of the watched namespaces the API server does not give: gone, or without the operator's rights there.

The others are served meanwhile. Must not repair anything.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Literal

from linkis_ecm.controller.metrics import Metrics
from linkis_ecm.kube.errors import ApiError

log = logging.getLogger(__name__)

# What is asked for in a namespace: the list and the watch of EngineConns, and the pods. RBAC gives each by itself, and
# an open watch outlives the right to it by minutes.
Request = Literal["list", "watch", "pods"]
LIST: Request = "list"
WATCH: Request = "watch"
POD_WATCH: Request = "pods"


class Namespaces:
    """`denied` and `served` as requests fail and succeed. It is served while none of its requests is denied."""

    def __init__(self, *, metrics: Metrics) -> None:
        # The reason of each denied request, by namespace.
        self._denied: dict[str, dict[Request, str]] = {}
        metrics.namespaces_unserved.set_function(lambda: float(len(self._denied)))

    @property
    def unserved(self) -> dict[str, str]:
        """The reason, by namespace."""
        return {namespace: next(iter(reasons.values())) for namespace, reasons in self._denied.items()}

    def denied(self, request: Request, namespace: str, error: ApiError) -> None:
        """The API server refuses this request."""
        if namespace not in self._denied:
            log.warning(
                "the namespace %s is gone, or this operator has no rights in it; the others are served: %s",
                namespace, error,
            )  # fmt: skip
        self._denied.setdefault(namespace, {})[request] = str(error)

    def served(self, requests: Iterable[Request], namespace: str) -> None:
        """The API server answers these requests."""
        reasons = self._denied.get(namespace)
        if reasons is None:
            return
        for request in requests:
            reasons.pop(request, None)
        if not reasons:
            del self._denied[namespace]
            log.info("the namespace %s is served again", namespace)

    @property
    def note(self) -> str:
        """The namespaces that are not served, as a sentence; empty if all are."""
        if not self._denied:
            return ""
        return f"not served: {'; '.join(f'{name} ({why})' for name, why in sorted(self.unserved.items()))}"[:2000]
