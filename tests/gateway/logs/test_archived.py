"""What outlives the pod, and what is to come: archived logs, post-mortems, explainEngine, previewCull."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from aiohttp import web

from linkis_ecm.archive.bundles import Reader
from linkis_ecm.engine.times import format_time
from linkis_ecm.gateway.inventory.view import KnownEngine, engine_of_record
from tools.testkit.agents.process import until
from tools.testkit.gateway import harness
from tools.testkit.gateway.harness import BASE, BOB_TOKEN, EM, PATIENCE, Harness

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
LINES = b"".join(b"line %d\n" % n for n in range(1, 201))


def past(uid: str = "0c6f0d3e-6a0b-4f4e-9a51-3c8f3c0c9a11", **changes: Any) -> KnownEngine:
    values: dict[str, Any] = {
        "ticket_id": "t-1", "label_value": "alice-IDE,python-3.11", "user": "alice", "service_instance": "gone:9105",
        "ecm_instance": EM, "status": "Failed", "log_dir_suffix": "alice/20261124/python/t-1/logs", "create_time": None,
        "used_time": None, "release_time": None, "reason": "OOMKilled", "uid": uid,
    }  # fmt: skip
    return engine_of_record(**values | changes)


def ended(gw: Harness, **status: Any) -> dict[str, Any]:
    state = {"engineState": "Failed", "reason": "OOMKilled", "finishedTime": "2026-11-24T04:10:00Z"}
    return gw.engine(status=state | status)


async def test_the_log_of_an_ended_engine_is_read_and_downloaded_from_the_archive(gw: Harness) -> None:
    engine = ended(gw)
    uid = engine["metadata"]["uid"]
    await gw.archive.put(uid, 0, "stdout", LINES)
    page = (await gw.get("getEngineLogs", {"engineId": uid, "fromLine": "11", "lines": "3"})).data
    assert page["logs"] == ["line 11", "line 12", "line 13"]
    assert page["endLine"] == 13
    answer = await gw.get("downloadEngineLog", gw.download_query(engine))
    assert (answer.http, answer.raw) == (200, LINES)
    assert answer.headers["Content-Length"] == str(len(LINES))


async def test_a_page_whose_caller_left_keeps_the_log_open_until_its_thread_ends(
    gw: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads at one index of lines would number them wrongly."""
    uid = ended(gw)["metadata"]["uid"]
    lines = b"".join(b"line %d\n" % n for n in range(1, 200_001))
    await gw.archive.put(uid, 0, "stdout", lines)
    reads, closed = threading.Semaphore(0), []
    begun = threading.Event()
    read_at, close = Reader.read_at, Reader.close
    inside: list[int] = []
    most = 0

    def slow(self: Reader, offset: int, count: int) -> bytes:
        nonlocal most
        inside.append(1)
        most = max(most, len(inside))
        begun.set()
        assert reads.acquire(timeout=2 * PATIENCE)
        reads.release()
        inside.pop()
        return read_at(self, offset, count)

    async def closing(self: Reader) -> None:
        closed.append(1)
        await close(self)

    monkeypatch.setattr(Reader, "read_at", slow)
    monkeypatch.setattr(Reader, "close", closing)
    query = {"engineId": uid, "fromLine": "150000", "lines": "2"}
    first = asyncio.create_task(gw.get("getEngineLogs", query))
    assert await asyncio.to_thread(begun.wait, PATIENCE)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.create_task(gw.get("getEngineLogs", query))
    # Both hold their bytes, one of them reads.
    await asyncio.to_thread(until, lambda: gw.gateway.budget.held > 4 * len(lines))
    assert (most, closed) == (1, [])
    reads.release()
    assert (await second).data["logs"] == ["line 150000", "line 150001"]
    assert most == 1
    await asyncio.to_thread(until, lambda: len(closed) == 2 and not gw.gateway.budget.held)


async def test_the_log_of_an_engine_whose_resource_is_gone_is_found_by_its_row(make: Any) -> None:
    gone = past()
    gw: Harness = await make(find=lambda engine_id: gone if engine_id in ("t-1", "gone:9105") else None)
    await gw.archive.put(gone.uid, 0, "stderr", b"MemoryError\n")
    page = (await gw.get("getEngineLogs", {"engineId": "t-1", "logType": "stderr"})).data
    assert page["logs"] == ["MemoryError"]
    query = {
        "emInstance": EM, "instance": "gone:9105", "logDirSuffix": gone.log_dir_suffix, "logType": "stderr",
    }  # fmt: skip
    assert (await gw.get("downloadEngineLog", query)).raw == b"MemoryError\n"
    foreign = await gw.get("getEngineLogs", {"engineId": "t-1"}, user="bob", token=BOB_TOKEN)
    assert foreign.http == 403


async def test_the_kubelets_log_stands_in_where_the_agent_could_not_send_its_own(gw: Harness) -> None:
    engine = ended(gw)
    uid = engine["metadata"]["uid"]
    await gw.archive.put(uid, 0, "container.log", b"both streams\n")
    for log_type in ("stdout", "stderr"):
        page = (await gw.get("getEngineLogs", {"engineId": uid, "logType": log_type})).data
        assert page["logs"] == ["both streams"]
    none = await gw.get("getEngineLogs", {"engineId": uid, "logType": "gc"})
    assert none.http == 400
    assert "does not exist" in none.message


