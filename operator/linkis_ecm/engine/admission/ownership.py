"""Whose an engine is. An installation leaves alone what another one has accepted.

`status.ecmInstance` names the owner; before there is one, the label of the engine's pod or the author's annotation
does.
Pure. Must not choose a state.
"""

from __future__ import annotations

from dataclasses import dataclass

from linkis_ecm.engine.names import label_hash
from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.view import EngineView


@dataclass(frozen=True, slots=True)
class Ownership:
    """The name of this installation (ECM_INSTANCE), and the names whose engines it takes over."""

    own: str
    adopted: frozenset[str] = frozenset()

    def has_accepted(self, engine: EngineView) -> bool:
        """Whether this installation, by the name that it has now, has accepted the engine."""
        return engine.owner == self.own

    def is_foreign(self, engine: EngineView) -> bool:
        """Whether the engine is another installation's."""
        owner = engine.owner or engine.wanted_owner
        return bool(owner) and owner != self.own and owner not in self.adopted

    def is_foreign_pod(self, pod: PodView) -> bool:
        """Whether another installation made the pod. A pod without the label is from before there was one."""
        if not pod.instance or pod.instance == label_hash(self.own):
            return False
        return all(pod.instance != label_hash(name) for name in self.adopted)
