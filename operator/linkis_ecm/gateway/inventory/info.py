"""How an engine is shown to callers: EngineInfo from what the gateway knows of it. Pure."""

from __future__ import annotations

from linkis_ecm.api.models import EngineInfo
from linkis_ecm.gateway.inventory.view import KnownEngine, startup_millis
from linkis_ecm.model import reasons


def info_of(engine: KnownEngine) -> EngineInfo:
    """The engine as callers see it."""
    reason = reasons.by_name(engine.reason)
    return EngineInfo.model_construct(
        engine_id=engine.ticket_id,
        ticket_id=engine.ticket_id,
        namespace=engine.namespace or None,
        name=engine.name or None,
        engine_type=engine.engine_type,
        engine_version=engine.engine_version,
        user=engine.user,
        creator=engine.creator,
        label_value=engine.label_value,
        status=engine.status,
        status_since=engine.since,
        available=engine.takes_code,
        reason=engine.reason,
        message=engine.message,
        remedy=reason.remedy if reason else "",
        can_retry=bool(reason and reason.can_retry),
        stop_requested=engine.stop_requested or engine.deleting,
        service_instance=engine.service_instance,
        ecm_instance=engine.ecm_instance,
        log_dir_suffix=engine.log_dir_suffix,
        pod_name=engine.pod_name,
        node_name=engine.node_name,
        attempt=engine.attempt,
        create_time=engine.created or None,
        ready_time=engine.ready_time,
        finished_time=engine.finished_time,
        next_cull_at=engine.next_cull_at,
        cull_blocked_by=engine.cull_blocked_by,
        startup=dict(engine.startup),
        startup_millis=startup_millis(engine.startup),
    )
