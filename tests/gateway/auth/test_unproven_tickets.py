"""A ticket that only the author of an EngineConn has written names no row, and leads nobody to another's engine."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import pytest

from linkis_ecm.gateway.inventory.cache import EngineCache
from linkis_ecm.gateway.inventory.view import view_of
from tools.testkit.gateway.harness import BASE, TOKEN, Harness, engine_item

VICTIM = engine_item(name="alices", metadata={"creationTimestamp": "2026-11-24T05:00:00Z"})
TICKET = VICTIM["metadata"]["uid"]
REFUSED = engine_item(
    name="refused",
    spec={"user": "mallory", "ticketId": TICKET},
    status={"engineState": "Failed", "reason": "InvalidSpec", "serviceInstance": None, "address": None},
)
NEW = engine_item(
    name="new",
    spec={"user": "mallory", "ticketId": TICKET},
    status={"engineState": None, "startup": None, "serviceInstance": None, "address": None, "reason": None},
)
LINKIS = "/api/rest_j/v1/linkisManager"


async def rows_of(gw: Harness) -> list[dict[str, Any]]:
    headers = {"Token-Code": TOKEN, "Token-User": "root"}
    async with gw.session.get(f"{gw.url}{BASE}/watchEngines", headers=headers) as answer:
        event = await answer.content.readuntil(b"\n\n")
    rows: list[dict[str, Any]] = json.loads(event.partition(b"data: ")[2])["rows"]
    return rows


@pytest.mark.parametrize("stranger", [REFUSED, NEW], ids=["refused", "not looked at yet"])
async def test_each_id_of_a_list_leads_to_the_engine_of_its_row(gw: Harness, stranger: dict[str, Any]) -> None:
    for item in (stranger, VICTIM):
        gw.cluster.put(item)
    name = stranger["metadata"]["name"]
    rows = await rows_of(gw)
    listed = (await gw.get("listEngines", user="root")).data["engines"]
    for found in (rows, listed):
        ids = {one["name"]: (one["engineId"], one["ticketId"]) for one in found}
        assert ids == {"alices": (TICKET, TICKET), name: (f"linkis/{name}", "")}
        for one in found:
            assert (await gw.get("getEngineStatus", {"engineId": one["engineId"]}, user="root")).data["name"] == one[
                "name"
            ]
    assert {row["name"]: row["uid"] for row in rows} == {"alices": TICKET, name: stranger["metadata"]["uid"]}
    assert TICKET not in json.dumps([row for row in rows if row["name"] == name])


@pytest.mark.parametrize("stranger", [REFUSED, NEW], ids=["refused", "not looked at yet"])
async def test_linkis_lists_do_not_name_a_strangers_engine_by_it_either(gw: Harness, stranger: dict[str, Any]) -> None:
    gw.cluster.put(stranger)
    for verb, path, body, user in (
        ("GET", "listUserEngines", None, "mallory"),
        ("POST", "listEMEngines", {"em": {"serviceInstance": {"instance": gw.settings.instance}}}, "root"),
        ("POST", "ecinfo/ecList", {}, "root"),
    ):
        answer = await gw.call(verb, f"{LINKIS}/{path}", user=user, json=body)
        assert answer.http == 200, answer.raw
        assert TICKET not in answer.raw.decode(), path


async def test_whoever_made_it_by_a_ticket_is_answered_by_that_ticket(gw: Harness) -> None:
    ticket = "0f0e3f6e-6f3f-4d3b-9a55-1c5a0c2f7a11"
    made = (await gw.post("createEngineConnection", {"engineType": "python", "ticketId": ticket, "wait": False})).data
    assert (made["engineId"], made["ticketId"]) == (ticket, ticket)
    assert (await gw.get("getEngineStatus", {"engineId": ticket})).data["engineId"] == ticket
    (listed,) = (await gw.get("listEngines")).data["engines"]
    assert listed["engineId"] == f"linkis/{made['name']}"


@pytest.mark.parametrize("order", list(permutations([VICTIM, REFUSED, NEW])))
def test_in_whatever_order_a_gateway_learns_of_them_a_ticket_is_the_accepted_engines(order: Any) -> None:
    cache = EngineCache()
    for item in order:
        cache.on_event("ADDED", view_of(item))
    found = cache.resolve(TICKET)
    assert found is not None
    assert found.name == "alices"


def test_a_uid_is_its_own_engines_whatever_ticket_another_one_has() -> None:
    cache = EngineCache()
    mine = engine_item(name="mine", spec={"ticketId": "0f0e3f6e-6f3f-4d3b-9a55-1c5a0c2f7a11"})
    uid = mine["metadata"]["uid"]
    # Older, and the operator has taken it: its ticket is nobody else's ticket.
    other = engine_item(name="other", spec={"ticketId": uid}, metadata={"creationTimestamp": "2026-11-01T00:00:00Z"})
    for item in (other, mine):
        cache.on_event("ADDED", view_of(item))
    found = cache.resolve(uid)
    assert found is not None
    assert found.name == "mine"
    assert cache.resolve("linkis/other") is not None
    cache.on_event("DELETED", view_of(mine))
    found = cache.resolve(uid)
    assert found is not None
    assert found.name == "other"
