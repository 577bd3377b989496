"""downloadEngineLog as a file over HTTP: parts, tags, packing, HEAD, bad clients; from a real agent and an archive."""

from __future__ import annotations

import asyncio
import gzip
import os
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from linkis_ecm.archive.bundles import Archive, Reader
from linkis_ecm.gateway.http import socket_relay
from linkis_ecm.gateway.http.sender import Sender
from linkis_ecm.gateway.logs import live as live_logs
from linkis_ecm.gateway.logs.live import DOWNLOADS_PER_ENGINE
from tests.gateway.raw import connect, head_of
from tools.testkit.agents.process import AgentProcess, until
from tools.testkit.big_files import write_zeros
from tools.testkit.clocks import LoopClock
from tools.testkit.gateway.harness import PATIENCE, Answer, Harness
from tools.testkit.gateway.real_agents import NAME, engine_at, start_agent

Make = Callable[..., Awaitable[Harness]]
MIB = 1 << 20
# A name of Linkis's that our agent does not write itself: the tests do.
LOG_TYPE = "yarnApp"
TEXT = b"".join(b"line %d of some words\n" % n for n in range(1, 1001))
SIZE = len(TEXT)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    process = start_agent(tmp_path_factory.mktemp("agent"), ECM_LOG_FILE_MIB="8")
    yield process
    process.close()


class Place:
    """A log in an engine's pod, or in the archive after its end."""

    def __init__(self, kind: str, agent: AgentProcess) -> None:
        self.kind = kind
        self.agent = agent
        self.gw: Harness
        self.engine: dict[str, Any]

    def at(self, gw: Harness) -> None:
        """The engine is known to this gateway."""
        self.gw = gw
        ended = {"engineState": "Success", "finishedTime": "2026-11-24T04:10:00Z"}
        live = {"address": f"127.0.0.1:{self.agent.port}"}
        self.engine = gw.engine(name=NAME, status=live if self.kind == "live" else ended)

    async def put(self, data: bytes) -> None:
        if self.kind == "live":
            (self.agent.log_dir / LOG_TYPE).write_bytes(data)
        else:
            await self.gw.archive.put(self.engine["metadata"]["uid"], 0, LOG_TYPE, data)

    def query(self, **changes: str) -> dict[str, str]:
        return self.gw.download_query(self.engine, LOG_TYPE) | changes

    async def get(self, verb: str = "GET", **headers: str) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        path = "/api/rest_j/v1/engineconnManager/downloadEngineLog"
        return await self.gw.call(verb, path, params=self.query(), headers=sent)


@pytest.fixture(params=["live", "archive"])
async def place(request: pytest.FixtureRequest, gw: Harness, agent: AgentProcess) -> Any:
    made = Place(request.param, agent)
    made.at(gw)
    await made.put(TEXT)
    yield made
    (agent.log_dir / LOG_TYPE).unlink(missing_ok=True)


# -- parts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "begin", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=100-", 100, SIZE),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        (f"bytes=5-{SIZE + 1000}", 5, SIZE),
        ("bytes=-1", SIZE - 1, SIZE),
        ("bytes=-500", SIZE - 500, SIZE),
        (f"bytes=-{SIZE * 9}", 0, SIZE),
        ("bytes=0-", 0, SIZE),
    ],
)
async def test_one_range_is_that_part(place: Place, asked: str, begin: int, end: int) -> None:
    answer = await place.get(Range=asked, Accept_Encoding="gzip")
    assert answer.http == 206
    assert answer.raw == TEXT[begin:end]
    assert answer.headers["Content-Range"] == f"bytes {begin}-{end - 1}/{SIZE}"
    assert answer.headers["Content-Length"] == str(end - begin)
    assert "Content-Encoding" not in answer.headers, "a part is of the log itself"
    assert answer.headers["ETag"] == (await place.get()).headers["ETag"]


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 9}", "bytes=999999999-", "bytes=-0"])
async def test_a_range_behind_the_end_is_416_with_the_size(place: Place, asked: str) -> None:
    answer = await place.get(Range=asked)
    assert answer.http == 416
    assert answer.headers["Content-Range"] == f"bytes */{SIZE}"
    assert answer.message == f"Range: the log has {SIZE} bytes, and none of them is asked for: ask for less"


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=0-1,5-9", "bytes=0-1, -5", "bytes=9-5", "bytes=-", "bytes=", "bytes=a-b", "bytes=1-2-3", "items=0-5",
        "bytes 0-5", "bytes=+1-5", "bytes=0-5;x", "bytes=\u0663-", "bytes=" + "9" * 30 + "-", "bytes=" + "1-2," * 2000,
    ],
)  # fmt: skip
async def test_several_ranges_and_what_is_none_are_answered_with_the_whole(place: Place, asked: str) -> None:
    async with connect(place.gw) as raw:
        sent = f"Range: {asked}\r\nAccept-Encoding: gzip\r\nConnection: close\r\n"
        await raw.send(head_of("GET", "downloadEngineLog", place.query(), headers=sent))
        status, headers = await raw.head()
        assert (status, headers["content-length"]) == (200, str(SIZE))
        assert "content-range" not in headers
        assert await raw.rest() == TEXT