async def test_the_last_attempt_that_left_a_log_is_the_one_that_is_read(gw: Harness) -> None:
    engine = ended(gw, attempt=2)
    uid = engine["metadata"]["uid"]
    await gw.archive.put(uid, 0, "stdout", b"first\n")
    await gw.archive.put(uid, 1, "stdout", b"second\n")
    await gw.archive.put(uid, 2, "bundle.json", b"{}")
    assert (await gw.get("getEngineLogs", {"engineId": uid})).data["logs"] == ["second"]


async def test_logs_after_their_retention_are_refused_as_deleted(gw: Harness) -> None:
    engine = ended(gw)
    answer = await gw.get("getEngineLogs", {"engineId": engine["metadata"]["uid"]})
    assert answer.http == 400
    assert "nothing of it is in the archive" in answer.message


async def test_a_post_mortem_tells_why_with_pod_events_files_and_result(gw: Harness) -> None:
    engine = ended(gw)
    uid = engine["metadata"]["uid"]
    bundle = {"reason": "OOMKilled", "events": [{"reason": "Killing"}], "missing": ["stdout as a file: x"]}
    await gw.archive.put(uid, 0, "bundle.json", orjson.dumps(bundle))
    await gw.archive.put(uid, 0, "result.json", b'{"status": "Failed"}')
    told = (await gw.get("getPostMortem", {"engineId": uid})).data
    assert told["bundle"] == {"reason": "OOMKilled", "events": [{"reason": "Killing"}]}
    assert told["missing"] == ["stdout as a file: x"]
    assert set(told["files"]) == {"bundle.json", "result.json"}
    assert told["result"] == {"status": "Failed"}
    assert told["engine"]["remedy"]
    assert (await gw.get("getPostMortem", {"engineId": uid}, user="bob", token=BOB_TOKEN)).http == 403


async def test_a_post_mortem_of_a_live_engine_is_refused_in_a_sentence(gw: Harness) -> None:
    engine = gw.engine()
    answer = await gw.get("getPostMortem", {"engineId": engine["metadata"]["uid"]})
    assert answer.http == 400
    assert "has not ended yet" in answer.message


def status_of(**changes: Any) -> Any:
    async def handler(request: web.Request) -> web.Response:
        body = {"attempt": 0, "sequence": 1, "state": "Idle", "lastTaskEnded": 0, "active": ""} | changes
        return web.json_response(body)

    return handler


async def test_explain_tells_deadlines_blockers_and_policy(make: Any) -> None:
    gw: Harness = await make(now=NOW)
    ended_at = (NOW - timedelta(minutes=10)).timestamp()
    since = format_time(NOW - timedelta(minutes=12))
    _, engine = await gw.served(
        status_of(lastTaskEnded=ended_at), status={"stateSince": since},
        spec={"maxLifetime": "9999h", "restartPolicy": {"type": "OnFailure", "maxAttempts": 2}},
    )  # fmt: skip
    told = (await gw.get("explainEngine", {"engineId": engine["metadata"]["uid"]})).data
    assert told["agentAnswered"] is True
    assert [deadline["name"] for deadline in told["deadlines"]] == ["idleTimeout", "maxLifetime"]
    assert told["deadlines"][0]["inSeconds"] == 1200
    assert told["cullBlockedBy"] is None
    assert (told["restartPolicy"], told["attemptsAllowed"]) == ("OnFailure", 2)
    assert "The kernel has answered" in told["summary"]


async def test_explain_names_what_blocks_a_cull(gw: Harness) -> None:
    _, engine = await gw.served(status_of(active="1 download under way"))
    told = (await gw.get("explainEngine", {"engineId": engine["metadata"]["uid"]})).data
    assert told["cullBlockedBy"] == "1 download under way"
    assert [d["name"] for d in told["deadlines"]] == []


@pytest.mark.parametrize(
    ("startup", "words"),
    [
        ({"kind": "warm"}, "It took a pod of its plugin's warm pool, so it started warm."),
        ({"kind": "cold", "coldBecause": "It asks for spec.volumes."}, "It started cold. It asks for spec.volumes."),
        ({"kind": "cold"}, ""),
    ],
)
async def test_explain_says_whether_the_start_was_warm_and_why_not(gw: Harness, startup: Any, words: str) -> None:
    begun = {"accepted": "2026-11-24T04:00:00.000000Z", "ready": "2026-11-24T04:00:00.020000Z"}
    _, engine = await gw.served(status_of(), status={"startup": begun | startup})
    told = (await gw.get("explainEngine", {"engineId": engine["metadata"]["uid"]})).data
    assert words in told["summary"]
    assert ("start" in told["summary"]) is bool(words)
    assert told["engine"]["startupMillis"] == {"accepted": 0, "ready": 20}


