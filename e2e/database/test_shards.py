"""Two operators of one release, each with engines' namespaces of its own, over a real MariaDB: the first split, a shard
that is killed, a namespace that moves, and back to one operator. docs/shards.md says what users are promised.

A release of its own, beside the first one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.database.server import on_the_node
from e2e.shared.engines import Engines
from tools.cluster import tools
from tools.testkit.cluster import kubectl, processes
from tools.testkit.cluster.installation import OF_THE_CLUSTER, RELEASE, Installation, engines_of, install, uninstall
from tools.testkit.cluster.waiting import is_ready, operator_pods, until_holds, until_row, until_state
from tools.testkit.gateway.client import Gateway

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.mariadb,
    pytest.mark.release,
    pytest.mark.timeout(600),
    pytest.mark.skipif(tools.backend() != "node", reason="the database runs in the node's own network"),
]
NAMESPACE = "ecm-shards"
FIRST, SECOND = engines_of(NAMESPACE), "ecm-shards-more"
SMALL = {"cpu": "20m", "memory": "256Mi"}
# The operator of no shard, and that of the shard `big`.
REST, BIG = f"{RELEASE}-operator", f"{RELEASE}-operator-big"


class Release:
    """The release, which is upgraded to other shards."""

    def __init__(self, url: str) -> None:
        self._url = url

    def with_shards(self, *settings: str) -> Installation:
        made = install(
            NAMESPACE, f"database.url={self._url}", f"engineNamespaces[1].name={SECOND}", "auth.admins={root}",
            *(f"{part}.resources.requests.cpu=50m" for part in ("operator", "gateway")), *OF_THE_CLUSTER, *settings,
            beside=True,
        )  # fmt: skip
        self.until_one_each()
        return made

    def until_one_each(self) -> None:
        """No operator of before the upgrade is left, and each of now is ready."""
        until_holds(
            "one ready pod of each operator",
            lambda: operator_pods(NAMESPACE, leaving=True),
            lambda pods: len({shard_of(pod) for pod in pods}) == len(pods) and all(map(is_ready, pods)),
            120,
        )


def shard_of(pod: dict[str, Any]) -> str:
    return str(pod["metadata"]["labels"].get("linkis.apache.org/shard", ""))


def who_serves() -> dict[str, str]:
    """The Lease of the operator that serves each namespace, by the ConfigMap of the claims."""
    data = kubectl.get("configmap", f"{RELEASE}-shards", "-n", NAMESPACE).get("data", {})
    return {space: lease for lease, claim in data.items() for space in json.loads(claim)["namespaces"]}


def until_served_by(first: str, second: str) -> None:
    wanted = {FIRST: first, SECOND: second}
    until_holds("each namespace has its operator", who_serves, lambda seen: wanted.items() <= seen.items(), 120)


def pod_uids(space: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in kubectl.listed("pods", space)}


@pytest.fixture(scope="module")
def release(first_release: Installation) -> Iterator[Release]:
    with on_the_node(3307) as server:
        try:
            yield Release(server.new_database())
        finally:
            kubectl.run("delete", "ec", "--all", "-n", SECOND, "--timeout=60s")
            uninstall(NAMESPACE)
            kubectl.run("delete", "namespace", SECOND, "--timeout=90s")


@pytest.fixture
def in_first() -> Iterator[Engines]:
    made = Engines("shards", FIRST)
    yield made
    made.delete()


@pytest.fixture
def in_second() -> Iterator[Engines]:
    made = Engines("shards", SECOND)
    yield made
    made.delete()


def test_engines_live_on_through_a_split_a_kill_a_move_and_the_way_back(
    release: Release, in_first: Engines, in_second: Engines
) -> None:
    made = release.with_shards()
    tickets = {FIRST: in_first.ready(user="hadoop", resources=SMALL)[1]}
    tickets[SECOND] = in_second.ready(user="hadoop", resources=SMALL)[1]
    uids = {space: pod_uids(space) for space in tickets}
    answers = 0

    def all_answer() -> None:
        """Each engine of before runs in its pod, and says so by executeCode and in its row."""
        nonlocal answers
        answers += 1
        with made.forward() as port, Gateway("127.0.0.1", port, made.token) as gateway:
            for space, ticket in tickets.items():
                code = "answers = globals().get('answers', 0) + 1; answers"
                assert gateway.execute(ticket, code).data["outputs"][0]["text"] == str(answers), space
                until_row(ticket, "Idle", namespace=NAMESPACE)
        assert {space: pod_uids(space) for space in tickets} == uids

    all_answer()

    # The first split: one namespace for a shard, the other is left to the operator without a name.
    big = ("operator.shards[0].name=big", f"operator.shards[0].namespaces[0]={FIRST}")
    release.with_shards(*big)
    until_served_by(BIG, REST)
    all_answer()

    # One shard is killed while engines start in both namespaces: each starts, once.
    (pod,) = [pod for pod in operator_pods(NAMESPACE) if shard_of(pod) == "big"]
    late = [(in_first, in_first.create(user="hadoop", resources=SMALL), FIRST)]
    assert processes.kill(pod["metadata"]["uid"], b"linkis_ecm operator") == 1
    late.append((in_second, in_second.create(user="hadoop", resources=SMALL), SECOND))
    for _, name, space in reversed(late):
        found = until_state(name, "Idle", namespace=space, seconds=120)
        assert until_row(found["ticketId"], "Idle", namespace=NAMESPACE)["record"]["request_times"] == 1
        assert len(pod_uids(space)) == 2
    for _, name, space in late:
        kubectl.must("delete", "ec", name, "-n", space, "--wait=true", "--timeout=60s")
    # A pod goes after its engine.
    until_holds("their pods are gone", lambda: {space: pod_uids(space) for space in tickets}, uids.__eq__, 120)
    until_served_by(BIG, REST)
    all_answer()

    # The other namespace goes to the shard, too: there is no operator without a name then.
    release.with_shards(*big, f"operator.shards[0].namespaces[1]={SECOND}")
    until_served_by(BIG, BIG)
    all_answer()

    # Back to one operator, with the addresses that the engines know.
    release.with_shards("operator.reportServices=true")
    until_served_by(REST, REST)
    all_answer()
    for ticket in tickets.values():
        with made.forward() as port, Gateway("127.0.0.1", port, made.token) as gateway:
            assert gateway.terminate(ticket).ok
        until_row(ticket, "ShuttingDown", final=True, namespace=NAMESPACE)