async def test_an_empty_log_is_whole_and_has_no_parts(place: Place) -> None:
    await place.put(b"")
    answer = await place.get(Accept_Encoding="gzip")
    assert (answer.http, answer.raw, answer.headers["Content-Length"]) == (200, b"", "0")
    answer = await place.get(Range="bytes=0-")
    assert (answer.http, answer.headers["Content-Range"]) == (416, "bytes */0")


# -- tags ------------------------------------------------------------------------------------------------------------


async def test_a_download_with_the_current_tag_is_304_without_a_body(place: Place) -> None:
    plain, packed = [(await place.get(Accept_Encoding=asked)).headers["ETag"] for asked in ("identity", "gzip")]
    assert plain.startswith('"')
    for more, tag, other in (
        ({}, plain, packed),
        ({"Range": "bytes=0-5"}, plain, packed),
        ({"Range": "bytes=0-5", "Accept_Encoding": "gzip"}, plain, packed),
        ({"Range": "bytes=0-5", "If_Range": '"x"', "Accept_Encoding": "gzip"}, plain, packed),
        ({"Accept_Encoding": "gzip"}, packed, plain),
    ):
        for verb in ("GET", "HEAD"):
            sent = (await place.get(verb, **more)).headers["ETag"]
            assert verb == "HEAD" or sent == tag, "the 304 below has the tag that its 200 or 206 has"
            for header in (sent, f"W/{sent}", f'"other", {sent}', "*"):
                answer = await place.get(verb, If_None_Match=header, **more)
                assert (answer.http, answer.raw) == (304, b""), (header, more)
                assert answer.headers["ETag"] == sent
                assert answer.headers["Vary"] == "Accept-Encoding"
        for header in ('"other"', tag.strip('"'), f"{tag[:-1]}0{tag[-1]}", "", other):
            assert (await place.get(If_None_Match=header, **more)).http in (200, 206), header


async def test_a_range_is_served_only_if_if_range_names_this_log(place: Place) -> None:
    tag = (await place.get()).headers["ETag"]
    name = tag.strip('"').rpartition("-")[0]
    shorter, longer = f'"{name}-7"', f'"{name}-{SIZE + 1}"'
    for header in (tag, shorter):
        assert (await place.get(If_Range=header, Range="bytes=7-")).raw == TEXT[7:], header
    packed = (await place.get(Accept_Encoding="gzip")).headers["ETag"]
    date = "Tue, 24 Nov 2026 04:00:00 GMT"
    for header in (longer, f"W/{tag}", '"other-7"', packed, date, '"-7"', '"', "-", '"x-٣"', '"' + "9" * 40 + '"'):
        answer = await place.get(If_Range=header.encode().decode("latin-1"), Range="bytes=7-")
        assert (answer.http, answer.raw) == (200, TEXT), header
        assert "Content-Range" not in answer.headers