async def test_explain_says_that_an_engine_is_soft_paused_and_when_it_will_be(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gw: Harness = await make(now=NOW)
    plugin = harness.PLUGIN | {"spec": harness.PLUGIN["spec"] | {"softPause": {"after": "20m", "cpu": "50m"}}}
    monkeypatch.setattr(harness, "PLUGIN", plugin)
    ended, since = (NOW - timedelta(minutes=10)).timestamp(), format_time(NOW - timedelta(minutes=12))
    _, engine = await gw.served(status_of(lastTaskEnded=ended), status={"stateSince": since})
    told = (await gw.get("explainEngine", {"engineId": engine["metadata"]["uid"]})).data
    assert [deadline["name"] for deadline in told["deadlines"]] == ["softPause", "idleTimeout"]
    assert 600 <= told["deadlines"][0]["inSeconds"] <= 660
    assert "paused" not in told["summary"]
    ended = (NOW - timedelta(minutes=25)).timestamp()
    record = {"since": "2026-11-24T03:00:00.000000Z", "cpu": "50m", "fullCpu": "2"}
    _, engine = await gw.served(
        status_of(lastTaskEnded=ended), status={"stateSince": "2026-11-24T03:00:00.000000Z", "softPause": record}
    )  # fmt: skip
    told = (await gw.get("explainEngine", {"engineId": engine["metadata"]["uid"]})).data
    assert "It is soft-paused since 2026-11-24 03:00:00 UTC" in told["summary"]
    assert "its pod requests cpu 50m in place of 2." in told["summary"]
    assert "Its next code runs at once" in told["summary"]
    # Somebody uses it, and the API server does not give its cpu back.
    why = "The engine is used again, but its pod keeps cpu 50m in place of 2 (exceeded quota)."
    resized = {"type": "Resized", "status": "False", "reason": "SmallerThanAsked", "message": why}
    ended = (NOW - timedelta(seconds=10)).timestamp()
    for conditions in ([], [resized]):
        status = {"stateSince": format_time(NOW), "softPause": record, "conditions": conditions}
        _, engine = await gw.served(status_of(lastTaskEnded=ended), status=status)
        summary = (await gw.get("explainEngine", {"engineId": engine["metadata"]["uid"]})).data["summary"]
        assert ("gets its cpu of 2 back now" in summary) is not bool(conditions)
        assert (why in summary) is bool(conditions)


async def test_explain_of_a_starting_engine_says_when_it_fails(make: Any) -> None:
    gw: Harness = await make(now=NOW)
    engine = gw.engine(
        status={"engineState": "Starting", "reason": "Unschedulable", "address": None}, spec={"startTimeout": "9999h"}
    )
    told = (await gw.get("explainEngine", {"engineId": engine["metadata"]["uid"]})).data
    assert [deadline["name"] for deadline in told["deadlines"]] == ["startTimeout"]
    assert "No node takes the engine" in told["summary"]


async def test_a_preview_tells_who_would_be_culled_and_who_not(make: Any) -> None:
    gw: Harness = await make(now=NOW)
    since = format_time(NOW - timedelta(minutes=20))
    idle = {"stateSince": since, "nextCullAt": "2026-11-24T05:00:00Z"}
    await gw.served(status_of(), name="idle", status=idle)
    await gw.served(status_of(state="Busy"), name="busy", status={"engineState": "Busy", "stateSince": since})
    await gw.served(status_of(), name="bobs", status=idle, spec={"user": "bob"})
    told = (await gw.get("previewCull", {"withinSeconds": "900"})).data
    assert [candidate["name"] for candidate in told["culled"]] == ["idle"]
    assert [(c["name"], c["blockedBy"]) for c in told["kept"]] == [("busy", "a task runs")]
    sooner = (await gw.get("previewCull", {"withinSeconds": "60"})).data
    assert sooner["culled"] == []
    everybody = (await gw.get("previewCull", {"withinSeconds": "900"}, user="root")).data
    assert {candidate["name"] for candidate in everybody["culled"]} == {"idle", "bobs"}
    bad = await gw.call("GET", f"{BASE}/previewCull?withinSeconds=-1")
    assert bad.http == 400
    assert "withinSeconds" in bad.message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b" " * (17 << 20), "more than are shown here"),
        (b"{", "not what an agent writes"),
        (b"[{}," * (1 << 20), "not what"),
    ],
    ids=["long", "no JSON", "objects"],
)
async def test_a_jobs_result_in_the_archive_is_read_within_bounds(gw: Harness, content: bytes, says: str) -> None:
    """The job's agent wrote it: up to the archive's bound of 1 GiB."""
    engine = ended(gw)
    uid = engine["metadata"]["uid"]
    await gw.archive.put(uid, 0, "bundle.json", b'{"reason": "Completed"}')
    await gw.archive.put(uid, 0, "result.json", content)
    told = (await gw.get("getPostMortem", {"engineId": uid})).data
    assert told["result"] is None
    assert told["bundle"] == {"reason": "Completed"}
    (line,) = told["missing"]
    assert says in line
    assert not gw.gateway.budget.held
    with pytest.raises(ValueError, match="more than"):
        await gw.archive.get(uid, 0, "bundle.json", limit=5)
