"""The ECMs: this one (EMRestfulApi). Its size is what the namespace's quotas allow, else what is in use."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from linkis_ecm.gateway.answers import Answer
from linkis_ecm.gateway.context import Call
from linkis_ecm.gateway.http.errors import bad_request, denied
from linkis_ecm.gateway.inventory.ecm_state import EcmState
from linkis_ecm.gateway.inventory.sizes import with_sizes
from linkis_ecm.gateway.linkis import shapes
from linkis_ecm.gateway.linkis.errors import error_code
from linkis_ecm.gateway.linkis.requests import ListEms, ModifyEm, Names
from linkis_ecm.kube.errors import ApiError
from linkis_ecm.kube.resources import QUOTAS
from linkis_ecm.model.formats import parse_quantity

_ADMIN_ONLY = "Only admin can modify ECMs(只有管理员才能修改ECM)."


async def list_all_ems(call: Call, request: ListEms) -> Answer:
    """This ECM, if it is one that was asked for."""
    if not call.caller.is_admin:
        raise denied(error_code(210003, _ADMIN_ONLY))
    node = await _node(call)
    asked = (
        (not request.instance or request.instance in node["instance"])
        and (not request.node_healthy or request.node_healthy == node["nodeHealthy"])
        and (not request.owner or request.owner.lower() == node["owner"].lower())
        and (not request.tenant_label or any(request.tenant_label in str(label) for label in node["labels"]))
    )
    return Answer({"EMs": [node] if asked else []})


async def _node(call: Call) -> dict[str, Any]:
    """An EMNodeVo."""
    gateway = call.gateway
    instance = gateway.settings.instance
    state = await gateway.em.state()
    live = [with_sizes(gateway.plugins, view) for view in gateway.engines if not view.is_final]
    cpu, memory = sum(view.cpu_milli for view in live), sum(view.memory_bytes for view in live)
    room = await _room(call)
    used = shapes.load(cpu_milli=cpu, memory_bytes=memory, instances=len(live))
    most = shapes.load(cpu_milli=room[0] or cpu, memory_bytes=room[1] or memory, instances=max(room[2], len(live)))
    left = {name: max(0, most[name] - used[name]) for name in most}
    none = shapes.load(cpu_milli=0, memory_bytes=0, instances=0)
    labels = state.labels or [
        {"labelKey": "emInstance", "stringValue": f"{shapes.ECM}-{instance}", "modifiable": False}
    ]
    return {
        "labels": labels,
        "applicationName": shapes.ECM,
        "instance": instance,
        "resourceType": "LoadInstance",
        "maxResource": most,
        "minResource": none,
        "usedResource": used,
        # Ours: Linkis counts whole cores, and its sizes do not say which of them nothing limits.
        "usedCpuMilli": cpu,
        "quota": {"cpuMilli": room[0] or None, "memory": room[1] or None, "instance": room[2] or None},
        "lockedResource": none,
        "expectedResource": none,
        "leftResource": left,
        "owner": "linkis-ecm",
        "runningTasks": sum(str(view.state) == "Busy" for view in live),
        "pendingTasks": 0,
        "succeedTasks": 0,
        "failedTasks": 0,
        "maxMemory": most["memory"],
        "usedMemory": used["memory"],
        "systemCPUUsed": 0.0,
        "systemLeftMemory": left["memory"],
        "nodeHealthy": state.health,
        "msg": "",
        "startTime": None,
        "description": state.description,
    }


async def _room(call: Call) -> tuple[int, int, int]:
    """(milli-cores, bytes, pods) that the namespace's quotas allow; zeros where there is none, or no right to look."""
    namespace = call.gateway.settings.namespace
    try:
        quotas = (await call.gateway.cluster.list(QUOTAS, namespace=namespace)).items
    except ApiError:
        return 0, 0, 0
    cpu = memory = pods = Decimal(0)
    for quota in quotas:
        hard = (quota.get("spec") or {}).get("hard") or {}
        cpu = _smaller_quota(cpu, hard.get("requests.cpu") or hard.get("cpu"))
        memory = _smaller_quota(memory, hard.get("requests.memory") or hard.get("memory"))
        # What engines may use, which is what is counted as used.
        memory = _smaller_quota(memory, hard.get("limits.memory"))
        pods = _smaller_quota(pods, hard.get("pods") or hard.get("count/pods"))
    return int(cpu * 1000), int(memory), int(pods)


def _smaller_quota(known: Decimal, text: Any) -> Decimal:
    if text is None:
        return known
    found = parse_quantity(str(text))
    return found if not known else min(known, found)


async def modify_em_info(call: Call, request: ModifyEm) -> Answer:
    """Health, labels, description: an admin's word."""
    if not call.caller.is_admin:
        raise denied(error_code(210003, _ADMIN_ONLY))
    if request.application_name != shapes.ECM:
        raise error_code(210003, "Only ECM labels can be modified(只能修改ECM的标签)")
    if request.instance != call.gateway.settings.instance:
        raise bad_request(f"ECM instance {(request.instance or '')[:128]} is not known here: take it from listAllEMs")
    before = await call.gateway.em.state()
    health = request.em_status or before.health
    if health not in shapes.NODE_HEALTHY:
        raise bad_request(f"emStatus is {health[:40]!r}: give one of {', '.join(shapes.NODE_HEALTHY)}")
    labels = []
    seen = set()
    for label in request.labels:
        key, value = label.get("labelKey"), label.get("stringValue")
        if not isinstance(key, str) or not key:
            raise bad_request("labelKey is null: give each of labels a labelKey and a stringValue")
        if key in seen:
            raise error_code(210003, "Failed to update label, include repeat labels(更新label失败，包含重复label)")
        seen.add(key)
        labels.append({"labelKey": key[:128], "stringValue": str(value or "")[:256], "modifiable": True})
    description = before.description if request.description is None else request.description
    await call.gateway.em.write(EcmState(health, labels, description))
    return Answer({}, message="success")


async def list_node_healthy_status(call: Call, _: Names) -> Answer:
    """listAllNodeHealthyStatus: of engines; Linkis's console fills a menu with it."""
    del call
    return Answer({"nodeStatus": list(shapes.NODE_STATUS)})


async def list_ecm_healthy_status(call: Call, _: Names) -> Answer:
    """listAllECMHealthyStatus; all of them can be set, in the real one too."""
    del call
    return Answer({"nodeHealthy": list(shapes.NODE_HEALTHY)})