@pytest.mark.parametrize("place", ["live"], indirect=True)
async def test_a_download_that_broke_goes_on_though_the_log_has_grown(place: Place) -> None:
    first = await place.get()
    place.agent.write(LOG_TYPE, b"and more\n")
    again = await place.get(If_Range=first.headers["ETag"], Range="bytes=1000-")
    assert again.http == 206
    assert first.raw[:1000] + again.raw == TEXT + b"and more\n"
    assert again.headers["Content-Range"] == f"bytes 1000-{SIZE + 8}/{SIZE + 9}"
    assert again.headers["ETag"] != first.headers["ETag"]
    assert (await place.get(If_None_Match=first.headers["ETag"])).http == 200
    replaced = place.agent.log_dir / "new"
    replaced.write_bytes(TEXT * 2)
    os.replace(replaced, place.agent.log_dir / LOG_TYPE)
    assert (await place.get(If_Range=first.headers["ETag"], Range="bytes=1000-")).http == 200


# -- packing, HEAD ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["gzip", "br, gzip;q=0.5", "*", "GZIP", "deflate, gzip;q=1.0, *;q=0.5"])
async def test_a_log_is_packed_for_who_asks_and_its_packed_form_has_a_tag_of_its_own(place: Place, header: str) -> None:
    answer = await place.get(Accept_Encoding=header)
    assert answer.http == 200
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.headers["Vary"] == "Accept-Encoding"
    assert answer.headers["X-Log-Size"] == str(SIZE)
    assert "Content-Length" not in answer.headers
    assert gzip.decompress(answer.raw) == TEXT
    plain = await place.get()
    assert plain.headers["ETag"] != answer.headers["ETag"]
    assert (await place.get(If_None_Match=answer.headers["ETag"], Accept_Encoding=header)).http == 304


@pytest.mark.parametrize("header", ["identity", "gzip;q=0", "br", "", "gzip;q=0.000", "*;q=0"])
async def test_a_download_without_accept_encoding_is_not_compressed(place: Place, header: str) -> None:
    answer = await place.get(Accept_Encoding=header)
    assert "Content-Encoding" not in answer.headers
    assert answer.headers["Vary"] == "Accept-Encoding"
    assert answer.raw == TEXT


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_head_is_get_without_the_bytes(place: Place, encoding: str) -> None:
    got, head = await place.get(Accept_Encoding=encoding), await place.get("HEAD", Accept_Encoding=encoding)
    assert (head.http, head.raw) == (200, b"")
    told, same = (
        {name: value for name, value in answer.headers.items() if name not in ("Date", "Transfer-Encoding")}
        for answer in (head, got)
    )
    assert told == same
    for verb in ("POST", "PUT", "DELETE"):
        answer = await place.get(verb)
        assert (answer.http, answer.headers["Allow"]) == (405, "GET, HEAD")


# -- bad clients -----------------------------------------------------------------------------------------------------


class Readers:
    """The archive's open files."""

    def __init__(self, archive: Archive) -> None:
        self.open = 0
        inner = archive.open

        async def opened(*where: Any) -> Reader | None:
            reader = await inner(*where)
            if reader is not None:
                self.open += 1
                close = reader.close

                async def closed() -> None:
                    self.open -= 1
                    await close()

                reader.close = closed  # type: ignore[method-assign]
            return reader

        archive.open = opened  # type: ignore[method-assign]


async def big(place: Place) -> Callable[[], bool]:
    """The log is 64 MiB long; what is returned tells whether nobody reads it."""
    if place.kind == "live":
        write_zeros(place.agent.log_dir / LOG_TYPE, 64 * MIB)

        return lambda: place.agent.status()["active"] == ""
    await place.put(b"x" * (64 * MIB))
    readers = Readers(place.gw.archive)
    return lambda: readers.open == 0


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_a_client_that_vanishes_lets_go_of_the_log_at_once(place: Place, encoding: str) -> None:
    unread = await big(place)
    for _ in range(DOWNLOADS_PER_ENGINE + 1):
        async with connect(place.gw) as raw:
            sent = f"Accept-Encoding: {encoding}\r\n"
            await raw.send(head_of("GET", "downloadEngineLog", place.query(), headers=sent))
            assert (await raw.head())[0] == 200
            if encoding == "identity":
                assert not await asyncio.to_thread(unread)
            raw.vanish()
        await asyncio.to_thread(until, unread)
    assert (await place.get(Range="bytes=0-9")).http == 206


