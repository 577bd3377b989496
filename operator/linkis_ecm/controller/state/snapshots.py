"""Takes the snapshot that a pass decides by: what the cache has of an engine, and what this process remembers of it.

Must not decide, and must not call anybody.
"""

from __future__ import annotations

from datetime import datetime

from linkis_ecm.controller.state.cache import Cache
from linkis_ecm.controller.state.memory import Memory
from linkis_ecm.engine.admission.in_force import InForce
from linkis_ecm.engine.admission.limits import Refusal
from linkis_ecm.engine.decision import Snapshot, Warm
from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.view import EngineView, Report


def take_snapshot(
    cache: Cache,
    engine: EngineView,
    memory: Memory,
    now: datetime,
    *,
    limit: Refusal | None,
    warm: Warm | None,
    policies: InForce | None,
    report_path_down: bool,
) -> Snapshot:
    """The snapshot; notes in `memory` which phases of the start are seen for the first time."""
    pod = cache.pod_of(engine)
    if not engine.status:
        memory.first_seen.setdefault("accepted", now)
    if pod is not None:
        memory.pod_gone = False
        note_phases(memory, pod, now)
    return Snapshot(
        engine=engine,
        pod=pod,
        pod_unknown=pod is not None and not cache.is_made(engine, pod),
        plugin=cache.plugin_for(engine.spec),
        report=_of_pod(memory.report, pod),
        failure=memory.failure if memory.failed_generation == engine.generation else None,
        stop=memory.stop,
        pod_gone=memory.pod_gone,
        last_pod=None if _is_discarded(memory, memory.last_pod) else memory.last_pod,
        other_pods=cache.other_pods(engine, pod),
        silence=memory.silence,
        evidence=memory.evidence,
        event_problem=memory.event_problem,
        ticket_taken=memory.ticket_taken or cache.is_ticket_taken(engine),
        report_path_down=report_path_down,
        limit=limit,
        warm=warm,
        warm_failed=memory.warm_failed,
        resize_failure=memory.resize_failure,
        resize_sent=memory.resize_sent,
        known_since=memory.known_since,
        words_written=memory.words_written,
        policies=policies,
        first_seen=dict(memory.first_seen),
    )


def note_phases(memory: Memory, pod: PodView, now: datetime) -> None:
    """Note which phases of the engine's start its pod has reached, for the first time."""
    if _is_discarded(memory, pod):
        return
    if pod.node:
        memory.first_seen.setdefault("scheduled", now)
    if pod.started is not None:
        memory.first_seen.setdefault("containerStarted", now)
    if pod.claimed is not None:
        memory.first_seen.setdefault("claimed", now)


def _is_discarded(memory: Memory, pod: PodView | None) -> bool:
    """Whether it is a pod from a pool whose claim failed: the engine's start is that of the pod that comes after it."""
    return pod is not None and pod.claimed is not None and memory.warm_failed is not None


def _of_pod(report: Report | None, pod: PodView | None) -> Report | None:
    """The report, unless it came from another pod of the same attempt: of two that were claimed, one is deleted."""
    if report is None or pod is None or report.agent_key is None or report.agent_key.pod_uid == pod.uid:
        return report
    return None
