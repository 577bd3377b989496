"""How Linkis tells of engines and ECMs: nodes, resources, labels, records (linkis-contract.md, 1.4). Pure."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from linkis_ecm.engine.matching import held_claim, linkis_state
from linkis_ecm.engine.times import parse_time
from linkis_ecm.gateway.inventory.history import Record
from linkis_ecm.gateway.inventory.view import KnownEngine
from linkis_ecm.model.reasons import KILLED
from linkis_ecm.model.states import EngineState

ENGINECONN = "linkis-cg-engineconn"
ECM = "linkis-cg-engineconnmanager"
MANAGER = "linkis-cg-linkismanager"
NODE_STATUS = ("Starting", "Unlock", "Locked", "Idle", "Busy", "Running", "ShuttingDown", "Failed", "Success")
NODE_HEALTHY = ("Healthy", "UnHealthy", "WARN", "StockAvailable", "StockUnavailable")
UNHEALTHY_STATES = ("Failed", "ShuttingDown")


def service_instance(application: str, instance: str) -> dict[str, Any]:
    """Linkis's ServiceInstance."""
    return {
        "applicationName": application,
        "instance": instance,
        "registryTimestamp": 0,
        "mappingPorts": None,
        "mappingHost": None,
    }


def status_of(engine: KnownEngine, now: datetime) -> str:
    """Linkis's word; of a killed engine the record's, for its client takes Success for a job that is done. Unlock and
    Idle by whether somebody holds the engine now."""
    if not engine.in_cluster:
        return engine.status or "Failed"
    if engine.state is EngineState.SUCCESS and engine.reason in KILLED:
        return str(EngineState.SHUTTING_DOWN)
    return str(linkis_state(engine, now))


def lock_of(engine: KnownEngine, now: datetime) -> str | None:
    """The lock of whoever holds the engine; None where nobody does."""
    claim = held_claim(engine, now) if engine.usable else None
    return claim.by if claim is not None else None


def started(engine: KnownEngine, *, ecm: str, now: datetime) -> dict[str, Any]:
    """The `engine` of askEngineConn and createEngineConn."""
    return {
        "ecAsyncStartResult": "success",
        "serviceInstance": service_instance(ENGINECONN, engine.service_instance),
        "nodeStatus": status_of(engine, now),
        "ticketId": engine.ticket_id,
        "ecmServiceInstance": service_instance(ECM, engine.ecm_instance or ecm),
        "managerServiceInstance": service_instance(MANAGER, ecm),
    }


def labels(engine: KnownEngine) -> list[dict[str, Any]]:
    """userCreator, engineType and engineInstance, as consoles read them."""
    who, _, what = engine.label_value.partition(",")
    return [
        {"labelKey": "userCreator", "stringValue": who, "modifiable": False},
        {"labelKey": "engineType", "stringValue": what, "modifiable": False},
        {
            "labelKey": "engineInstance",
            "stringValue": f"{ENGINECONN}-{engine.shown_instance}",
            "modifiable": False,
        },
    ]


