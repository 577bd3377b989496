"""An engine gets one ready member to claim, and no two engines the same one."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from typing import Any

from linkis_ecm.controller.pool.claim_failures import ClaimFailures
from linkis_ecm.controller.pool.reservations import Reservations
from linkis_ecm.controller.pool.roster import Roster
from linkis_ecm.controller.pool.templates import Templates
from linkis_ecm.controller.state.cache import Cache
from linkis_ecm.engine.admission.ownership import Ownership
from linkis_ecm.engine.pod.launch import PodSettings
from linkis_ecm.engine.pod_view import PodView, pod_view
from linkis_ecm.engine.view import EngineView
from linkis_ecm.engine.warm import fit
from linkis_ecm.engine.warm.members import Contact
from linkis_ecm.model.agent_key import AgentKeyRef, key_id

EPOCH = datetime(2026, 11, 27, tzinfo=UTC)
SETTINGS = PodSettings(report_url="http://op:9103")
MASTER = b"k" * 32
KEY_ID = key_id(MASTER)


class Rooms:
    """A cache with a plugin that has a pool, and the reservations over it."""

    def __init__(self, **plugin: Any) -> None:
        self.cache = Cache(epoch=EPOCH)
        self.refused: list[PodView] = []
        self.templates = Templates(settings=SETTINGS, master_keys=(MASTER,))
        self.closing: set[str] = set()
        self.contacts: dict[str, Contact] = {}
        roster = Roster(cache=self.cache, ownership=Ownership("ecm:9102"), templates=self.templates)
        self.reservations = Reservations(
            cache=self.cache, roster=roster, templates=self.templates, on_refused=self.refused.append,
            is_closing=lambda pod: pod.name in self.closing,
            contact=lambda pod: self.contacts.get(pod.name, Contact.REPORTS),
            failures=ClaimFailures(lambda: EPOCH, random.Random(1)),
        )  # fmt: skip
        self.version = 10
        self.plugin(**plugin)

    def next(self) -> str:
        self.version += 1
        return str(self.version)

    def plugin(self, generation: int = 1, **changes: Any) -> None:
        spec = {
            "engineType": "python", "engineVersion": "3", "image": "engine:1", "runTypes": ["python"],
            "default": True, "defaultResources": {"cpu": "1", "memory": "1Gi"}, "warmPool": {"size": 2},
        } | changes  # fmt: skip
        self.cache.apply_plugin(
            {"metadata": {"name": "python", "uid": "plugin-uid", "resourceVersion": self.next(),
                          "generation": generation}, "spec": spec}
        )  # fmt: skip

    def engine(self, name: str, **status: Any) -> EngineView:
        self.cache.apply_engine(
            {"metadata": {"namespace": "team", "name": name, "uid": f"uid-{name}", "resourceVersion": self.next()},
             "spec": {"user": "amy", "engineType": "python"}, "status": status}
        )  # fmt: skip
        return self.cache.engines["team", name]

    def member(
        self, name: str, *, ready: bool = True, minute: int = 0, namespace: str = "team", **changes: Any
    ) -> PodView:
        plugin = self.cache.plugins["python"]
        pod = fit.member_pod(fit.template(plugin, namespace, SETTINGS), name)
        pod["metadata"] |= {
            "uid": f"pod-{name}", "resourceVersion": self.next(),
            "creationTimestamp": f"2026-11-27T10:{minute:02}:00Z",
        }  # fmt: skip
        if ready:
            seal = self.templates.seals.seal(pod_view(pod), AgentKeyRef(f"pod-{name}", "0" * 32, KEY_ID))
            said = {"enrolment": "0" * 32, "keyId": KEY_ID, "takes": ["env"], "seal": seal}
            pod["metadata"]["annotations"]["linkis.apache.org/warm-ready"] = json.dumps(said)
        pod["status"] = {"phase": "Running", "podIP": "10.0.0.9"} | changes.pop("status", {})
        pod["metadata"] |= changes.pop("metadata", {})
        pod["spec"] |= changes
        view = pod_view(pod)
        self.cache.apply_pod(view)
        return view

    def offered(self, engine: EngineView) -> str | None:
        found = self.reservations.offer(engine)
        return found[0].name if found is not None else None


def test_each_engine_gets_another_member_the_oldest_first_and_keeps_it() -> None:
    rooms = Rooms()
    rooms.member("b", minute=1)
    rooms.member("a", minute=2)
    one, two, three = rooms.engine("one"), rooms.engine("two"), rooms.engine("three")
    assert [rooms.offered(one), rooms.offered(two), rooms.offered(three)] == ["b", "a", None]
    assert [rooms.offered(one), rooms.offered(two), rooms.offered(three)] == ["b", "a", None]
    assert rooms.reservations.holder(rooms.cache.members("team", "python")[0]) == two.uid


def test_one_that_missed_a_report_is_given_last_and_a_silent_one_to_nobody() -> None:
    rooms = Rooms()
    for number, name in enumerate("abcd"):
        rooms.member(name, minute=number)
    rooms.contacts = {"a": Contact.LATE, "b": Contact.SILENT, "c": Contact.GONE}
    engines = [rooms.engine(name) for name in ("one", "two", "three")]
    assert [rooms.offered(engine) for engine in engines] == ["d", "a", None]
    # What was reserved and becomes silent is not kept for its engine.
    rooms.contacts = {"d": Contact.SILENT}
    assert [rooms.offered(engine) for engine in engines] == ["b", "a", "c"]


def test_the_template_comes_with_the_member() -> None:
    rooms = Rooms()
    rooms.member("a")
    found = rooms.reservations.offer(rooms.engine("one"))
    assert found is not None
    assert found[1] == fit.template(rooms.cache.plugins["python"], "team", SETTINGS)


def test_only_ready_members_of_the_engines_namespace_are_given() -> None:
    rooms = Rooms()
    rooms.member("starting", ready=False)
    rooms.member("other", namespace="elsewhere")
    rooms.member("going", metadata={"deletionTimestamp": "2026-11-27T10:00:00Z"})
    rooms.member("dead", status={"phase": "Failed"})
    rooms.member("unaddressed", status={"podIP": ""})
    rooms.member("debugged", ephemeralContainers=[{"name": "d"}])
    status = {"containerStatuses": [{"name": "engine", "restartCount": 1, "state": {}}]}
    rooms.member("restarted", status=status)
    rooms.member("changed", containers=[{"name": "engine", "image": "evil:1"}])
    assert rooms.offered(rooms.engine("one")) is None


def test_a_member_on_a_node_that_takes_no_new_pods_is_not_given_also_where_it_was_reserved() -> None:
    rooms = Rooms()
    rooms.member("m1", minute=1)
    rooms.member("m2", minute=2)
    mine = rooms.engine("mine")
    assert rooms.offered(mine) == "m1"
    rooms.closing = {"m1"}
    assert rooms.offered(mine) == "m2"
    rooms.closing = {"m1", "m2"}
    assert rooms.offered(rooms.engine("other")) is None


def test_an_image_that_a_webhook_wrote_is_known_by_the_answer_to_the_create() -> None:
    rooms = Rooms()
    pod = rooms.member("mirrored", containers=[{"name": "engine", "image": "mirror/engine:1"}])
    assert rooms.offered(rooms.engine("one")) is None
    rooms.templates.record_made(pod)
    assert rooms.offered(rooms.engine("one")) == "mirrored"


def test_a_member_of_an_earlier_plugin_is_not_given() -> None:
    rooms = Rooms()
    rooms.member("a")
    one = rooms.engine("one")
    assert rooms.offered(one) == "a"
    rooms.plugin(generation=2, image="engine:2")
    assert rooms.offered(one) is None
    rooms.member("b")
    assert rooms.offered(one) == "b"


def test_a_member_whose_key_nobody_has_is_not_given() -> None:
    rooms = Rooms()
    said = json.dumps({"enrolment": "0" * 32, "keyId": "other", "takes": []})
    digest = fit.digest(rooms.cache.plugins["python"], "team", SETTINGS)
    annotations = {"linkis.apache.org/warm-ready": said, "linkis.apache.org/warm-template": digest}
    rooms.member("a", ready=False, metadata={"annotations": annotations})
    assert rooms.offered(rooms.engine("one")) is None


def test_a_plugin_without_a_pool_offers_nothing() -> None:
    rooms = Rooms()
    rooms.member("a")
    rooms.plugin(generation=2, warmPool={"size": 0})
    assert rooms.offered(rooms.engine("one")) is None
    rooms.plugin(generation=3, warmPool=None)
    assert rooms.offered(rooms.engine("one")) is None


def test_a_refused_member_is_nobodys_any_more() -> None:
    rooms = Rooms()
    pod = rooms.member("a", minute=1)
    rooms.member("b", minute=2)
    one, two = rooms.engine("one"), rooms.engine("two")
    assert rooms.offered(one) == "a"
    rooms.reservations.refused(pod)
    assert rooms.refused == [pod]
    assert rooms.reservations.is_refused(pod)
    assert [rooms.offered(one), rooms.offered(two)] == ["b", None]
    rooms.reservations.forget(pod)
    assert not rooms.reservations.is_refused(pod)


def test_a_reservation_ends_with_its_engine_and_with_its_own_pod() -> None:
    rooms = Rooms()
    rooms.member("a")
    one, two = rooms.engine("one"), rooms.engine("two")
    assert [rooms.offered(one), rooms.offered(two)] == ["a", None]
    rooms.reservations.release(one)
    assert [rooms.offered(two), rooms.offered(one)] == ["a", None]
    rooms.cache.drop_engine(two.key, two.uid)
    assert rooms.offered(one) == "a"
    rooms.engine("one", engineState="Failed")
    three = rooms.engine("three")
    assert rooms.offered(three) == "a"
    own = {"metadata": {"namespace": "team", "name": "own", "uid": "own", "resourceVersion": rooms.next(),
                        "ownerReferences": [{"kind": "EngineConn", "name": "three", "uid": three.uid}]}}  # fmt: skip
    rooms.cache.apply_pod(pod_view(own))
    assert rooms.offered(rooms.engine("four")) == "a"


def test_a_member_that_went_is_replaced_by_another() -> None:
    rooms = Rooms()
    pod = rooms.member("a", minute=1)
    rooms.member("b", minute=2)
    one = rooms.engine("one")
    assert rooms.offered(one) == "a"
    rooms.cache.drop_pod(pod)
    rooms.reservations.forget(pod)
    assert rooms.offered(one) == "b"
