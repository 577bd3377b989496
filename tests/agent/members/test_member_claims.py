"""How a member of a warm pool becomes an engine's agent: the claim, the same claim again, and the reports behind it."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from linkis_ecm.agent.formats.proof import proof
from linkis_ecm.agent_client.client import AgentClient, AgentEndpoint
from linkis_ecm.agent_client.errors import AgentUnreachable
from tests.agent.reports.test_identity import FakeOperator
from tools.testkit.agents.keys import NONCE
from tools.testkit.agents.member import Start, engine_environment, key_of, text
from tools.testkit.agents.process import PATIENCE, TOKEN, AgentProcess, until

# --- the claim

SECRET = "a-value-that-nobody-may-read"
ODD = {
    "LINES": "one\ntwo\r\n\tthree",
    "DOLLARS": "$HOME $(HOME) ${HOME} `id` %s {x}",
    "QUOTES": "\"double\" 'single' \\ back",
    "UNICODE": "häß 漢字 \U0001f600 \u2028 \x7f \x01",
    "A_DATE": "2026-11-27T20:00:00.000000Z",
    "EMPTY": "",
    "LARGE": "x" * (100 << 10),
    "with.dots-and dashes": "as Kubernetes allows",
}


def test_the_engine_has_its_environment_and_nothing_of_it_is_in_a_log(member: Start) -> None:
    agent = member()
    before = agent.status()
    folder = agent.home.parent / "work/of mine"
    agent.become(
        engine_environment(
            ECM_WORK_DIR=str(folder), ECM_POD_UID="of another pod", OF_PLATFORM=SECRET,
            **{f"ECM_ENV_{name}": value for name, value in ODD.items()},
        )
    )  # fmt: skip
    first = agent.execute("import json, os, subprocess; print(json.dumps(dict(os.environ)))")
    assert first["executionCount"] == 1
    found = json.loads(first["outputs"][0]["text"])
    assert {name: found.get(name) for name in ODD} == ODD
    assert found["OF_PLATFORM"] == SECRET
    assert [name for name in found if name.startswith("ECM_")] == []
    child = "print(subprocess.run(['env', '-0'], capture_output=True, check=True).stdout.decode() == "
    assert text(agent, child + "''.join(f'{name}={value}\\0' for name, value in os.environ.items()))") == "True\n"
    assert text(agent, "%env LINES") == repr(ODD["LINES"])
    assert text(agent, '!echo "$QUOTES"; pwd').splitlines() == [ODD["QUOTES"], str(folder)]
    assert text(agent, "print(os.getcwd(), _dh, In[1][:11])") == f"{folder} [PosixPath('{folder}')] import json\n"
    (folder / "beside.py").write_text("value = 7")
    assert text(agent, "import beside; beside.value") == "7"
    assert text(agent, "%history").splitlines()[0].startswith("import json")
    told = agent.log("stdout") + agent.container_out.read_text() + agent.container_err.read_text()
    assert SECRET not in told.replace(json.dumps(found), "")
    assert "claimed by engine lab/engine-uid-1, attempt 0, ticket ticket-uid-1\n" in told
    after = agent.status()
    assert (after["uid"], after["name"], "member" in after) == ("uid-1", "engine-uid-1", False)
    assert after["sequence"] > before["sequence"]
    # A restart of the kernel keeps it.
    assert agent.json("POST", "/v1/restart")[0] == 200
    again = json.loads(text(agent, "import json, os; print(json.dumps(dict(os.environ)))"))
    own = ("IPYTHONDIR",)
    assert {n: v for n, v in again.items() if n not in own} == {n: v for n, v in found.items() if n not in own}
    assert text(agent, "print(os.getcwd())") == f"{folder}\n"


def test_the_times_and_counters_of_the_engine_begin_at_the_claim(member: Start) -> None:
    agent = member()
    until(lambda: agent.status()["metrics"]["totalIdleTimeMills"] > 50)
    waited = agent.status()
    report = agent.become(engine_environment())
    claimed = report["timings"]["claimed"]
    since_claim = (time.time() - claimed) * 1000 + 1
    assert waited["since"] < claimed == report["since"]
    assert report["metrics"]["totalIdleTimeMills"] <= since_claim
    assert (report["tasksStarted"], report["lastTaskEnded"], report["lastActivity"]) == (0, 0.0, 0.0)
    assert report["timings"] == waited["timings"] | {"claimed": claimed}


FACTS = """
import json, os, site, sys, tempfile, time, pathlib, matplotlib
shell = get_ipython()
print(json.dumps({
    "environment": {n: v for n, v in os.environ.items() if n not in ("IPYTHONDIR", "JPY_PARENT_PID")},
    "path": sys.path, "prefix": [sys.prefix, sys.exec_prefix, sys.executable], "folder": os.getcwd(),
    "folders": [str(one) for one in _dh], "starting": shell.starting_dir, "ipython home": shell.home_dir,
    "user": [site.USER_BASE, site.USER_SITE], "temporary": tempfile.gettempdir(), "zone": time.tzname,
    "home": str(pathlib.Path.home()), "matplotlib": matplotlib.get_cachedir(), "argv": sys.argv,
    "files": sorted(str(p.relative_to(pathlib.Path.home())) for p in pathlib.Path.home().rglob("*")),
    "count": shell.execution_count, "warnings": sys.warnoptions, "backend": matplotlib.get_backend(),
}))
"""


@pytest.mark.parametrize("home", ["the image's", "the user's own"])
def test_a_claimed_kernel_is_as_one_that_was_started_with_that_environment(
    member: Start, start: Callable[..., AgentProcess], home: str
) -> None:
    def wishes(folder: Path) -> dict[str, str]:
        own = {"ECM_ENV_HOME": str(folder / "own")} if home != "the image's" else {}
        return own | {
            "ECM_ENV_TMPDIR": str(folder), "ECM_ENV_TZ": "Asia/Shanghai", "ECM_ENV_FORCE_COLOR": "1",
            "ECM_ENV_PATH": f"/opt/bin:{os.environ['PATH']}", "PIP_RETRIES": "3", "ECM_ENV_PAGER": "less",
        }  # fmt: skip

    warm, facts = member(ECM_PRELOAD="matplotlib" if home == "the image's" else ""), []
    folder = warm.log_dir.parent
    warm.become(engine_environment(**wishes(folder)))
    facts.append(text(warm, FACTS).replace(str(folder), "<folder>"))
    # Of another name, as long as its wishes do not name it.
    cold = start(wait=False, **wishes(folder))
    cold.wait_until_listening()
    cold.wait_for_state("Idle")
    facts.append(text(cold, FACTS).replace(str(folder), "<folder>").replace(str(cold.log_dir.parent), "<folder>"))
    found, expected = map(json.loads, facts)
    assert found == expected


# --- the same claim again, and others


def test_the_same_claim_again_gets_the_present_report_by_either_key(member: Start) -> None:
    agent, environment = member(), engine_environment()
    first = agent.become(environment)
    agent.execute("kept = 1")
    for token in (TOKEN, agent.token):
        status, again = agent.claim(environment, token=token)
        assert (status, again["uid"], again["tasksSucceeded"]) == (200, "uid-1", 1)
        assert again["sequence"] > first["sequence"]
        assert again["timings"] == first["timings"]
        # A value that has changed meanwhile changes nothing: the engine has its own.
        assert agent.claim(environment | {"ECM_ENV_NEW": "1", "ECM_WORK_DIR": "/proc/none"}, token=token)[0] == 200
        for other in (engine_environment("uid-2"), environment | {"ECM_ATTEMPT": "1"}):
            status, refused = agent.claim(other, token=token)
            assert (status, refused["error"]) == (
                409,
                "another engine, or another attempt of this one, has claimed this agent",
            )
    assert text(agent, "import os; print(kept, 'NEW' in os.environ)") == "1 False\n"
    # The member's key opens nothing else.
    for method, path in (("GET", "status"), ("POST", "execute"), ("POST", "stop"), ("GET", "logs/stdout")):
        assert agent.call(method, f"/v1/{path}", token=TOKEN)[0] == 401
    shown = json.loads(agent.call("GET", f"/v1/identity?challenge={'0' * 32}", token=None)[1])
    assert shown == {"proof": proof(agent.token, "0" * 32), "memberProof": proof(TOKEN, "0" * 32)}


def test_of_two_engines_at_once_one_gets_the_member(member: Start) -> None:
    agent = member()
    uids = [f"uid-{number % 4}" for number in range(12)]
    begin = threading.Barrier(len(uids))
    answers: list[tuple[str, int, dict[str, Any]]] = []

    def claim(uid: str) -> None:
        begin.wait()
        answers.append((uid, *agent.claim(engine_environment(uid, ECM_ENV_WHOSE=uid))))

    threads = [threading.Thread(target=claim, args=(uid,)) for uid in uids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = {uid for uid, status, _ in answers if status == 200}
    assert sorted(status for uid, status, _ in answers) == [200] * 3 + [409] * 9
    assert {report["uid"] for _, status, report in answers if status == 200} == {winner}
    agent.token = key_of(winner)
    assert text(agent, "import os; print(os.environ['WHOSE'])") == f"{winner}\n"
    assert agent.log("stdout").count("claimed by engine") == 1


# --- its reports


def test_the_reports_go_on_as_the_engines_under_the_same_enrolment(member: Start, tmp_path: Path) -> None:
    operator = FakeOperator()
    token = tmp_path / "token"
    token.write_text("header.claims.signature")
    agent = member(
        wait=False, ECM_AGENT_KEY="", ECM_ENROLMENT="", ECM_REPORT_URL=operator.url, ECM_REPORT_PERIOD="0.1",
        ECM_IDENTITY_FILE=str(token),
    )  # fmt: skip
    try:
        until(lambda: any(body.get("member", {}).get("ready") for _, body in operator.reports))
        first = operator.reports[0][1]
        agent.wait_until_listening()
        agent.token = operator.key(first)
        environment = engine_environment("uid-9", ECM_ATTEMPT="3")
        key = operator.key(first | {"uid": "uid-9", "attempt": 3})
        status, answer = agent.claim(environment, key=key)
        assert status == 200
        until(lambda: operator.reports[-1][1]["uid"] == "uid-9")
        reports = [body for _, body in operator.reports]
        assert {body["enrolment"] for body in reports} == {first["enrolment"]}
        assert {body["podUid"] for body in reports} == {first["podUid"]}
        numbers = [body["sequence"] for body in reports]
        assert numbers == sorted(set(numbers))
        assert {(body["uid"], body["attempt"]) for body in reports} == {("member", 0), ("uid-9", 3)}
        # Each by the key of whom it is about.
        assert all(given == operator.key(body) for given, body in operator.reports[1:])
        assert all((body["uid"] == "member") == ("member" in body) for body in reports)
        agent.token = key
        assert agent.status()["sequence"] > answer["sequence"]
    finally:
        operator.server.shutdown()
        operator.server.server_close()


@pytest.mark.parametrize("status", [401, 403, 404, 409])
async def test_an_answer_to_the_member_says_nothing_of_the_engine(member: Start, status: int) -> None:
    """The pod is the engine's before its agent is: a report of the member that is still on its way is refused."""
    begun, go_on = threading.Event(), threading.Event()
    operator = FakeOperator()

    def answer(_given: str, body: dict[str, Any]) -> tuple[int, bytes]:
        if body.get("member", {}).get("ready"):
            begun.set()
            go_on.wait(PATIENCE)
            return status, b"no such member"
        return 204, b""

    operator.answer = answer
    agent = await asyncio.to_thread(member, wait=False, ECM_REPORT_URL=operator.url, ECM_REPORT_PERIOD="0.1")
    try:
        await asyncio.to_thread(agent.wait_until_listening)
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        await asyncio.to_thread(agent.become, engine_environment())
        go_on.set()
        await asyncio.to_thread(until, lambda: operator.reports[-1][1]["uid"] == "uid-1")
        assert await asyncio.to_thread(lambda: agent.status()["state"]) == "Idle"
        assert "not taken" not in agent.log("stdout")
    finally:
        go_on.set()
        operator.server.shutdown()
        operator.server.server_close()


async def test_who_claims_once_more_knows_the_agent_by_either_key(member: Start) -> None:
    agent = await asyncio.to_thread(member)
    await asyncio.to_thread(agent.become, engine_environment())
    body = {"environment": engine_environment(), "key": key_of("uid-1")}
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    for key in (TOKEN, agent.token):
        client = AgentClient(user_agent="test", connections=1)
        endpoint = AgentEndpoint(f"127.0.0.1:{agent.port}", key)
        try:
            found = await client.ask(endpoint, "/v1/claim", method="POST", body=body, timeout=timeout, limit=65536)
            assert (found["uid"], found["enrolment"]) == ("uid-1", NONCE)
        finally:
            await client.close()
    client = AgentClient(user_agent="test", connections=1)
    try:
        with pytest.raises(AgentUnreachable, match="does not have this engine's key"):
            await client.ask(AgentEndpoint(endpoint.address, "k"), "/v1/claim", timeout=timeout, limit=65536)
    finally:
        await client.close()