def load(*, cpu_milli: int, memory_bytes: int, instances: int = 1) -> dict[str, Any]:
    """A LoadInstanceResource as Jackson has it; both spellings of its count."""
    cores = max(1, -(-cpu_milli // 1000)) if cpu_milli else 0
    return {"memory": memory_bytes, "cores": cores, "instance": instances, "instances": instances}


def millis(text: str | None) -> int | None:
    """Epoch milliseconds of an RFC 3339 time."""
    moment = parse_time(text)
    return None if moment is None else round(moment.timestamp() * 1000)


def epoch(at: datetime | None) -> int | None:
    """Epoch milliseconds of the store's naive UTC."""
    return None if at is None else round(at.replace(tzinfo=UTC).timestamp() * 1000)


def engine_node(engine: KnownEngine, *, ecm: str, now: datetime) -> dict[str, Any]:
    """An AMEngineNode: listUserEngines, getEngineConn."""
    status = status_of(engine, now)
    resource = load(cpu_milli=engine.cpu_milli, memory_bytes=engine.memory_bytes)
    return {
        "serviceInstance": service_instance(ENGINECONN, engine.shown_instance),
        "emNode": {
            "serviceInstance": service_instance(ECM, engine.ecm_instance or ecm),
            "owner": "",
            "mark": "process",
        },
        # Not in Linkis's node, though its client looks for it: who comes back to an engine needs it to read the log.
        "ecmServiceInstance": service_instance(ECM, engine.ecm_instance or ecm),
        "nodeStatus": status,
        "lock": lock_of(engine, now),
        "labels": labels(engine),
        "owner": engine.user,
        "mark": "process",
        "identifier": engine.uid.replace("-", "")[:32],
        "ticketId": engine.shown_ticket,
        "startTime": millis(engine.created),
        "updateTime": millis(engine.since),
        "nodeHealthyInfo": health(status, engine.message),
        "nodeResource": {
            "resourceType": "LoadInstance",
            "maxResource": resource,
            "minResource": resource,
            "usedResource": resource,
            "lockedResource": load(cpu_milli=0, memory_bytes=0, instances=0),
            "leftResource": load(cpu_milli=0, memory_bytes=0, instances=0),
        },
        "nodeDescription": engine.message or None,
        "params": None,
    }


def past_node(engine: KnownEngine) -> dict[str, Any]:
    """The same of an engine that is a record by now."""
    return {
        "serviceInstance": service_instance(ENGINECONN, engine.service_instance),
        "emNode": {"serviceInstance": service_instance(ECM, engine.ecm_instance), "owner": "", "mark": "process"},
        "ecmServiceInstance": service_instance(ECM, engine.ecm_instance),
        "nodeStatus": engine.status or "Failed",
        "lock": None,
        "labels": labels(engine),
        "owner": engine.user,
        "mark": "process",
        "ticketId": engine.ticket_id,
        "startTime": millis(engine.created),
        "updateTime": millis(engine.finished_time),
        "nodeHealthyInfo": health(engine.status or "Failed", engine.message),
        "nodeDescription": engine.message or None,
    }


def health(status: str, message: str) -> dict[str, Any]:
    """Linkis's rule: Failed and ShuttingDown are unhealthy."""
    return {"nodeHealthy": "UnHealthy" if status in UNHEALTHY_STATES else "Healthy", "msg": message}


def engine_vo(engine: KnownEngine, *, ecm: str, now: datetime) -> dict[str, Any]:
    """An AMEngineNodeVo: listEMEngines."""
    resource = load(cpu_milli=engine.cpu_milli, memory_bytes=engine.memory_bytes)
    status = status_of(engine, now)
    found = health(status, engine.message)
    return {
        "labels": labels(engine),
        "applicationName": ENGINECONN,
        "instance": engine.shown_instance,
        "emInstance": engine.ecm_instance or ecm,
        "ticketId": engine.shown_ticket,
        "nodeStatus": status,
        "lock": lock_of(engine, now),
        "engineType": engine.engine_type,
        "owner": engine.user,
        "resourceType": "LoadInstance",
        "usedResource": resource,
        "lockedResource": load(cpu_milli=0, memory_bytes=0, instances=0),
        "startTime": millis(engine.created),
        "nodeHealthy": found["nodeHealthy"],
        "msg": found["msg"],
        "mappingPorts": None,
        "mappingHost": None,
    }


def resource_vo(text: str | None) -> dict[str, Any] | None:
    """A record's resource JSON as the history's `{cores, memory, instance}`, memory in bytes."""
    try:
        body = json.loads(text) if text else None
    except ValueError:
        return None
    if not isinstance(body, dict):
        return None
    driver: dict[str, Any] = body["driver"] if isinstance(body.get("driver"), dict) else body
    cores = driver.get("cpu", driver.get("cores", 0))
    return {
        "cores": int(cores) if isinstance(cores, int | float) else 0,
        "memory": size(str(driver.get("memory", "0"))),
        "instance": int(driver.get("instance", 1) or 0),
    }


def size(text: str) -> int:
    """Bytes of Linkis's "2.0 GB", "512m", "2g"."""
    units = {"b": 0, "k": 1, "kb": 1, "m": 2, "mb": 2, "g": 3, "gb": 3, "t": 4, "tb": 4}
    number = text.strip().rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    unit = text.strip()[len(number) :].strip().lower() or "b"
    try:
        return round(float(number) * float(1024 ** units[unit]))
    except (ValueError, KeyError):
        return 0


def record_vo(row: Record) -> dict[str, Any]:
    """An ECResourceInfoRecordVo: the history's row, without `metrics`."""
    return {
        "id": row.id,
        "labelValue": row.label_value,
        "createUser": row.create_user,
        "serviceInstance": row.service_instance,
        "ecmInstance": row.ecm_instance,
        "ticketId": row.ticket_id,
        "logDirSuffix": row.log_dir_suffix,
        "requestTimes": row.request_times or 0,
        "requestResource": resource_vo(row.request_resource),
        "usedTimes": row.used_times or 0,
        "usedResource": resource_vo(row.used_resource),
        "releaseTimes": row.release_times or 0,
        "releasedResource": resource_vo(row.released_resource),
        "createTime": epoch(row.create_time),
        "usedTime": epoch(row.used_time),
        "releaseTime": epoch(row.release_time),
        "status": row.status,
        "engineType": engine_type(row.label_value),
    }


def record_row(row: Record) -> dict[str, Any]:
    """An ECResourceInfoRecord: the row as it is, its resources as texts."""
    return record_vo(row) | {
        "requestResource": row.request_resource,
        "usedResource": row.used_resource,
        "releasedResource": row.released_resource,
        "metrics": row.metrics,
    }


def engine_type(label_value: str) -> str:
    return label_value.partition(",")[2].partition("-")[0]
