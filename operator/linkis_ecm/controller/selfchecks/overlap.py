"""Says where another installation has engines in this one's namespaces: in the log, as an event, as a metric.

Such engines are left alone (`engine.admission.ownership`), but new ones go to whoever is quicker. Must not touch one.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

from linkis_ecm.controller.announcer import Recorder
from linkis_ecm.engine.view import EngineView
from linkis_ecm.kube.client import ApiError, KubeClient
from linkis_ecm.kube.resources import NAMESPACES

log = logging.getLogger(__name__)

REASON = "ForeignEngines"
# Characters of an installation's name in a sentence: the name is read from a status, which may have been edited.
NAME_MAX = 100


class Overlap:
    """`check` when this replica begins to lead, and at each resync. `foreign` gives the live engines of others."""

    def __init__(
        self, *, client: KubeClient, own: str, foreign: Callable[[], list[EngineView]], recorder: Recorder
    ) -> None:
        self._client = client
        self._own = own
        self._foreign = foreign
        self._recorder = recorder
        self._reported: frozenset[tuple[str, str]] = frozenset()

    async def check(self) -> dict[tuple[str, str], int]:
        """The number of engines by namespace and installation. What was found before is not logged again."""
        found = Counter((one.namespace, (one.owner or one.wanted_owner)[:NAME_MAX]) for one in self._foreign())
        for (namespace, owner), count in sorted(found.items()):
            if (namespace, owner) in self._reported:
                continue
            sentence = (
                f"{count} engines in the namespace {namespace} belong to the installation {owner!r}, and {self._own!r}"
                " leaves them alone. Let each installation watch namespaces of its own. If it is a former name of this"
                " one, set ECM_ADOPT_INSTANCES to it."
            )
            log.warning("%s", sentence)
            self._recorder.record(
                await self._regarding(namespace), REASON, sentence, action="LeaveAlone", kind="Warning"
            )  # fmt: skip
        self._reported = frozenset(found)
        return dict(found)

    async def _regarding(self, namespace: str) -> dict[str, Any]:
        """The namespace as an event names it: with its uid, where it may be read."""
        regarding = {"apiVersion": "v1", "kind": "Namespace", "namespace": namespace, "name": namespace}
        try:
            found = await self._client.get(NAMESPACES, namespace, timeout=5.0)
        except ApiError as error:
            log.info("namespace %s: %s", namespace, error)
            return regarding | {"uid": namespace}
        return regarding | {"uid": str(found["metadata"]["uid"])}
