"""How an engine is told of: EngineInfo from a view of the cache or from a row of the database. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from linkis_ecm.api.models import EngineInfo
from linkis_ecm.gateway.inventory.history import PastEngine
from linkis_ecm.gateway.inventory.view import EngineView, startup_millis
from linkis_ecm.model import reasons


def info_of(engine: EngineView | PastEngine) -> EngineInfo:
    """The engine as callers see it."""
    return _live(engine) if isinstance(engine, EngineView) else _past(engine)


def _live(view: EngineView) -> EngineInfo:
    reason = reasons.by_name(view.reason)
    return EngineInfo.model_construct(
        engine_id=view.ticket_id,
        ticket_id=view.ticket_id,
        namespace=view.namespace,
        name=view.name,
        engine_type=view.engine_type,
        engine_version=view.engine_version,
        user=view.user,
        creator=view.creator,
        label_value=view.label_value,
        status=str(view.state),
        status_since=view.since,
        available=view.takes_code,
        reason=view.reason,
        message=view.message,
        remedy=reason.remedy if reason else "",
        can_retry=bool(reason and reason.can_retry),
        stop_requested=view.stop_requested or view.deleting,
        service_instance=view.service_instance,
        ecm_instance=view.ecm_instance,
        log_dir_suffix=view.log_dir_suffix,
        pod_name=view.pod_name,
        node_name=view.node_name,
        attempt=view.attempt,
        create_time=view.created,
        ready_time=view.ready_time,
        finished_time=view.finished_time,
        next_cull_at=view.next_cull_at,
        cull_blocked_by=view.cull_blocked_by,
        startup=dict(view.startup),
        startup_millis=startup_millis(view.startup),
    )


def _past(past: PastEngine) -> EngineInfo:
    # Linkis's combined label: user-creator,engineType-version; neither part has a "-" of its own.
    who, _, what = past.label_value.partition(",")
    engine_type, _, version = what.partition("-")
    reason = reasons.by_name(past.reason)
    return EngineInfo.model_construct(
        engine_id=past.ticket_id,
        ticket_id=past.ticket_id,
        namespace=past.namespace or None,
        name=past.name or None,
        engine_type=engine_type,
        engine_version=version,
        user=past.user,
        creator=who.partition("-")[2],
        label_value=past.label_value,
        status=past.status,
        available=False,
        reason=past.reason,
        message=past.message,
        remedy=reason.remedy if reason else "",
        can_retry=bool(reason and reason.can_retry),
        service_instance=past.service_instance,
        ecm_instance=past.ecm_instance,
        log_dir_suffix=past.log_dir_suffix,
        create_time=_text(past.create_time),
        ready_time=_text(past.used_time),
        finished_time=_text(past.release_time),
    )


def _text(at: datetime | None) -> str | None:
    """RFC 3339 in UTC; the store's times are naive UTC."""
    if at is None:
        return None
    aware = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return aware.isoformat().replace("+00:00", "Z")
