"""Records for the store's tests: one engine's legal life, step by step."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, select

from linkis_ecm.model.record import EngineRecord, Transition
from linkis_ecm.model.states import EngineState
from linkis_ecm.store import linkis

# The longest that any single wait of these tests takes before it fails.
PATIENCE = 60.0
T0 = datetime(2026, 11, 24, 3, 0, 0, 250000, tzinfo=UTC)
RESOURCE = '{"instance":1,"memory":"2.0 GB","cpu":1}'


def ticket() -> str:
    return str(uuid.uuid4())


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def step(name: str, state: EngineState, seconds: float, **more: Any) -> EngineRecord:
    """The engine `name` in `state` since T0 + seconds."""
    ready = state is not EngineState.STARTING
    final = more.pop("final", state in (EngineState.SUCCESS, EngineState.FAILED))
    values: dict[str, Any] = {
        "ticket_id": name, "namespace": "ns", "name": f"e-{name[:8]}", "uid": name,
        "label_value": "hadoop-IDE,python-3.11", "create_user": "hadoop",
        "service_instance": f"host-{name[:8]}:9105" if ready else name, "ecm_instance": "ecm:9102", "status": state,
        "log_dir_suffix": f"hadoop/20261124/python/{name}/logs", "create_time": T0, "as_of": at(seconds),
        "request_times": 1, "request_resource": RESOURCE, "used_times": int(ready),
        "used_resource": RESOURCE if ready else None, "used_time": at(1) if ready else None,
        "release_times": int(final), "released_resource": RESOURCE if final else None,
        "release_time": at(seconds) if final else None, "metrics": "{}" if final else None, "reason": "R",
        "message": "m", "final": final, "transitions": (Transition(state, at(seconds), "R", "m"),),
    }  # fmt: skip
    return EngineRecord(**(values | more))


def life(name: str) -> list[EngineRecord]:
    """Starting, Idle, Busy, Idle, Success."""
    states = [EngineState.STARTING, EngineState.IDLE, EngineState.BUSY, EngineState.IDLE, EngineState.SUCCESS]
    return [step(name, state, seconds) for seconds, state in enumerate(states)]


def edges(engine: Engine) -> list[tuple[str, str]]:
    """Which instance belongs to which ECM, as Linkis's table has it."""
    with engine.connect() as connection:
        found = connection.execute(select(linkis.engine_em.c.engine_instance, linkis.engine_em.c.em_instance))
        return [tuple(row) for row in found]
