"""Valid requests of every route of every port, from which mutations are made. Pure; must not send anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from linkis_ecm.agent.formats.names import LOG_NAMES
from linkis_ecm.agent_client import paths
from linkis_ecm.gateway.routes import METHODS
from tools.loopback.installation import Engine
from tools.loopback.sockets import request
from tools.testkit.gateway.harness import EM, TOKEN

JSON = {"Content-Type": "application/json"}
# Code that ends at once, and code that leaves something to ask for.
CODE = ("1+1", "print('a')", "raise ValueError('x')", "import time; time.sleep(0.2)")
LABELS = {"engineType": "python-3.11", "userCreator": "alice-IDE"}


@dataclass(frozen=True)
class Seed:
    """A valid request. `rare`: it ends or makes engines, so it is sent seldom."""

    route: str
    data: bytes
    rare: bool = False


def gateway(engines: list[Engine], users: list[str]) -> list[Seed]:
    """Each method of the gateway, by each user, and without a login where `users` has ""."""
    found = [Seed(path, request("GET", path)) for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs")]
    for user in users:
        login = {"Token-Code": TOKEN, "Token-User": user} if user else {}
        for engine in engines:
            for method in METHODS:
                headers, own = login, False
                if method.by_engine:
                    headers, own = {"Authorization": f"Bearer {engine.key}"}, True
                if own and not user:
                    headers = {}
                for query, body in _arguments(method.name, engine):
                    path = method.path.replace("{ticketid:[^/]+}", engine.uid)
                    path += f"?{urlencode(query)}" if query else ""
                    raw = b"" if body is None else json.dumps(body).encode()
                    sent = request(method.verb, path, headers=headers | (JSON if raw else {}), body=raw)
                    found.append(Seed(f"gateway {method.name}", sent, rare=method.name in _ENDING))
    return found


_ENDING = frozenset(
    {"terminateEngine", "killEngineConn", "rm/enginekill", "rm/enginekillAsyn", "createEngineConnection",
     "createEngineConn", "askEngineConn", "modifyEMInfo", "ecinfo/delete", "sendEngineCommand", "updateResource"}
)  # fmt: skip


def _arguments(name: str, engine: Engine) -> list[tuple[Mapping[str, Any], Any]]:
    """Queries and bodies that the method takes."""
    which = f"engines/{engine.name}"
    one, task = {"engineId": which}, {"engineId": which, "taskId": "t"}
    instance = {"applicationName": "linkis-cg-engineconn", "instance": engine.instance}
    log = {"emInstance": EM, "instance": engine.instance, "logDirSuffix": engine.log_dir, "logType": "stdout"}
    operation = {**instance, "parameters": {"operatorName": "status"}}
    known: dict[str, list[tuple[Mapping[str, Any], Any]]] = {
        "createEngineConnection": [
            ({}, {"engineType": "python", "timeoutSeconds": 1, "env": {"A": "b"}, "labels": {"tenant": "t"}}),
            ({}, {"engineType": "python", "timeoutSeconds": 1, "resources": {"cpu": "1", "memory": "1Gi"}}),
            ({}, {"engineType": "python", "timeoutSeconds": 1, "mode": "once", "code": "1", "runType": "python"}),
        ],
        "executeCode": [
            ({}, one | {"code": code, "runType": "python", "timeoutSeconds": 2, "wait": wait, "idempotencyKey": "k"})
            for code in CODE for wait in (True, False)
        ],
        "getEngineLogs": [
            (one | {"logType": "stdout", "fromLine": 1, "pageSize": 10}, None),
            (one | {"logType": "stderr", "lastRows": 5, "onlyKeywords": "a", "ignoreKeywords": "b"}, None),
        ],
        "listEngines": [({}, None), ({"engineType": "python", "pageNow": 1, "pageSize": 5}, None)],
        "listTasks": [(one, None), (one | {"pageNow": 1, "pageSize": 5}, None)],
        "taskEvents": [(task, None), (task | {"lastEventId": "1.2"}, None)],
        "getResultSet": [(task | {"output": 0, "offset": 0, "pageSize": 10}, None), (task | {"format": "arrow"}, None)],
        "followEngineLog": [(one | {"logType": "stdout"}, None)],
        "downloadEngineLog": [(log, None)],
        "previewCull": [({}, None), ({"idleSeconds": 60}, None)],
        "updateResource": [({}, one | {"memory": "2Gi", "cpu": "1"})],
        "reportResourceUsage": [({}, one | {"memoryBytes": 1, "cpuSeconds": 0.5})],
        "sendEngineCommand": [
            ({}, one | {"command": command, "parameters": {"pageSize": 3}})
            for command in ("status", "interrupt", "engineConnLog", "engineConnProgress")
        ],
        "askEngineConn": [({}, {"labels": LABELS, "timeOut": 1000, "user": engine.user})],
        "createEngineConn": [({}, {"labels": LABELS, "timeout": 1000, "user": engine.user})],
        "getEngineConn": [({}, instance)], "killEngineConn": [({}, instance)],
        "rm/enginekill": [({}, [{"engineInstance": engine.instance}])],
        "rm/enginekillAsyn": [({}, {"instances": [engine.instance]})],
        "listEMEngines": [({}, {"em": {"serviceInstance": {"instance": EM}}})],
        "listAllEMs": [({"instance": EM}, None)], "modifyEMInfo": [({}, {"emStatus": "Healthy", "instance": EM})],
        "openEngineLog": [({}, {**instance, "parameters": {"logType": "stdout", "pageSize": 10}})],
        "executeEngineConnOperation": [({}, operation)], "executeECMOperation": [({}, operation)],
        "executeECMOperationByEC": [({}, operation)],
        "ecinfo/get": [({"ticketid": engine.uid}, None)],
        "ecinfo/ecrHistoryList": [({"pageNow": 1, "pageSize": 5, "startDate": "2026-01-01 00:00:00"}, None)],
        "ecinfo/ecList": [({}, {"creators": ["IDE"], "engineTypes": ["python"], "statuss": ["Idle"]})],
        "rm/userresources": [({}, {})],
    }  # fmt: skip
    if name in known:
        return known[name]
    method = next(method for method in METHODS if method.name == name)
    if method.verb == "GET":
        return [(task if "ask" in name else one, None)] if method.request is not None else [({}, None)]
    return [({}, task if "Task" in name else one)]


def agent(engine: Engine) -> list[Seed]:
    """Each path of the agent's API, with the key and without."""
    found = []
    for headers in ({"Authorization": f"Bearer {engine.key}"}, {}):
        posts: list[tuple[str, Any]] = [
            (paths.EXECUTE, {"taskId": "t", "code": "1+1", "runType": "python", "timeoutSeconds": 2, "wait": True}),
            (paths.EXECUTE, {"taskId": "u", "code": "print(1)", "wait": False}),
            (paths.INTERRUPT, {}), (paths.cancel("t"), {}), (paths.STOP, {"graceSeconds": 5, "reason": "fuzz"}),
            (paths.RESTART, {}),
        ]  # fmt: skip
        for path, body in posts:
            raw = json.dumps(body).encode()
            sent = request("POST", path, headers=headers | JSON, body=raw)
            found.append(Seed(f"agent {path}", sent, rare=path in (paths.STOP, paths.RESTART)))
        gets = [
            "/healthz", f"{paths.IDENTITY}?challenge={'0' * 32}", paths.STATUS, paths.TASKS, paths.task("t"),
            paths.result("t"), paths.events("t", "0.0"), paths.output("t", 0), paths.output("t", None),
            paths.result_file("0" * 32, offset=0, length=10),
        ]  # fmt: skip
        for name in LOG_NAMES:
            gets += [
                paths.log(name, offset=0, length=100), paths.log_follow(name, offset=None, tail=10),
                paths.log_lines(name, {"fromLine": 1, "lines": 5, "onlyKeywords": "a"}),
                paths.log_lines(name, {"lastRows": 5, "tail": "true"}),
            ]  # fmt: skip
        found += [Seed(f"agent {path.partition('?')[0]}", request("GET", path, headers=headers)) for path in gets]
    return found


