"""How long a claim of a warm pool's member takes, outside any pod: from the request to the engine's first report.

Run it as `python -m bench.agent_claim [--members N] [--preload MODULES] [--realtime]`. Each member is a process of its
own that is claimed once. `--realtime` runs the claim before all that others do on a busy machine: it needs root.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import arguments
from tools.testkit.agents.member import MemberProcess, engine_environment, key_of
from tools.testkit.agents.process import TOKEN

ROUND_TRIPS = 20
# Of the user: ten variables, one of them as large as a certificate.
VARIABLES = {f"ECM_ENV_NAME_{number}": "value" for number in range(9)} | {"ECM_ENV_CERTIFICATE": "x" * 4096}
# So long nothing happens before the claim, as in a pool.
QUIET_SECONDS = 0.5


def run_first(*pids: int) -> None:
    """Let these processes and this one run before all others. Raises PermissionError without the right."""
    for pid in (os.getpid(), *pids):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setscheduler(int(thread.name), os.SCHED_RR, os.sched_param(1))


def run_as_others() -> None:
    """This process alone: the others end soon."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def timed(
    connection: http.client.HTTPConnection, key: str, method: str, path: str, body: Any = None
) -> tuple[float, dict[str, Any]]:
    """Seconds of one request, and its answer."""
    raw = None if body is None else json.dumps(body)
    started = time.perf_counter()
    connection.request(method, path, raw, {"Authorization": f"Bearer {key}"})
    answer = connection.getresponse()
    found = json.loads(answer.read())
    seconds = time.perf_counter() - started
    if answer.status != 200:
        raise SystemExit(f"{path}: {answer.status} {found}")
    return seconds, found


def measure(preload: str, *, realtime: bool) -> dict[str, float]:
    """Of one member: seconds by what was asked for."""
    with tempfile.TemporaryDirectory() as folder:
        member = MemberProcess(Path(folder), ECM_PRELOAD=preload)
        try:
            time.sleep(QUIET_SECONDS)
            if realtime:
                run_first(member.process.pid, member.kernel_pid())
            connection, key = member.connection(), key_of("uid-1")
            environment = engine_environment(ECM_WORK_DIR=f"{folder}/work", **VARIABLES)
            opened, _ = timed(connection, TOKEN, "GET", f"/v1/identity?challenge={'0' * 32}")
            status = statistics.median(timed(connection, TOKEN, "GET", "/v1/status")[0] for _ in range(ROUND_TRIPS))
            claim, _ = timed(connection, TOKEN, "POST", "/v1/claim", {"environment": environment, "key": key})
            first, _ = timed(connection, key, "POST", "/v1/execute", {"code": "1+1"})
            later = statistics.median(
                timed(connection, key, "POST", "/v1/execute", {"code": "1+1"})[0] for _ in range(ROUND_TRIPS)
            )
            return {
                "connection and proof": opened, "GET /v1/status": status, "POST /v1/claim": claim,
                "first 1+1": first, "later 1+1": later,
            }  # fmt: skip
        finally:
            if realtime:
                run_as_others()
            member.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.agent_claim", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("--members", type=arguments.count, default=20, help="members that are claimed (default 20)")
    parser.add_argument("--preload", default="", help="what they import before, such as pandas")
    parser.add_argument("--realtime", action="store_true", help="as on a machine that does nothing else; needs root")
    options = parser.parse_args()
    found: dict[str, list[float]] = {}
    for _ in range(options.members):
        for name, seconds in measure(options.preload, realtime=options.realtime).items():
            found.setdefault(name, []).append(seconds)
    print(f"{options.members} members, preload {options.preload or 'nothing'}; ms, p50 and p90")
    for name, values in found.items():
        tenths = statistics.quantiles(values, n=10) if len(values) > 1 else values
        print(f"  {name:<22} {statistics.median(values) * 1000:7.2f} {tenths[-1] * 1000:7.2f}")


if __name__ == "__main__":
    main()
