"""whoAmI, watchEngines, getOverview, listEnginePlugins, and tokens that may only look."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from linkis_ecm.gateway.auth.base import Caller, Reach
from linkis_ecm.gateway.auth.tokens import TokenFile
from linkis_ecm.gateway.inventory import changes as changes_module
from linkis_ecm.gateway.inventory import trends as trends_module
from linkis_ecm.gateway.inventory.cache import EngineCache, PluginCache
from linkis_ecm.gateway.inventory.changes import EngineChanges
from linkis_ecm.gateway.inventory.trends import SAMPLES, USERS_MAX, Trends
from linkis_ecm.gateway.inventory.view import view_of
from linkis_ecm.gateway.methods import watch
from linkis_ecm.gateway.routes import METHODS
from tools.testkit.gateway.harness import BASE, BOB_TOKEN, TOKEN, Harness, engine_item

LOOKER = "LINKIS-LOOKER-0123456789"


@dataclass
class Viewer:
    """What a reader of watchEngines knows, by the rules that a console follows."""

    content: aiohttp.StreamReader
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    ended: bool = False

    async def event(self) -> dict[str, Any]:
        """The next event, taken over; comments are left out."""
        name = ""
        while True:
            line = (await self.content.readline()).decode().rstrip("\n")
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                data: dict[str, Any] = json.loads(line[6:])
                if name == "end":
                    self.ended = True
                    return data
                if data["reset"]:
                    self.rows.clear()
                for namespace, engine in data["gone"]:
                    del self.rows[f"{namespace}/{engine}"]
                self.rows |= {f"{row['namespace']}/{row['name']}": row for row in data["rows"]}
                self.events.append(data)
                return data

    async def until_live(self) -> dict[str, Any]:
        while not (event := await self.event())["live"]:
            pass
        return event


@asynccontextmanager
async def viewer(gw: Harness, user: str = "alice", token: str = TOKEN) -> AsyncIterator[Viewer]:
    headers = {"Token-Code": token, "Token-User": user}
    async with gw.session.get(f"{gw.url}{BASE}/watchEngines", headers=headers) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert answer.headers["X-Accel-Buffering"] == "no"
        yield Viewer(answer.content)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "COLLECT_SECONDS", 0.05)


async def test_a_viewer_gets_the_own_engines_and_each_change_of_them(gw: Harness) -> None:
    gw.engine(name="mine")
    gw.engine(name="bobs", spec={"user": "bob"})
    async with viewer(gw) as seen:
        first = await seen.until_live()
        assert first["reset"] is True
        assert list(seen.rows) == ["linkis/mine"]
        row = seen.rows["linkis/mine"]
        assert (row["status"], row["user"], row["engineType"], row["cpuMilli"]) == ("Idle", "alice", "python", 500)
        assert row["readyMillis"] == 1250
        gw.engine(name="bobs", spec={"user": "bob"}, status={"engineState": "Busy"})
        item = gw.engine(name="mine", status={"engineState": "Busy"})
        await seen.event()
        assert seen.rows["linkis/mine"]["status"] == "Busy"
        assert len(seen.rows) == 1, "nothing of others is sent, not even that something changed"
        gw.cluster.drop(item)
        assert (await seen.event())["gone"] == [["linkis", "mine"]]


async def test_an_engine_that_is_made_anew_for_another_user_is_gone(gw: Harness) -> None:
    gw.engine(name="same")
    async with viewer(gw) as seen:
        await seen.until_live()
        gw.engine(name="same", uid="other", spec={"user": "bob"})
        assert (await seen.event())["gone"] == [["linkis", "same"]]


async def test_ten_changes_in_a_moment_are_one_event_with_the_last_state(gw: Harness) -> None:
    async with viewer(gw, "root") as seen:
        assert await seen.until_live() == {"reset": True, "live": True, "gone": [], "rows": []}
        for number in range(10):
            for name in ("a", "b"):
                gw.engine(name=name, status={"engineState": "Busy" if number % 2 else "Idle"})
        event = await seen.event()
        assert sorted(row["name"] for row in event["rows"]) == ["a", "b"]
        assert {row["status"] for row in event["rows"]} == {"Busy"}


async def test_a_thousand_engines_come_in_parts_and_the_last_part_says_so(gw: Harness) -> None:
    for number in range(1000):
        gw.engine(name=f"python-alice-{number}")
    async with viewer(gw) as seen:
        await seen.until_live()
        assert len(seen.rows) == 1000
        parts = len(seen.events)
        assert parts > 4
        assert [event["live"] for event in seen.events] == [False] * (parts - 1) + [True]
        assert [event["reset"] for event in seen.events] == [True] + [False] * (parts - 1)


async def test_a_viewer_who_fell_behind_reads_the_list_anew(gw: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes_module, "REMOVED_MAX", 2)
    gw.engine(name="stays")
    async with viewer(gw) as seen:
        await seen.until_live()
        for number in range(5):
            gw.cluster.drop(gw.engine(name=f"short-{number}"))
        assert (await seen.event())["reset"] is True
        assert list(seen.rows) == ["linkis/stays"]


async def test_a_gateway_that_stops_ends_the_streams_at_once(make: Any) -> None:
    gw = await make(shutdown_seconds=60.0)
    async with viewer(gw) as seen:
        await seen.until_live()
        # Its calls under way would have 60 s.
        stopping = asyncio.create_task(gw.runner.cleanup())
        async with asyncio.timeout(30):
            await seen.event()
            assert seen.ended
            await stopping


async def test_a_quiet_stream_has_comments(gw: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "QUIET_SECONDS", 0.05)
    async with viewer(gw) as seen:
        await seen.until_live()
        assert await seen.content.readline() == b"\n", "the end of the event before"
        assert await seen.content.readline() == b":\n"


async def test_a_line_is_made_once_for_all_viewers() -> None:
    engines = EngineCache()
    changes = EngineChanges(engines, PluginCache())
    view = view_of(engine_item())
    engines.on_event("ADDED", view)
    assert changes.line(view) is changes.line(view)
    later = view_of(engine_item(status={"engineState": "Busy"}))
    engines.on_event("MODIFIED", later)
    assert json.loads(changes.line(later))["status"] == "Busy"
    changes.line(view)  # an old view is not kept
    assert json.loads(changes.line(later))["status"] == "Busy"


async def test_who_am_i(gw: Harness) -> None:
    me = (await gw.get("whoAmI")).data
    assert me == {
        "user": "alice", "admin": False, "readOnly": False, "namespaces": None, "adminNamespaces": [],
        "engineNamespaces": ["linkis"], "ecmInstance": gw.settings.instance, "archive": True, "records": False,
        "groups": None,
    }  # fmt: skip
    assert (await gw.get("whoAmI", user="root")).data["admin"] is True
    assert (await gw.get("whoAmI", token="LINKIS-WRONG-0123456789")).http == 401


async def test_who_am_i_of_a_login_of_some_namespaces(make: Any) -> None:
    class Fixed:
        async def authenticate(self, _: Any) -> Caller:
            return Caller("carol", reach=Reach(frozenset({"b", "a"}), frozenset({"b"})))

    gw = await make(authenticator=Fixed())
    me = (await gw.get("whoAmI")).data
    assert (me["namespaces"], me["adminNamespaces"]) == (["a", "b"], ["b"])


async def test_the_overview_has_ones_own_curve_and_an_admins_everybodys(gw: Harness) -> None:
    gw.engine(name="mine")
    gw.engine(name="bobs", spec={"user": "bob"}, status={"engineState": "Failed"})
    gw.gateway.trends.sample()
    own = (await gw.get("getOverview")).data
    assert own["scope"] == "own"
    assert own["callsInFlight"] is None
    assert {state: counts[-1] for state, counts in own["trend"]["states"].items()} == {"Idle": 1}
    every = (await gw.get("getOverview", user="root")).data
    assert every["scope"] == "everybody"
    assert {state: counts[-1] for state, counts in every["trend"]["states"].items()} == {"Idle": 1, "Failed": 1}
    assert every["trend"]["failed"][-1] == 1
    assert (await gw.get("getOverview", user="nobody-here")).data["trend"]["at"] == []


async def test_the_hour_is_bounded_in_samples_and_in_users() -> None:
    engines = EngineCache()
    engines.synced = True
    trends = Trends(engines, lambda: datetime(2026, 11, 27, tzinfo=UTC))
    for number in range(USERS_MAX + 20):
        engines.on_event("ADDED", view_of(engine_item(name=f"e-{number}", spec={"user": f"u{number}"})))
    for _ in range(SAMPLES + 5):
        trends.sample()
    assert len(trends.of(None)) == SAMPLES
    assert sum(bool(trends.of(f"u{number}")) for number in range(USERS_MAX + 20)) == USERS_MAX
    assert sum(trends.of(None)[0].states) == USERS_MAX + 20


async def test_a_start_and_a_failure_are_counted_once() -> None:
    engines = EngineCache()
    trends = Trends(engines, lambda: datetime(2026, 11, 27, tzinfo=UTC))
    engines.on_event("ADDED", view_of(engine_item(name="old", status={"readyTime": "2026-11-24T04:00:01Z"})))
    engines.synced = True
    for state, ready in (("Starting", None), ("Idle", "2026-11-24T04:00:01Z"), ("Busy", "2026-11-24T04:00:01Z")):
        engines.on_event("MODIFIED", view_of(engine_item(status={"engineState": state, "readyTime": ready})))
    trends.sample()
    engines.on_event("MODIFIED", view_of(engine_item(status={"engineState": "Failed"})))
    engines.on_event("MODIFIED", view_of(engine_item(status={"engineState": "Failed", "message": "later"})))
    trends.sample()
    trends.sample()
    assert [(s.ready, s.failed, s.start_millis) for s in trends.of("alice")] == [(1, 0, 1250), (0, 1, 0), (0, 0, 0)]


async def test_the_catalogue(gw: Harness) -> None:
    assert (await gw.get("listEnginePlugins")).data["plugins"] == [
        {
            "name": "python-3.11", "engineType": "python", "engineVersion": "3.11", "default": True,
            "runTypes": ["python", "py"], "cpuMilli": 500, "memoryBytes": 1 << 30,
            "share": "user", "shareGroups": [], "shareLocks": None,
        }
    ]  # fmt: skip


async def test_a_token_that_may_only_look_changes_nothing(make: Any, tmp_path: Path) -> None:
    tokens = tmp_path / "looker.json"
    tokens.write_text(json.dumps({LOOKER: {"users": ["*"], "readOnly": True}, TOKEN: {"users": ["*"]}}))
    gw = await make(authenticator=TokenFile(str(tokens), admins=frozenset({"root"})))
    engine = gw.engine()
    me = (await gw.get("whoAmI", token=LOOKER)).data
    assert me["readOnly"] is True
    for method in METHODS:
        if not method.changes or method.by_engine:
            continue
        path = re.sub("{.*}", "x", method.path)
        answer = await gw.call(method.verb, path, token=LOOKER, user="root", json={})
        assert answer.http == 403, method.name
        assert "may only look here" in answer.message, method.name
    assert gw.cluster.writes == []
    assert (await gw.get("getEngineStatus", {"engineId": engine["metadata"]["uid"]}, token=LOOKER)).http == 200
    assert (await gw.get("listEngines", token=LOOKER)).data["total"] == 1
    listed = await gw.call("POST", "/api/rest_j/v1/linkisManager/rm/userresources", token=LOOKER, json={})
    assert listed.http == 200
    assert (await gw.get("whoAmI", token=BOB_TOKEN)).http == 401


async def test_a_read_only_that_is_no_boolean_closes_the_gateway(make: Any, tmp_path: Path) -> None:
    tokens = tmp_path / "broken.json"
    tokens.write_text(json.dumps({TOKEN: {"users": ["*"], "readOnly": "yes"}}))
    gw = await make(authenticator=TokenFile(str(tokens)))
    answer = await gw.get("whoAmI")
    assert answer.http == 401
    assert "readOnly that is neither true nor false" in answer.message


async def test_a_thousand_changes_a_second_cost_a_viewer_little(gw: Harness) -> None:
    """The work of one viewer for one collected second, in which each of 1000 engines changed."""
    for number in range(1000):
        gw.engine(name=f"python-alice-{number}")
    async with viewer(gw) as seen:
        await seen.until_live()
        for number in range(1000):
            gw.engine(name=f"python-alice-{number}", status={"engineState": "Busy"})
        rows = 0
        async with asyncio.timeout(30):
            while rows < 1000:
                rows += len((await seen.event())["rows"])
        assert {row["status"] for row in seen.rows.values()} == {"Busy"}


@dataclass
class Past:
    """The two tables that listTransitions asks: a record's owner, and its states."""

    uid: str
    fails: bool = False

    def record_by_ticket(self, ticket: str) -> Any:
        if self.fails:
            raise OSError("the database is away")
        return SimpleNamespace(ticket_id=ticket, create_user="alice")

    def engine(self, _: str) -> Any:
        return SimpleNamespace(uid=self.uid, namespace="linkis")

    def transitions(self, _: str) -> list[Any]:
        at = datetime(2026, 11, 24, 4, tzinfo=UTC)
        return [
            SimpleNamespace(state="Starting", at=at, reason="Accepted", message=""),
            SimpleNamespace(state="Idle", at=at + timedelta(seconds=2), reason="KernelReady", message="It is there."),
        ]


