"""Knows which of the watched namespaces the API server does not give: gone, or without the operator's rights there.

The others are served meanwhile. Must not repair anything.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from linkis_ecm.controller.metrics import Metrics
from linkis_ecm.kube.errors import ApiError

log = logging.getLogger(__name__)


class Namespaces:
    """`denied` and `served` as requests fail and succeed. `on_first_denied` is called once for each namespace."""

    def __init__(self, *, metrics: Metrics, on_first_denied: Callable[[str], None]) -> None:
        self._on_first_denied = on_first_denied
        self._known: set[str] = set()
        self.unserved: dict[str, str] = {}
        metrics.namespaces_unserved.set_function(lambda: float(len(self.unserved)))

    def denied(self, namespace: str, error: ApiError) -> None:
        """The API server refuses what is in it."""
        if namespace not in self.unserved:
            log.warning(
                "the namespace %s is gone, or this operator has no rights in it; the others are served: %s",
                namespace, error,
            )  # fmt: skip
        self.unserved[namespace] = str(error)
        if namespace not in self._known:
            self._known.add(namespace)
            self._on_first_denied(namespace)

    def served(self, namespace: str) -> None:
        """The API server gives it again."""
        if self.unserved.pop(namespace, None) is not None:
            log.info("the namespace %s is served again", namespace)

    @property
    def note(self) -> str:
        """The namespaces that are not served, as a sentence; empty if all are."""
        return f"not served: {'; '.join(f'{name} ({why})' for name, why in sorted(self.unserved.items()))}"[
            : 2000 if self.unserved else 0
        ]
