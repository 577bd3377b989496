"""`python -m tools.fuzz.schema SETTINGS`: schemathesis against the gateway, in a process of its own.

As a user, as an admin, and without a login, in turns, with a new seed each round, until the time is over. Prints what
it did as JSON. Must not know of other ports.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from linkis_ecm.gateway import openapi
from tools.fuzz.findings import Findings
from tools.fuzz.oracle import ALLOWED, is_message
from tools.testkit.gateway.harness import TOKEN

EXAMPLES = 12
# The admin's and the user's names, and nobody's.
CALLERS = ("alice", "root", "")
SECONDS = 40.0
# A stream is read for so long.
STREAM_SECONDS = 2.0
# Seconds between two calls: bounds the rate.
PAUSE = 0.01
_FOUND: list[Any] = list(schemathesis.openapi.from_dict(openapi.document()).get_all_operations())
# Methods whose answers come in pieces, for as long as there is something new.
STREAMS = ("followEngineLog", "taskEvents", "downloadEngineLog")
# Methods that pass the result of the user's own engine on as it is (api.models.ExecuteAnswer).
PASSED_ON = ("executeCode", "getTaskResult")
OPERATIONS = [found.ok() for found in _FOUND]


def call(case: Any, url: str, user: str, told: dict[str, Any], findings: Findings, answers: Counter[str]) -> None:
    """One call, judged."""
    # Engines that are there, in half of the calls: what is made up would end at "no such engine".
    for place in (case.query, case.body):
        if isinstance(place, dict) and place.get("engineId") and len(str(place["engineId"])) % 2:
            place["engineId"] = told["engines"][len(str(place)) % len(told["engines"])]
        if isinstance(place, dict) and "instance" in place and len(str(place["instance"])) % 2:
            place["instance"] = told["instances"][len(str(place)) % len(told["instances"])]
    if isinstance(case.body, dict):
        if "timeoutSeconds" in case.body:
            case.body["timeoutSeconds"] = 1
        if "labels" in case.body:
            case.body |= {"timeOut": 1000, "timeout": 1000}
    headers = {"Token-Code": TOKEN, "Token-User": user} if user else {}
    route = f"schema {case.operation.label} as {user or 'nobody'}"
    seconds = STREAM_SECONDS if case.operation.path.rpartition("/")[2] in STREAMS else SECONDS
    curl = case.as_curl_command(headers=headers)
    try:
        response = case.call(base_url=url, headers=headers, timeout=seconds)
    except requests.exceptions.RequestException as error:
        if case.operation.path.rpartition("/")[2] in STREAMS:
            answers["stream cut"] += 1  # its agent is a hostile one, or it goes on for longer than we wait
            return
        answers[type(error).__name__] += 1
        if not isinstance(error, requests.exceptions.InvalidHeader | requests.exceptions.InvalidURL):
            findings.add(route, f"no answer: {type(error).__name__}", str(error)[:500], curl.encode())
        return
    answers[str(response.status_code)] += 1
    body = response.content
    status = response.status_code
    if status >= 500 and (status not in ALLOWED["gateway"] or not is_message(body)):
        findings.add(route, f"HTTP {status}", body[:2000].decode(errors="replace"), curl.encode())
    if not user:
        if status < 400:
            findings.add(route, f"a stranger got {status}", body[:2000].decode(errors="replace"), curl.encode())
        for word in told["names"]:
            if word.encode() in body and word not in curl:
                findings.add(
                    route, f"a stranger's answer has {word}", body[:2000].decode(errors="replace"), curl.encode()
                )
    if status == 499 or response.headers.get("Content-Type", "").startswith("text/event-stream"):
        return
    checks = [status_code_conformance, content_type_conformance]
    if not (case.operation.path.rpartition("/")[2] in PASSED_ON and "hostile" in curl):
        checks.append(response_schema_conformance)
    try:
        case.validate_response(response, checks=checks)
    except AssertionError as error:
        findings.add(route, f"not as documented: {type(error).__name__}", str(error)[:3000], curl.encode())
    except BaseExceptionGroup as group:
        for one in group.exceptions:
            findings.add(route, f"not as documented: {type(one).__name__}", str(one)[:3000], curl.encode())


def calls_of(operation: Any, seed: int, judged: Callable[[Any], None], until: float) -> None:
    """Some calls of one operation."""

    @hypothesis.seed(seed)
    @given(case=operation.as_strategy())
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def calls(case: Any) -> None:
        if time.monotonic() < until:
            judged(case)
            time.sleep(PAUSE)

    calls()


def round_of(seed: int, url: str, told: dict[str, Any], findings: Findings, answers: Counter[str], until: float) -> int:
    """Each operation as each caller, once; how many operations were tried."""
    tried = 0
    for number, operation in enumerate(OPERATIONS):
        for user in CALLERS:
            if time.monotonic() > until:
                return tried
            tried += 1

            judged = partial(call, url=url, user=user, told=told, findings=findings, answers=answers)
            try:
                calls_of(operation, seed * 1000 + number, judged, until)
            except Exception as error:
                findings.add(
                    f"schema {operation.label}", f"the fuzzer failed: {type(error).__name__}", str(error)[:2000], b""
                )
    return tried


def main(text: str) -> None:
    told = json.loads(text)
    findings = Findings(Path(told["folder"]), told["seed"])
    answers: Counter[str] = Counter()
    until = time.monotonic() + told["seconds"]
    seed, tried = told["seed"], 0
    while time.monotonic() < until:
        tried += round_of(seed, told["url"], told, findings, answers, until)
        seed += 1
    print(json.dumps({"operations": tried, "answers": dict(answers), "found": dict(findings.seen)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