async def test_transitions_are_the_databases(make: Any) -> None:
    item = engine_item()
    gw = await make(database={"records": Past(item["metadata"]["uid"])})
    gw.engine()
    found = (await gw.get("listTransitions", {"engineId": "linkis/python-alice-abc123"})).data
    assert found["complete"] is True
    assert [(one["state"], one["at"], one["reason"]) for one in found["transitions"]] == [
        ("Starting", "2026-11-24T04:00:00.000000Z", "Accepted"),
        ("Idle", "2026-11-24T04:00:02.000000Z", "KernelReady"),
    ]
    assert (await gw.get("listTransitions", {"engineId": "linkis/python-alice-abc123"}, user="bob")).http == 403


@pytest.mark.parametrize("past", [None, Past("another engine's"), Past("x", fails=True)])
async def test_without_the_database_transitions_are_what_the_resource_tells(make: Any, past: Any) -> None:
    gw = await make(database={"records": past})
    ready, since = "2026-11-24T04:00:01.250000Z", "2026-11-24T05:00:00.000000Z"
    gw.engine(status={"engineState": "Failed", "readyTime": ready, "stateSince": since, "reason": "OutOfMemory"})
    found = (await gw.get("listTransitions", {"engineId": "linkis/python-alice-abc123"})).data
    assert found["complete"] is False
    assert [(one["state"], one["at"]) for one in found["transitions"]] == [
        ("Starting", "2026-11-24T04:00:00.000000Z"), ("Idle", ready), ("Failed", since),
    ]  # fmt: skip
    assert found["transitions"][-1]["reason"] == "OutOfMemory"
    gw.engine(status={"readyTime": ready, "stateSince": ready})
    found = (await gw.get("listTransitions", {"engineId": "linkis/python-alice-abc123"})).data
    assert [(one["state"], one["reason"]) for one in found["transitions"]] == [
        ("Starting", ""),
        ("Idle", "KernelReady"),
    ]


