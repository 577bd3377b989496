"""A real agent against the operator's real endpoints: its logs reach the archive on every way out, within bounds."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from linkis_ecm.agent.app import ANSWERS_TIMEOUT, REPORT_TIMEOUT, STREAMS_TIMEOUT, UPLOAD_TIMEOUT
from linkis_ecm.agent.engine import KERNEL_EXIT_TIMEOUT
from linkis_ecm.agent.formats.log_pages import said
from linkis_ecm.agent.logs import files as log_files
from linkis_ecm.agent.logs.files import OpenLog, open_file
from linkis_ecm.controller.agents.uploads import UPLOADS
from linkis_ecm.controller.pods import evidence
from linkis_ecm.engine.pod.launch import AFTER_GRACE
from tests.agent.operator import FILE_MAX, QUERY, TICKET, TOKEN, UID, Operator, Start, ended, started
from tools.testkit.agents.process import PATIENCE, until


async def test_a_stopped_engine_leaves_its_logs_in_the_archive(start: Start, operator: Operator) -> None:
    agent = await started(start, operator)
    await asyncio.to_thread(agent.execute, "import sys; print('to stdout'); print('to stderr', file=sys.stderr)")
    agent.process.terminate()
    assert await ended(agent) == 143
    kept = await operator.archive.get(UID, 0, "stdout", limit=64 << 20)
    assert kept is not None
    assert b"to stdout\n" in kept
    assert b"to stderr\n" in (await operator.archive.get(UID, 0, "stderr") or b"")
    assert operator.index.entries[-1].ticket_id == TICKET
    assert set(operator.index.entries[-1].files) == {"stdout", "stderr"}


async def test_the_last_stderr_lines_of_a_dead_kernel_are_kept_and_reported(start: Start, operator: Operator) -> None:
    agent = await started(start, operator)
    code = "import os; os.write(2, b'the last words\\n'); os.kill(os.getpid(), 11)"
    await asyncio.to_thread(agent.execute, code)
    assert await ended(agent) == 139
    assert b"the last words" in (await operator.archive.get(UID, 0, "stderr") or b"")
    last = operator.reports[-1]
    assert (last["state"], last["reason"]) == ("Failed", "KernelDied")
    assert "SIGSEGV" in last["message"]
    assert "the last words" in last["message"]
    assert "os.kill" in last["task"]["code"]


async def test_a_log_over_the_bound_is_cut_and_the_agent_ends_in_time(start: Start, operator: Operator) -> None:
    agent = await started(start, operator)
    await asyncio.to_thread(agent.execute, "[print('x' * 1_000_000) for _ in range(16)]; None")
    agent.process.terminate()
    assert await ended(agent) == 143
    assert (await operator.archive.files(UID, 0))["stdout"] == FILE_MAX
    assert "not all logs were archived" not in agent.log("stdout"), "it did not wait for its bound"
    assert any("cut at" in line for entry in operator.index.entries for line in entry.missing)


async def test_the_kept_part_of_a_shortened_log_is_archived(start: Start, operator: Operator) -> None:
    operator.uploads._file_max = 64 << 20
    agent = await started(start, operator, ECM_LOG_FILE_MIB="8")
    code = "import os\nfor n in range(40): os.write(1, b'%d ' % n + b'y' * (1 << 20) + b'\\n')"
    await asyncio.to_thread(agent.execute, code)
    agent.process.terminate()
    assert await ended(agent) == 143
    path = agent.log_dir / "stdout"
    kept = await operator.archive.get(UID, 0, "stdout", limit=64 << 20) or b""
    first, lines = said(kept)
    assert lines > 20
    assert len(kept) < 20 << 20
    # The last words are written after the log was sent.
    assert path.read_bytes()[first + kept.index(b"\n") + 1 :].startswith(kept[kept.index(b"\n") + 1 :])
    assert b"39 yyy" in kept
    assert b"\0" not in kept


async def test_log_files_that_the_code_wrote_are_archived_too(start: Start, operator: Operator) -> None:
    agent = await started(start, operator)
    code = (
        "import os\nfor name in ('gc', 'yarnApp', 'udfLog', 'other'):\n"
        "    open(os.environ['LOG_DIRS'] + '/' + name, 'w').write(name + ' of a JVM\\n')"
    )
    await asyncio.to_thread(agent.execute, code)
    agent.process.terminate()
    assert await ended(agent) == 143
    assert set(await operator.archive.files(UID, 0)) == {"stdout", "stderr", "gc", "yarnApp", "udfLog"}
    assert await operator.archive.get(UID, 0, "gc") == b"gc of a JVM\n"


async def test_an_operator_that_does_not_take_the_logs_holds_no_engine_up(start: Start, operator: Operator) -> None:
    agent = await started(start, operator)
    operator.hang = True
    agent.process.terminate()
    # It hangs for longer than this is waited for.
    assert await ended(agent) == 143
    assert f"not all logs were archived within {UPLOAD_TIMEOUT:g} s" in agent.log("stdout")


async def test_logs_that_another_operator_has_to_take_are_sent_again(start: Start, operator: Operator) -> None:
    agent = await started(start, operator)
    await asyncio.to_thread(agent.execute, "print('to stdout')")
    # As of one that does not serve the namespace: a new connection finds the right one.
    operator.busy = 3
    agent.process.terminate()
    assert await ended(agent) == 143
    assert operator.busy == 0
    assert b"to stdout\n" in (await operator.archive.get(UID, 0, "stdout", limit=64 << 20) or b"")


async def test_a_file_of_another_shards_engine_is_not_taken_before_its_key_is_checked(
    operator: Operator, query: dict[str, str]
) -> None:
    operator.uploads._is_misdirected = lambda namespace: namespace == "lab"
    assert await put(operator, query, "stdout", b"x") == (503, "another shard serves this namespace; connect again")
    status, _ = await put(operator, query | {"uid": "0c6f0d3e-0000-4f4e-9a51-3c8f3c0c9a11"}, "stdout", b"x")
    assert status == 401


async def test_a_shard_that_does_not_delete_bundles_sees_how_much_there_is(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(operator.index, "expired_post_mortems", lambda *_: asked.append(1) or [])
    leading = asyncio.Event()
    leading.set()
    operator.index.held = 1234
    looks = asyncio.create_task(operator.keeper.run(leading, deletes=lambda: False))
    await asyncio.to_thread(until, lambda: operator.keeper.archive_size() is not None)
    looks.cancel()
    assert operator.keeper.archive_size() == (1234, 0.0)
    assert asked == []


def test_the_agents_end_fits_into_the_pods_time_after_the_grace() -> None:
    # A kernel may be interrupted, asked to end and killed.
    kernel = 2 * KERNEL_EXIT_TIMEOUT
    assert kernel + max(ANSWERS_TIMEOUT, REPORT_TIMEOUT, UPLOAD_TIMEOUT) + STREAMS_TIMEOUT < AFTER_GRACE


async def test_only_the_engine_itself_may_send_and_only_its_own_files(operator: Operator) -> None:
    good = QUERY
    other = "1c6f0d3e-6a0b-4f4e-9a51-3c8f3c0c9a11"
    async with aiohttp.ClientSession(operator.url) as session:

        async def put(name: str, token: str, **change: str) -> int:
            headers = {"Authorization": f"Bearer {token}"}
            async with session.put(f"/v1/archive/{name}", params=good | change, data=b"x", headers=headers) as answer:
                return answer.status

        assert await put("stdout", "guess") == 401
        assert await put("stdout", TOKEN, uid=other) == 401
        assert await put("stdout", TOKEN, attempt="1") == 401
        assert await put("stdout", TOKEN, attempt="-1") == 401
        assert await put("bundle.json", TOKEN) == 404
        assert await put("..%2Fstdout", TOKEN) == 404
        assert await operator.archive.attempts(UID) == []
        assert await put("stdout", TOKEN, podUid="another") == 401
        assert await put("stdout", TOKEN, enrolment="f" * 32) == 401
        assert await put("stdout", TOKEN) == 200
        operator.pod("Failed")
        assert await put("stdout", TOKEN) == 409, "a key that outlives its pod opens nothing"
        operator.cache.drop_pod(operator.cache.pod_by_uid(UID, f"pod-{UID}"))
        assert await put("stdout", TOKEN) == 409
        async with session.get("/v1/job", params=good, headers={"Authorization": "Bearer x"}) as answer:
            assert answer.status == 401


async def test_a_download_under_way_is_told_as_activity(start: Start, operator: Operator) -> None:
    agent = await started(start, operator)
    await asyncio.to_thread(agent.execute, "print('x' * 64_000_000)")
    connection = agent.connection()
    connection.request("GET", "/v1/logs/stdout", headers={"Authorization": f"Bearer {TOKEN}"})
    answer = connection.getresponse()
    answer.read(1000)
    await asyncio.to_thread(until, lambda: agent.status()["active"] == "1 download under way")
    connection.close()
    answer.close()
    await asyncio.to_thread(until, lambda: agent.status()["active"] == "")
    assert agent.status()["lastActivity"] > 0


@pytest.fixture
def query() -> dict[str, str]:
    return QUERY


def refused_bytes(operator: Operator, kind: str) -> float | None:
    return operator.metrics.registry.get_sample_value("ecm_upload_refused_bytes_total", {"kind": kind})


async def put(operator: Operator, query: dict[str, str], name: str, data: bytes) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with (
        aiohttp.ClientSession(operator.url) as session,
        session.put(f"/v1/archive/{name}", params=query, data=data, headers=headers) as answer,
    ):
        return answer.status, await answer.text()


async def test_one_engine_has_a_bound_over_all_its_files(operator: Operator, query: dict[str, str]) -> None:
    operator.keeper._engine_max = 1000
    await operator.archive.put(UID, 7, "stdout", b"x" * 300)  # of another attempt
    assert (await put(operator, query, "stdout", b"x" * 500))[0] == 200
    assert (await put(operator, query, "stdout", b"y" * 600))[0] == 200  # in place of the first
    status, text = await put(operator, query, "gc", b"z" * 300)
    assert (status, json.loads(text)["bytes"]) == (200, 100)
    status, text = await put(operator, query, "yarnApp", b"x")
    assert (status, "one engine may have 1000 bytes" in text) == (413, True)
    status, _ = await put(operator, query, f"result-{1:020x}.arrow", b"x" * 50)
    assert status == 413
    assert await operator.archive.files(UID, 0) == {"gc": 100, "stdout": 600}
    assert refused_bytes(operator, "file") == 200
    assert refused_bytes(operator, "engine") == 51


async def test_files_at_once_share_the_engines_bound(operator: Operator) -> None:
    operator.keeper._engine_max = 1000
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        begun.set()
        await go.wait()
        yield b"x" * 700

    async def fast() -> AsyncIterator[bytes]:
        yield b"y" * 700

    add = operator.keeper.add_file
    first = asyncio.create_task(add(UID, 0, "stdout", slow(), limit=10_000, ticket=TICKET, announced=700))
    async with asyncio.timeout(PATIENCE):
        await begun.wait()
        size, cut = await add(UID, 0, "gc", fast(), limit=10_000, ticket=TICKET, announced=700)
        go.set()
        assert await first == (700, "")
    assert size == 300
    assert "cut at 300 bytes" in cut
    assert operator.keeper._reserved == {}


async def test_a_file_of_a_complete_bundle_is_not_replaced(operator: Operator, query: dict[str, str]) -> None:
    assert (await put(operator, query, "stdout", b"true\n"))[0] == 200
    await operator.archive.put(UID, 0, "bundle.json", b"{}")
    status, text = await put(operator, query, "stdout", b"forged\n")
    assert (status, "its files stay as they are" in text) == (409, True)
    assert await operator.archive.get(UID, 0, "stdout") == b"true\n"
    assert refused_bytes(operator, "written") == 7
    # What was not there yet may still come.
    assert (await put(operator, query, "gc", b"late\n"))[0] == 200


async def test_a_file_that_began_before_its_bundle_was_complete_does_not_replace_either(operator: Operator) -> None:
    begun, go = asyncio.Event(), asyncio.Event()
    await operator.archive.put(UID, 0, "stdout", b"true\n")

    async def slow() -> AsyncIterator[bytes]:
        begun.set()
        await go.wait()
        yield b"forged\n"

    late = asyncio.create_task(operator.keeper.add_file(UID, 0, "stdout", slow(), limit=100, ticket=TICKET))
    async with asyncio.timeout(PATIENCE):
        await begun.wait()
        await operator.archive.put(UID, 0, "bundle.json", b"{}")
        go.set()
        with pytest.raises(evidence.UploadRefusedError):
            await late
    assert await operator.archive.get(UID, 0, "stdout") == b"true\n"
    assert set(await operator.archive.files(UID, 0)) == {"stdout", "bundle.json"}


async def test_a_full_archive_takes_nothing_until_room_is_made(operator: Operator, query: dict[str, str]) -> None:
    operator.keeper._total = 1000
    operator.index.held = 1200
    assert (await put(operator, query, "stdout", b"x" * 100))[0] == 200  # not looked yet
    await operator.keeper.delete_expired()
    status, text = await put(operator, query, "stdout", b"x" * 51)
    assert (status, "room is being made" in text) == (507, True)
    assert operator.keeper._look_now.is_set()
    operator.index.held = 1000
    await operator.keeper.delete_expired()
    assert (await put(operator, query, "stdout", b"x" * 51))[0] == 200
    assert refused_bytes(operator, "total") == 51


async def test_the_ticket_is_the_pods_and_not_what_the_agent_says(operator: Operator, query: dict[str, str]) -> None:
    other = "99999999-2222-3333-4444-555555555555"
    assert (await put(operator, query | {"ticket": other}, "stdout", b"x"))[0] == 200
    assert [entry.ticket_id for entry in operator.index.entries] == [TICKET]


async def test_one_engine_does_not_take_the_places_of_all(operator: Operator, query: dict[str, str]) -> None:
    slots = operator.uploads._slots
    user = f"engine {UID}"
    assert [slots.take(UID, user) for _ in range(5)] == [True] * 4 + [False]
    assert (await put(operator, query, "stdout", b"x"))[0] == 503
    assert refused_bytes(operator, "busy") == 1
    for _ in range(4):
        slots.give_back(UID, user)
    slots._users["others"] = 15
    assert (await put(operator, query, "stdout", b"x"))[0] == 200
    assert UID not in slots._engines


async def test_four_engines_of_one_user_do_not_take_the_places_of_all(
    operator: Operator, query: dict[str, str]
) -> None:
    operator.engine(user="mallory")
    slots = operator.uploads._slots
    taken = [slots.take(f"engine-{number % 6}", "mallory") for number in range(24)]
    assert taken == [True] * 8 + [False] * 16
    # Another engine of the same user waits; each further user has a place, and less than the one before.
    assert (await put(operator, query, "stdout", b"x"))[0] == 503
    shares = [sum(slots.take(f"{user}-{number}", user) for number in range(16)) for user in ("a", "b", "c", "d")]
    assert shares == [4, 2, 1, 1]
    assert slots._users.total() == UPLOADS
    slots.give_back("engine-0", "mallory")
    operator.engine(user="eve")
    assert (await put(operator, query, "stdout", b"x"))[0] == 200


def written(path: Path, *parts: tuple[int, bytes], size: int = 0) -> OpenLog:
    with path.open("wb") as file:
        for offset, data in parts:
            file.seek(offset)
            file.write(data)
        file.truncate(max(size, file.tell()))
    descriptor = open_file(str(path))
    assert descriptor is not None
    return OpenLog(descriptor, None)


BLOCK = 64 << 10


@pytest.mark.parametrize(
    ("parts", "size", "kept"),
    [
        ([], 1 << 40, []),
        ([(0, b"x" * BLOCK)], 1 << 40, [(0, BLOCK)]),
        ([(1 << 40, b"end\n")], 0, [(1 << 40, 4)]),
        ([(0, b"x" * BLOCK), (1 << 30, b"y" * BLOCK)], 1 << 40, [(0, BLOCK), (1 << 30, BLOCK)]),
        ([(0, b"whole\n")], 0, [(0, 6)]),
        ([], 0, []),
    ],
)
def test_of_a_sparse_file_the_disks_part_is_sent(
    tmp_path: Path, parts: list[tuple[int, bytes]], size: int, kept: list[tuple[int, int]]
) -> None:
    log = written(tmp_path / "gc", *parts, size=size)
    assert log.kept_parts() == kept
    assert sum(length for _, length in log.kept_parts()) <= os.fstat(log.descriptor).st_blocks * 512
    log.close()


def test_a_file_of_many_holes_is_sent_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_files, "PARTS_MAX", 3)
    log = written(tmp_path / "gc", *((n << 24, b"x" * BLOCK) for n in range(5)))
    assert [offset >> 24 for offset, _ in log.kept_parts()] == [0, 1, 2]
    log.close()


async def test_a_file_that_user_code_made_huge_costs_the_archive_what_it_wrote(
    start: Start, operator: Operator
) -> None:
    agent = await started(start, operator)
    code = (
        "import os\nwith open(os.environ['LOG_DIRS'] + '/gc', 'wb') as file:\n"
        "    file.write(b'b' * 65536); file.seek(1 << 39); file.write(b'e' * 65536); file.truncate(1 << 40)"
    )
    await asyncio.to_thread(agent.execute, code)
    agent.process.terminate()
    assert await ended(agent) == 143
    assert await operator.archive.get(UID, 0, "gc") == b"b" * 65536 + b"e" * 65536
    assert "not archived" not in agent.log("stdout")