def operator(engine: Engine) -> list[Seed]:
    """Reports, enrolments, jobs and uploads, with the key, with a token that is none, and without."""
    found = []
    report = json.dumps(full_report(engine)).encode()
    for headers in ({"Authorization": f"Bearer {engine.key}"}, {"Authorization": "Bearer a.b.c"}, {}):
        found.append(Seed("operator report", request("POST", "/v1/report", headers=headers | JSON, body=report)))
        found.append(Seed("operator job", request("GET", f"/v1/job?{engine.query}", headers=headers)))
        for name in ("stdout", "gc", "results.json", "result.json", f"{'0' * 32}.arrow"):
            path = f"/v1/archive/{name}?{engine.query}"
            found.append(Seed("operator archive", request("PUT", path, headers=headers, body=b'{"a":[1]}' * 20)))
    return found


def health() -> list[Seed]:
    """The operator's other port."""
    return [Seed(f"health {path}", request("GET", path)) for path in ("/healthz", "/readyz", "/metrics")]


def full_report(engine: Engine, state: str = "Idle") -> dict[str, Any]:
    """A report with every field that an agent sends."""
    return engine.report(
        state, reason="", message="m", since=1.0, lastTaskEnded=1.0, lastActivity=2.0, stderrTail="x",
        timings={"processStarted": 1.0, "kernelStarted": 2.0, "kernelReady": 3.0, "listening": 4.0},
        usage={"memoryBytes": 1, "memoryPeakBytes": 2, "cpuSeconds": 0.5}, metrics={"totalIdleTimeMills": 1},
        task={"id": "t", "started": 1.0, "code": "1+1"}, streams={"client": 1}, capabilities={"runTypes": ["python"]},
    )  # fmt: skip
