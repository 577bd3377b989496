"""A Kubernetes login counts in the namespaces where RBAC says so: for each method, and in each list."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from linkis_ecm.gateway.auth.base import Caller, Reach
from linkis_ecm.gateway.auth.kubernetes import CALLS_AT_ONCE, KubernetesAuthenticator
from linkis_ecm.gateway.http.errors import Refused
from linkis_ecm.gateway.main import finder
from linkis_ecm.gateway.routes import METHODS
from linkis_ecm.kube.errors import ServerError
from linkis_ecm.store import schema
from linkis_ecm.store.linkis import record
from linkis_ecm.store.queries import Queries
from tests.gateway.engines.test_linkis import LABELS, LINKIS, becomes_ready, row
from tools.testkit.gateway.callers import Sent
from tools.testkit.gateway.harness import BASE, EM, Answer, Harness
from tools.testkit.gateway.replicas import NOW
from tools.testkit.gateway.stores import database_in

Make = Callable[..., Awaitable[Harness]]
NAMESPACES = ("linkis", "team-b")


class Rbac:
    """The API server's reviews: a token is its user's name; rights are (user, verb, namespace)."""

    def __init__(self, *rights: tuple[str, str, str]) -> None:
        self.rights = set(rights)
        self.asked: list[str] = []
        self.fail_in: str | None = None
        self.at_once = self.most_at_once = 0

    async def create(self, resource: Any, body: dict[str, Any], *, namespace: str | None = None) -> dict[str, Any]:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        spec = body["spec"]
        if resource.kind == "TokenReview":
            self.asked.append("token")
            return {"status": {"authenticated": True, "user": {"username": spec["token"]}}}
        asked = spec["resourceAttributes"]
        self.asked.append(f"{asked['verb']} in {asked['namespace'] or 'all'}")
        if self.fail_in == asked["namespace"]:
            raise ServerError(500, "InternalError", "down")
        found = {(spec["user"], asked["verb"], name) for name in ("", asked["namespace"])}
        return {"status": {"allowed": bool(found & self.rights)}}


ALICE_HERE = ("alice", "create", "linkis")
ALICE_THERE = ("alice", "create", "team-b")
CHIEF = (("chief", "create", "linkis"), ("chief", "create", "team-b"), ("chief", "impersonate", "team-b"))


def login(rbac: Rbac, *namespaces: str) -> KubernetesAuthenticator:
    return KubernetesAuthenticator(rbac, namespaces=namespaces or NAMESPACES)


async def caller_of(authenticator: KubernetesAuthenticator, user: str) -> Caller:
    return await authenticator.authenticate(Sent({"Authorization": f"Bearer {user}"}))


async def call(gw: Harness, verb: str, path: str, user: str = "alice", **more: Any) -> Answer:
    at = path if path.startswith("/") else f"{BASE}/{path}"
    return await gw.call(verb, at, user=None, token=None, headers={"Authorization": f"Bearer {user}"}, **more)


async def start(make: Make, rbac: Rbac, **more: Any) -> Harness:
    return await make(watch_namespaces=NAMESPACES, authenticator=login(rbac), **more)


async def test_a_login_is_good_where_rbac_says_so_and_an_admin_is_one_there() -> None:
    rbac = Rbac(ALICE_THERE, *CHIEF, ("root", "create", ""), ("root", "impersonate", ""))
    alice = await caller_of(login(rbac), "alice")
    assert (alice.is_admin, alice.reach) == (False, Reach(frozenset({"team-b"})))
    assert rbac.asked == ["token", "create in linkis", "create in team-b", "impersonate in team-b"]
    chief = await caller_of(login(rbac), "chief")
    assert (chief.is_admin, chief.reach) == (False, Reach(frozenset(NAMESPACES), frozenset({"team-b"})))
    root = await caller_of(login(rbac), "root")
    assert (root.is_admin, root.reach) == (True, Reach(frozenset(NAMESPACES), frozenset(NAMESPACES)))


async def test_who_may_use_none_of_the_namespaces_is_refused_with_their_names() -> None:
    with pytest.raises(Refused, match="engineconns in any of the namespaces linkis, team-b: ask for a Role"):
        await caller_of(login(Rbac(("alice", "create", "elsewhere"))), "alice")
    many = [f"n{number}" for number in range(100)]
    with pytest.raises(Refused, match="n0, n1, n2, n3, n4 or 95 more: ask"):
        await caller_of(login(Rbac(), *many), "alice")


async def test_where_every_namespace_is_served_a_binding_in_the_first_one_counts_there_alone() -> None:
    rbac = Rbac(ALICE_HERE, ("alice", "impersonate", "linkis"), ("root", "create", ""), ("root", "impersonate", ""))
    alice = await caller_of(login(rbac, "linkis", ""), "alice")
    assert (alice.is_admin, alice.may_enter("linkis"), alice.is_admin_in("linkis")) == (False, True, True)
    assert not alice.may_enter("team-b")
    root = await caller_of(login(rbac, "linkis", ""), "root")
    assert (root.is_admin, root.may_enter("team-b"), root.is_admin_in("team-b")) == (True, True, True)


async def test_an_answer_that_is_missing_for_one_namespace_lets_nobody_in_and_is_not_kept() -> None:
    rbac = Rbac(ALICE_HERE, ALICE_THERE)
    authenticator = login(rbac)
    rbac.fail_in = "team-b"
    with pytest.raises(Refused) as refusal:
        await caller_of(authenticator, "alice")
    assert refusal.value.http == 503
    rbac.fail_in = None
    assert (await caller_of(authenticator, "alice")).may_enter("team-b")


async def test_many_namespaces_and_users_are_asked_for_a_few_at_a_time_and_once() -> None:
    rbac = Rbac(*((f"u{number}", "create", "") for number in range(20)))
    authenticator = login(rbac, *(f"n{number}" for number in range(50)))
    for _ in range(2):
        await asyncio.gather(*(caller_of(authenticator, f"u{number}") for number in range(20)))
    assert rbac.most_at_once == CALLS_AT_ONCE
    assert len(rbac.asked) == 20 * (1 + 50 + 50)


async def test_engines_are_made_where_the_caller_may_make_them(make: Make) -> None:
    rbac = Rbac(ALICE_HERE, ("tom", "create", "team-b"), *CHIEF)
    gw = await start(make, rbac)
    becomes_ready(gw)
    body = {"engineType": "python"}
    refused = await call(gw, "POST", "createEngineConnection", json=body | {"namespace": "team-b"})
    assert refused.http == 400
    assert refused.message == "namespace is 'team-b': engines of this gateway go to linkis"
    assert not gw.cluster.writes
    assert (await call(gw, "POST", "createEngineConnection", json=body)).data["namespace"] == "linkis"
    # Without a name the first that is his, so that Linkis's clients, which know no namespaces, can call.
    assert (await call(gw, "POST", "createEngineConnection", "tom", json=body)).data["namespace"] == "team-b"
    # In another's name only where RBAC lets the caller impersonate.
    for namespace, http in (("linkis", 403), ("team-b", 200)):
        request = body | {"namespace": namespace, "user": "alice"}
        assert (await call(gw, "POST", "createEngineConnection", "chief", json=request)).http == http, namespace


async def test_an_engine_of_another_namespace_is_none_for_its_own_user(make: Make) -> None:
    """Each method that names an engine: as for an id that nobody knows, and nothing is written."""
    gw = await start(make, Rbac(ALICE_HERE))
    engine = gw.engine(name="python-alice-far", metadata={"namespace": "team-b"})
    ids = {"engineId": engine["metadata"]["uid"]}
    code = ids | {"code": "1", "runType": "python"}
    task = ids | {"taskId": "00000000-0000-0000-0000-000000000000"}
    instance = {"instance": engine["status"]["serviceInstance"]}
    operation = instance | {"parameters": {"__operator_name__": "engineConnLog", "logType": "stdout"}}
    ecm = {"instance": EM, "parameters": operation["parameters"] | {"engineConnInstance": instance["instance"]}}
    page = ids | {"logType": "stdout"}
    calls: dict[str, dict[str, Any]] = {
        "executeCode": {"json": code}, "getEngineStatus": {"params": ids}, "terminateEngine": {"json": ids},
        "getEngineLogs": {"params": page}, "downloadEngineLog": {"params": gw.download_query(engine)},
        "explainEngine": {"params": ids}, "getPostMortem": {"params": ids}, "followEngineLog": {"params": page},
        "getTask": {"params": task}, "getTaskResult": {"params": task}, "getResultSet": {"params": task},
        "listTasks": {"params": ids}, "cancelTask": {"json": task}, "taskEvents": {"params": task},
        "getEngineMetrics": {"params": ids}, "getResourceUsage": {"params": ids},
        "updateResource": {"json": ids | {"resources": {"memory": "2Gi"}}},
        "sendEngineCommand": {"json": ids | {"command": "status"}},
        "getEngineConn": {"json": instance}, "killEngineConn": {"json": instance},
        "rm/enginekill": {"json": [{"engineInstance": instance["instance"]}]},
        "openEngineLog": {"json": instance | {"parameters": {"logType": "stdout"}}},
        "executeEngineConnOperation": {"json": operation}, "executeECMOperation": {"json": ecm},
        "executeECMOperationByEC": {"json": operation},
    }  # fmt: skip
    for method in METHODS:
        if (sent := calls.pop(method.name, None)) is not None:
            answer = await call(gw, method.verb, method.path, **sent)
            assert answer.http in (400, 403), (method.name, answer.http, answer.raw)
            assert re.search("no engine that is known here|permission", answer.message), (method.name, answer.message)
    assert not calls
    assert not gw.cluster.writes
    gw.engine(name="python-alice-near")
    assert (await call(gw, "GET", "getEngineStatus", params={"engineId": "linkis/python-alice-near"})).http == 200


async def test_a_ticket_of_an_engine_in_another_namespace_is_taken(make: Make) -> None:
    gw = await start(make, Rbac(ALICE_HERE))
    ticket = "0c6f0d3e-6a0b-4f4e-9a51-3c8f3c0c9a11"
    gw.engine(name="python-alice-far", metadata={"namespace": "team-b"}, spec={"ticketId": ticket})
    answer = await call(gw, "POST", "createEngineConnection", json={"engineType": "python", "ticketId": ticket})
    assert (answer.http, answer.message) == (403, f"ticketId {ticket} cannot be used: give a new UUID, or none")


async def test_lists_have_what_the_caller_may_use_and_nothing_more(make: Make) -> None:
    gw = await start(make, Rbac(ALICE_HERE, ("chief", "create", "linkis"), *CHIEF))
    for name, namespace, user in (
        ("mine-here", "linkis", "alice"), ("mine-there", "team-b", "alice"), ("bobs-here", "linkis", "bob"),
        ("bobs-there", "team-b", "bob"), ("chiefs-here", "linkis", "chief"),
    ):  # fmt: skip
        gw.engine(name=name, metadata={"namespace": namespace}, spec={"user": user})

    async def names(login: str, **query: Any) -> list[str]:
        found = (await call(gw, "GET", "listEngines", login, params=query)).data
        assert found["total"] == len(found["engines"])
        return sorted(engine["name"] for engine in found["engines"])

    assert await names("alice") == ["mine-here"]
    assert await names("chief") == ["bobs-there", "chiefs-here", "mine-there"]
    assert await names("chief", user="bob") == ["bobs-there"]
    assert (await call(gw, "GET", "listEngines", params={"user": "bob"})).http == 403
    preview = (await call(gw, "GET", "previewCull", params={"withinSeconds": 10})).data
    assert [one["name"] for one in preview["culled"] + preview["kept"]] == ["mine-here"]
    own = (await call(gw, "GET", f"{LINKIS}/listUserEngines")).data["engines"]
    assert [node["serviceInstance"]["instance"][:9] for node in own] == ["mine-here"]
    used = (await call(gw, "POST", f"{LINKIS}/rm/userresources", json={})).data["userResources"]
    assert [len(kind["engines"]) for kind in used[0]["engineTypes"]] == [1]
    # These are about the ECM as a whole: an admin of one namespace is none of it.
    for path, body in (("listEMEngines", {"em": {"serviceInstance": {"instance": EM}}}), ("ecinfo/ecList", {})):
        assert (await call(gw, "POST", f"{LINKIS}/{path}", "chief", json=body)).http == 400, path


async def test_ask_engine_conn_gives_out_no_engine_of_another_namespace(make: Make) -> None:
    gw = await start(make, Rbac(ALICE_HERE))
    becomes_ready(gw)
    far = gw.engine(name="python-alice-far", metadata={"namespace": "team-b"})
    request = {"labels": LABELS, "timeOut": 5000, "explain": True}
    asked = await call(gw, "POST", f"{LINKIS}/askEngineConn", json=request)
    assert asked.message == "create engineConn ended."
    assert asked.data["verdicts"] == []
    assert gw.cluster.items["team-b", "python-alice-far"] is far
    gw.engine(name="python-alice-near")
    again = await call(gw, "POST", f"{LINKIS}/askEngineConn", json=request)
    assert again.message == "reuse engineConn ended."
    assert again.data["engine"]["serviceInstance"]["instance"].startswith("python-alice-near")


async def test_records_of_another_namespace_are_not_told(make: Make, tmp_path: Path) -> None:
    tickets = {"t-near": "linkis", "t-far": "team-b", "t-linkis": ""}
    with database_in(tmp_path) as database:
        with database.begin() as connection:
            connection.execute(insert(record), [row(ticket) for ticket in tickets])
            for ticket, namespace in tickets.items():
                if namespace:
                    values = {"ticket_id": ticket, "namespace": namespace, "name": "e", "uid": ticket, "as_of": 1}
                    more = {"written": 1, "final": True, "reason": "R", "message": "m"}
                    connection.execute(insert(schema.engine).values(**values, **more))
        queries = Queries(database)
        gw = await start(make, Rbac(ALICE_HERE), find=finder(queries), database={"records": queries}, now=NOW)
        listed = (await call(gw, "GET", f"{LINKIS}/ecinfo/ecrHistoryList")).data
        assert sorted(vo["ticketId"] for vo in listed["engineList"]) == ["t-linkis", "t-near"]
        assert listed["totalPage"] == 2
        for ticket, http in (("t-near", 200), ("t-far", 400), ("t-linkis", 200)):
            asked = await call(gw, "GET", f"{LINKIS}/ecinfo/get", params={"ticketid": ticket})
            assert asked.http == http, ticket
        assert (await call(gw, "GET", "getEngineStatus", params={"engineId": "t-far"})).http == 403
        assert (await call(gw, "DELETE", f"{LINKIS}/ecinfo/delete/t-far")).http == 400
        assert queries.record_by_ticket("t-far") is not None