class ByName:
    """Logs everybody in: `lead` as an admin of namespace a, who may enter b; others may enter a."""

    async def authenticate(self, request: Any) -> Caller:
        user = request.headers["Token-User"]
        if user == "lead":
            return Caller(user, reach=Reach(frozenset({"a", "b"}), frozenset({"a"})))
        return Caller(user, reach=Reach(frozenset({"a"})))


async def overview(gw: Harness, user: str) -> tuple[str, str, int]:
    """Scope, word for the curve, and engines of the newest sample."""
    found = (await gw.get("getOverview", user=user)).data
    return found["scope"], found["curve"], sum(counts[-1] for counts in found["trend"]["states"].values())


async def test_the_overview_counts_what_lists_have(make: Any) -> None:
    gw = await make(authenticator=ByName())
    for name, namespace, user in (
        ("1", "a", "alice"), ("2", "a", "bob"), ("3", "b", "alice"), ("4", "b", "lead"), ("5", "c", "lead"),
    ):  # fmt: skip
        gw.engine(name=name, spec={"user": user}, metadata={"namespace": namespace})
    gw.gateway.trends.sample()
    for user, scope in (("alice", "own"), ("lead", "namespaces")):
        total = (await gw.get("listEngines", user=user)).data["total"]
        assert await overview(gw, user) == (scope, "kept", total)
    assert (await gw.get("listEngines", user="alice")).data["total"] == 1
    assert (await gw.get("listEngines", user="lead")).data["total"] == 3


async def test_who_sees_others_figures_is_in_the_audit_log(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="linkis_ecm.audit")
    gw = await make(authenticator=ByName())
    for user in ("alice", "lead"):
        await gw.get("getOverview", user=user)
    lines = [json.loads(one.getMessage()) for one in caplog.records if one.name == "linkis_ecm.audit"]
    assert [(one["user"], one["others"]) for one in lines] == [("lead", True)]


async def test_no_curve_is_told_from_none_yet(gw: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trends_module, "USERS_MAX", 1)
    gw.gateway.trends._all.samples.clear()
    assert (await overview(gw, "alice"))[1] == "notYet", "the gateway has just begun"
    gw.engine(name="first")
    gw.gateway.trends.sample()
    assert await overview(gw, "alice") == ("own", "kept", 1)
    assert (await overview(gw, "carol"))[1] == "noEngines"
    monkeypatch.setattr(trends_module, "USERS_MAX", 2)
    gw.engine(name="second", spec={"user": "dave"})
    assert (await overview(gw, "dave"))[1] == "notYet", "the next sample has it"
    monkeypatch.setattr(trends_module, "USERS_MAX", 1)
    gw.engine(name="third", spec={"user": "erin"})
    assert (await overview(gw, "dave"))[1] == "notKept"