async def test_a_client_that_takes_nothing_is_cut_after_its_time_and_costs_a_buffer(
    make: Make, agent: AgentProcess, place: Place
) -> None:
    gw = await make(client_seconds=0.3)
    place.at(gw)
    await place.put(TEXT)
    unread = await big(place)
    async with connect(gw) as raw:
        tracemalloc.start()
        try:
            await raw.send(head_of("GET", "downloadEngineLog", place.query()))
            status, headers = await raw.head()
            assert (status, headers["content-length"]) == (200, str(64 * MIB))
            await asyncio.to_thread(until, unread)
            assert tracemalloc.get_traced_memory()[1] < 8 * MIB
        finally:
            tracemalloc.stop()
        text = (await gw.call("GET", "/metrics", token=None, user=None)).raw.decode()
        assert 'ecm_gateway_responses_aborted_total{side="client"} 1.0' in text
        assert len(await raw.rest()) < 64 * MIB, "half a log does not look whole"


async def test_a_client_that_reads_slowly_but_steadily_gets_it_all(
    place: Place, clock: LoopClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = 0

    def counted(wait: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        def begin(*arguments: Any) -> Awaitable[Any]:
            nonlocal waits
            waits += 1
            return wait(*arguments)

        return begin

    monkeypatch.setattr(Sender, "write", counted(Sender.write))
    monkeypatch.setattr(socket_relay, "_wait_ready", counted(socket_relay._wait_ready))
    await big(place)
    got = 0
    async with connect(place.gw, limit=2 * MIB) as raw:
        await raw.send(head_of("GET", "downloadEngineLog", place.query(), headers="Connection: close\r\n"))
        await raw.head()
        for _ in range(6):  # together longer than any one piece may take
            clock.forward(0.6 * place.gw.settings.client_seconds)
            before = waits
            while waits == before:
                data = await raw.reader.read(MIB)
                assert data
                got += len(data)
        got += len(await raw.rest())
    assert got == 64 * MIB


@pytest.mark.parametrize("place", ["live"], indirect=True)
async def test_a_download_among_too_many_goes_the_slower_way_and_is_whole(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_logs, "SOCKET_DOWNLOADS", 0)
    data = os.urandom(MIB) * 6
    await place.put(data)
    assert (await place.get()).raw == data


async def test_long_logs_come_whole_on_one_connection_and_leave_nothing_open(place: Place) -> None:
    data = os.urandom(MIB) * 12
    await place.put(data)
    before = len(os.listdir("/proc/self/fd"))
    async with connect(place.gw, limit=MIB) as raw:
        for asked, begin in (("", 0), ("", 0), ("Range: bytes=1000003-\r\n", 1_000_003), ("", 0)):
            await raw.send(head_of("GET", "downloadEngineLog", place.query(), headers=asked))
            status, headers = await raw.head()
            assert status == (206 if asked else 200)
            got = await raw.reader.readexactly(int(headers["content-length"]))
            assert got == data[begin:]
        await raw.send(head_of("GET", "getEngineStatus", {"engineId": place.engine["metadata"]["uid"]}))
        assert (await raw.head())[0] == 200
    for _ in range(5):
        async with connect(place.gw) as raw:
            await raw.send(head_of("GET", "downloadEngineLog", place.query()))
            await raw.head()
            raw.vanish()
    await asyncio.to_thread(until, lambda: len(os.listdir("/proc/self/fd")) <= before + 4)


# -- a live log grows, and drops its beginning ------------------------------------------------------------------------


def download_stdout(gw: Harness, engine: dict[str, Any], **headers: str) -> Awaitable[Answer]:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return gw.get("downloadEngineLog", gw.download_query(engine), headers=sent)


async def test_a_download_of_a_growing_log_has_the_size_at_its_start(
    gw: Harness, agent: AgentProcess, tmp_path: Path
) -> None:
    engine = engine_at(gw, agent)
    enough = tmp_path / "enough"
    code = (
        "import os, time\n"
        f"while not os.path.exists({str(enough)!r}):\n    print('x' * 1000); time.sleep(0.005)"
    )  # fmt: skip
    running = asyncio.create_task(gw.execute(engine, code))
    sizes: list[int] = []
    async with asyncio.timeout(PATIENCE):
        while len(set(sizes)) < 4 and not running.done():
            answer = await download_stdout(gw, engine)
            assert answer.http == 200
            assert len(answer.raw) == int(answer.headers["Content-Length"])
            assert answer.headers["ETag"].endswith(f'-{len(answer.raw)}"')
            sizes.append(len(answer.raw))
    enough.touch()
    assert (await running).data["status"] == "Succeed"
    assert sizes == sorted(sizes)
    assert sizes[-1] > sizes[0]


async def test_a_shortened_log_has_another_identity(gw: Harness, agent: AgentProcess) -> None:
    engine = engine_at(gw, agent)
    fill = "import os\nfor n in range(30): os.write(1, b'z' * 1023 * 1024 + b'\\n')"
    assert (await gw.execute(engine, fill)).data["status"] == "Succeed"
    before = await download_stdout(gw, engine)
    assert before.raw.startswith(b"[the first ")
    assert len(before.raw) < 20 * MIB
    same = await download_stdout(gw, engine, Range="bytes=5-99", If_Range=before.headers["ETag"])
    assert (same.http, same.raw) == (206, before.raw[5:100])
    assert (await gw.execute(engine, fill)).data["status"] == "Succeed"
    after = await download_stdout(gw, engine, Range="bytes=5-99", If_Range=before.headers["ETag"])
    assert after.http == 200
    assert after.raw.startswith(b"[the first ")
    assert after.headers["ETag"] != before.headers["ETag"]
    page = (await gw.get("getEngineLogs", {"engineId": engine["metadata"]["uid"], "lines": "1"})).data
    assert page["logs"] == [after.raw.partition(b"\n")[0].decode()]


async def test_an_archived_log_without_its_beginning_has_the_numbers_that_it_had(gw: Harness) -> None:
    engine = gw.engine(name=NAME, status={"engineState": "Success", "finishedTime": "2026-11-24T04:10:00Z"})
    uid = engine["metadata"]["uid"]
    head = b"[the first 70000 bytes, 500 lines, of this log were dropped: it keeps its last 8 MiB]\n"
    kept = b"".join(b"line %d\n" % n for n in range(501, 601))
    await gw.archive.put(uid, 0, "stdout", head + kept)
    for asked in ("0", "1", "499", "500"):
        page = (await gw.get("getEngineLogs", {"engineId": uid, "fromLine": asked, "lines": "2"})).data
        assert page["logs"] == [head.decode().strip(), "line 501"]
        assert page["endLine"] == 501
    page = (await gw.get("getEngineLogs", {"engineId": uid, "fromLine": "550", "lines": "2"})).data
    assert (page["logs"], page["endLine"]) == (["line 550", "line 551"], 551)
    followed = await gw.get("followEngineLog", {"engineId": uid, "fromByte": "70000"})
    assert (followed.raw, followed.headers["X-Log-Offset"]) == (kept, "70000")
    followed = await gw.get("followEngineLog", {"engineId": uid, "fromByte": "70009"})
    assert followed.raw == kept[9:]
    followed = await gw.get("followEngineLog", {"engineId": uid, "tailBytes": "9"})
    assert (followed.raw, followed.headers["X-Log-Offset"]) == (kept[-9:], str(70000 + len(kept) - 9))


async def test_a_log_that_code_has_renamed_is_not_called_unwritten(gw: Harness, agent: AgentProcess) -> None:
    engine = engine_at(gw, agent)
    query = {"engineId": engine["metadata"]["uid"], "logType": "stdout"}
    assert agent.execute(f"print('said'); import os; os.rename('{agent.log_dir}/stdout', '{agent.log_dir}/mine')")
    try:
        answers = [
            await gw.get("getEngineLogs", query),
            await gw.get("downloadEngineLog", gw.download_query(engine, "stdout")),
            await gw.get("followEngineLog", query),
        ]
    finally:
        (agent.log_dir / "mine").rename(agent.log_dir / "stdout")
    for answer in answers:
        assert answer.http == 400
        assert "or code of the engine has renamed or removed it" in answer.message
