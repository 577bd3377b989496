"""Which engine an id names, live or past, and who may use it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from linkis_ecm.gateway.auth.base import Caller, Reach
from linkis_ecm.gateway.http.errors import Refused, forbidden
from linkis_ecm.gateway.inventory.cache import EngineCache
from linkis_ecm.gateway.inventory.history import History
from linkis_ecm.gateway.inventory.info import info_of
from linkis_ecm.gateway.inventory.lookup import EngineLookup, may_use, require_owner, require_use
from linkis_ecm.gateway.inventory.view import KnownEngine, engine_of_record, view_of
from linkis_ecm.kube.errors import Unreachable
from tools.testkit.gateway.harness import EM, FakeCluster, engine_item

TICKET = "0c6f0d3e-6a0b-4f4e-9a51-3c8f3c0c9a11"


def record(**changes: Any) -> KnownEngine:
    values: dict[str, Any] = {
        "ticket_id": TICKET, "label_value": "alice-IDE,python-3.11", "user": "alice", "service_instance": "gone:9105",
        "ecm_instance": EM, "status": "Idle", "log_dir_suffix": "alice/x/logs",
        "create_time": datetime(2026, 11, 24, 4, tzinfo=UTC).replace(tzinfo=None),  # as the store has it
        "used_time": datetime(2026, 11, 24, 5, tzinfo=UTC), "release_time": None,
    }  # fmt: skip
    return engine_of_record(**values | changes)


class Place:
    """A lookup over a cluster in memory and one record."""

    def __init__(self) -> None:
        self.cluster = FakeCluster(EngineCache())
        self.record: KnownEngine | None = None
        self.history = History(lambda _: self.record)
        self.lookup = EngineLookup(self.cluster.cache, self.history, self.cluster)


@pytest.fixture
def place() -> Iterator[Place]:
    place = Place()
    yield place
    place.history.close()


async def test_the_watch_answers_before_the_database(place: Place) -> None:
    item = place.cluster.put(engine_item())
    place.record = record()
    found = await place.lookup.find_fresh(item["metadata"]["uid"])
    assert found is not None
    assert (found.in_cluster, found.title) == (True, "engine linkis/python-alice-abc123")


async def test_an_id_that_nobody_knows_is_none(place: Place) -> None:
    assert await place.lookup.find_fresh("nobody:1") is None


@pytest.mark.parametrize("there", [True, False])
async def test_an_open_record_without_an_engine_in_the_watch_is_looked_up_at_the_api_server(
    place: Place, there: bool
) -> None:
    item = engine_item()
    place.record = record(namespace="linkis", name=item["metadata"]["name"], uid=item["metadata"]["uid"])
    if there:
        place.cluster.items["linkis", item["metadata"]["name"]] = item
    found = await place.lookup.find_fresh(TICKET)
    assert found is not None
    assert found.in_cluster == there
    assert (await place.lookup.find(TICKET)) == place.record, "find itself asks the API server nothing"


async def test_another_engine_of_the_same_name_is_not_taken_for_the_recorded_one(place: Place) -> None:
    item = place.cluster.items["linkis", "python-alice-abc123"] = engine_item()
    place.record = record(namespace="linkis", name=item["metadata"]["name"], uid="another")
    assert await place.lookup.find_fresh(TICKET) == place.record


async def test_an_open_record_is_no_answer_while_the_api_server_is_down(place: Place) -> None:
    place.record = record(namespace="linkis", name="x", uid="u")
    place.cluster.fail["get"] = Unreachable("gone")
    with pytest.raises(Refused, match="the API server does not answer: try again"):
        await place.lookup.find_fresh(TICKET)


async def test_the_current_engine_is_the_api_servers_or_else_as_it_was(place: Place) -> None:
    item = engine_item()
    before = view_of(item | {"status": {"engineState": "Starting"}})
    place.cluster.items["linkis", item["metadata"]["name"]] = item
    assert (await place.lookup.current(before)).status == "Idle"
    place.cluster.fail["get"] = Unreachable("gone")
    assert await place.lookup.current(before) == before


def test_a_record_and_a_resource_of_one_engine_look_alike_to_callers() -> None:
    item = engine_item(spec={"ticketId": TICKET})
    now = datetime(2026, 11, 24, 6, tzinfo=UTC)
    live, past = info_of(view_of(item), now), info_of(record(), now)
    same = ("engine_id", "engine_type", "engine_version", "user", "creator", "label_value", "status", "ecm_instance")
    assert [getattr(live, name) for name in same] == [getattr(past, name) for name in same]
    assert (past.create_time, past.ready_time, past.finished_time) == (
        "2026-11-24T04:00:00Z", "2026-11-24T05:00:00Z", None,
    )  # fmt: skip
    assert (past.namespace, past.name, past.available, past.startup) == (None, None, False, {})


@pytest.mark.parametrize(
    ("changes", "final"),
    [
        ({}, False),
        ({"status": "Success"}, True),
        ({"status": "ShuttingDown"}, True),
        ({"status": ""}, False),
        ({"release_time": datetime(2026, 11, 24, 6, tzinfo=UTC)}, True),
    ],
)
def test_a_record_is_final_by_its_status_or_its_release(changes: dict[str, Any], final: bool) -> None:
    engine = record(**changes)
    assert (engine.is_final, engine.takes_code) == (final, False)
    assert engine.title == f"engine {TICKET}"


def test_a_resource_that_shuts_down_is_not_final() -> None:
    assert not view_of(engine_item(status={"engineState": "ShuttingDown"})).is_final


@pytest.mark.parametrize(
    ("caller", "exact"),
    [
        (Caller("alice"), True),
        (Caller("Alice"), False),
        (Caller("bob"), False),
        (Caller("root", is_admin=True), True),
    ],
)
def test_owners_and_admins_may_and_case_matters(caller: Caller, exact: bool) -> None:
    assert may_use(caller, "alice", "linkis") == exact
    refusal = forbidden("not yours")
    if exact:
        require_owner(caller, "alice", "linkis", refusal)
        require_use(caller, record(), "some-engine")
    else:
        with pytest.raises(Refused) as raised:
            require_owner(caller, "alice", "linkis", refusal)
        assert raised.value is refusal
        with pytest.raises(Refused, match=f"belongs to another user than {caller.user}: call as its owner") as raised:
            require_use(caller, record(), "some-engine")
        assert raised.value.status == 3
        assert "your lock may have ended: ask for an engine again (askEngineConn)" in str(raised.value)


@pytest.mark.parametrize(
    ("caller", "here", "there", "nowhere"),
    [
        (Caller("alice", reach=Reach(frozenset({"here"}))), True, False, True),
        (Caller("alice", reach=Reach(frozenset({""}))), True, True, True),
        (Caller("alice", reach=Reach(frozenset())), False, False, True),
        (Caller("bob", reach=Reach(frozenset({"here", "there"}), frozenset({"here"}))), True, False, False),
        (Caller("bob", reach=Reach(frozenset({""}), frozenset({""}))), True, True, True),
        (Caller("bob", True, reach=Reach(frozenset({""}), frozenset({""}))), True, True, True),
    ],
)
def test_a_login_counts_in_its_namespaces(caller: Caller, here: bool, there: bool, nowhere: bool) -> None:
    assert [may_use(caller, "alice", name) for name in ("here", "there", "")] == [here, there, nowhere]
