"""How an engine is shown to callers: EngineInfo from what the gateway knows of it. Pure."""

from __future__ import annotations

from datetime import datetime

from linkis_ecm.api.models import EngineInfo
from linkis_ecm.engine.matching import claim_ends, held_claim, linkis_state
from linkis_ecm.engine.times import format_time
from linkis_ecm.gateway.inventory.view import KnownEngine, startup_millis
from linkis_ecm.model import reasons


def info_of(engine: KnownEngine, now: datetime, *, asked: str | None = "") -> EngineInfo:
    """The engine as callers see it: its owner and admins. `now` decides which claim still holds. `asked` is the id that
    the caller has named it by: a ticket that is not proven is repeated to whoever has named it, and told to nobody."""
    repeats = asked == engine.ticket_id
    reason = reasons.by_name(engine.reason)
    claim = held_claim(engine, now) if engine.usable else None
    ends = claim_ends(engine) if claim is not None else None
    return EngineInfo.model_construct(
        engine_id=engine.ticket_id if repeats else engine.engine_id,
        ticket_id=engine.ticket_id if repeats else engine.shown_ticket,
        namespace=engine.namespace or None,
        name=engine.name or None,
        engine_type=engine.engine_type,
        engine_version=engine.engine_version,
        user=engine.user,
        creator=engine.creator,
        label_value=engine.label_value,
        status=engine.status,
        node_status=str(linkis_state(engine, now)) if engine.in_cluster else engine.status,
        status_since=engine.since,
        available=engine.takes_code,
        claimed=claim is not None,
        claimed_by=claim.by if claim is not None else None,
        claimed_until=format_time(ends) if ends is not None else None,
        lent_level=engine.lent_level or None,
        lent_group=engine.lent_group or None,
        lent_to=(claim.user or None) if claim is not None else None,
        not_lent_because=engine.not_lent_because or None,
        reason=engine.reason,
        message=engine.message,
        remedy=reason.remedy if reason else "",
        can_retry=bool(reason and reason.can_retry),
        stop_requested=engine.stop_requested or engine.deleting,
        service_instance=engine.service_instance if repeats else engine.shown_instance,
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
