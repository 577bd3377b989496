"""Says how long a pass may wait after what has happened: of four passes of an engine's start two decided nothing.

A pass that waits is one with whatever happens meanwhile. Where there may be something to decide, it does not wait.
Must not decide what a pass does: that is `engine.decide`.
"""

from __future__ import annotations

from linkis_ecm.controller.state.memory import Memory
from linkis_ecm.engine.causes.start_problems import starts_as_usual
from linkis_ecm.engine.decision import CreatePod, Decision
from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.view import EngineView
from linkis_ecm.model import reasons
from linkis_ecm.model.states import AVAILABLE, EngineState

# Seconds. An agent's report is decided on at once: it comes 0.5 to 2 s after the pod has a node, and later in a burst,
# where each pass that only writes how far the pod is costs as much as half a start. Half of what is told as slow
# (SLOW_START of engine.rules.live_pod).
POD_STARTS = 5.0
# What is decided of an engine that can be used follows from its report and its spec, and the pass that wrote its state
# knew both. A silent agent is asked after as long.
AVAILABLE_WRITTEN = 30.0


def after_pod_event(engine: EngineView | None, memory: Memory | None, pod: PodView) -> float:
    """Seconds that the pass over the owner of that pod may wait, which was created or changed; 0: none.

    Without `memory` nothing is known of the engine's agent.
    """
    starting = (
        engine is not None
        and engine.uid == pod.owner_uid
        and engine.state is EngineState.STARTING
        and engine.text("reason") == reasons.POD_CREATED.name
        and engine.text("podName") == pod.name
        and not engine.stop_requested
    )
    if not starting or memory is None or memory.report is not None or memory.stop is not None:
        return 0.0
    return POD_STARTS if starts_as_usual(pod) else 0.0


def after_write(decision: Decision) -> float:
    """Seconds that the pass over a status that was just written may wait, by the decision that wrote it; 0: none.

    It comes sooner where the decision has an earlier deadline.
    """
    patch, actions = decision.patch, decision.actions
    if "engineState" not in patch or "softPause" in patch or decision.stop is not None:
        return 0.0
    if decision.state in AVAILABLE and not actions:
        return AVAILABLE_WRITTEN
    made = decision.state is EngineState.STARTING and decision.reason == reasons.POD_CREATED.name
    return POD_STARTS if made and all(isinstance(action, CreatePod) for action in actions) and actions else 0.0
