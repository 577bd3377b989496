"""A pod of a warm pool belongs to nobody until an engine takes it; the cache and the views know it as such."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from linkis_ecm.controller.pool.agents import MemberAgents
from linkis_ecm.controller.state.cache import Cache
from linkis_ecm.engine.pod_view import pod_view
from linkis_ecm.engine.warm.members import Contact, contact
from linkis_ecm.model.agent_key import AgentKeyRef

EPOCH = datetime(2026, 11, 27, tzinfo=UTC)
ENGINE = {
    "metadata": {"namespace": "team", "name": "mine", "uid": "engine-uid", "resourceVersion": "1"},
    "spec": {"user": "amy", "engineType": "python", "engineVersion": "3"},
}
PLUGIN_OWNER = {"kind": "EngineConnPlugin", "name": "python", "uid": "plugin-uid"}
ENGINE_OWNER = {"kind": "EngineConn", "name": "mine", "uid": "engine-uid"}


def member(name: str = "python-a", version: int = 1, **metadata: Any) -> dict[str, Any]:
    base = {
        "namespace": "team", "name": name, "uid": f"uid-of-{name}", "resourceVersion": str(version),
        "labels": {"linkis.apache.org/warm-pool": "python"},
        "annotations": {"linkis.apache.org/warm-template": "digest"},
        "ownerReferences": [PLUGIN_OWNER],
    }  # fmt: skip
    return {"metadata": base | metadata, "spec": {"containers": [{"name": "engine", "image": "engine:1"}]}}


def claimed(attempt: str = "0") -> dict[str, Any]:
    annotations = {"linkis.apache.org/warm-claimed": attempt}
    return member(version=2, labels={}, annotations=annotations, ownerReferences=[ENGINE_OWNER])


@pytest.mark.parametrize(
    ("seconds", "alone", "among_others"),
    [(0, Contact.REPORTS, Contact.REPORTS), (14, Contact.REPORTS, Contact.REPORTS), (15, Contact.LATE, Contact.LATE),
     (30, Contact.SILENT, Contact.SILENT), (60, Contact.SILENT, Contact.GONE), (299, Contact.SILENT, Contact.GONE),
     (300, Contact.GONE, Contact.GONE)],
)  # fmt: skip
def test_a_member_is_replaced_sooner_where_others_report(seconds: int, alone: Contact, among_others: Contact) -> None:
    silence, silent_after = timedelta(seconds=seconds), timedelta(seconds=30)
    assert contact(silence, silent_after, others_report=False) is alone
    assert contact(silence, silent_after, others_report=True) is among_others


def test_silence_counts_from_when_the_operator_began() -> None:
    now = [EPOCH]
    agents = MemberAgents(lambda: now[0])
    one, other = pod_view(member("python-a")), pod_view(member("python-b"))
    assert agents.contact(one) is Contact.REPORTS
    now[0] += timedelta(seconds=70)
    assert agents.contact(one) is Contact.SILENT
    agents.record(other, {"state": "Idle"}, 1, AgentKeyRef(other.uid, "0" * 32, "abcd1234"))
    assert (agents.contact(one), agents.contact(other)) == (Contact.GONE, Contact.REPORTS)
    agents.record(one, {"state": "Idle"}, 1, AgentKeyRef(one.uid, "0" * 32, "abcd1234"))
    assert agents.contact(one) is Contact.REPORTS


def test_a_member_is_no_engines_pod_and_no_orphan() -> None:
    cache = Cache(epoch=EPOCH)
    cache.apply_pod(pod_view(member()))
    cache.apply_pod(pod_view(member("python-b")))
    assert [pod.name for pod in cache.members("team", "python")] == ["python-a", "python-b"]
    assert cache.members("other", "python") == ()
    assert cache.pools() == [("team", "python")]
    assert cache.orphans() == []


def test_a_pod_that_an_engine_took_is_that_engines() -> None:
    cache = Cache(epoch=EPOCH)
    cache.apply_engine(ENGINE)
    engine = cache.engines["team", "mine"]
    cache.apply_pod(pod_view(member()))
    assert cache.pod_of(engine) is None
    cache.apply_pod(pod_view(claimed()))
    assert cache.pod_of(engine) is None, "anybody can write the annotation that a pod was claimed"
    cache.is_claimed_member = lambda _: True
    found = cache.pod_of(engine)
    assert found is not None
    assert found.name == "python-a"
    assert found.claimed == 0
    assert found.member is None
    assert cache.members("team", "python") == ()
    assert cache.pools() == []
    assert cache.pod_by_uid("engine-uid", "uid-of-python-a") == found


def test_a_pod_that_was_taken_for_an_earlier_attempt_is_not_the_current_ones() -> None:
    cache = Cache(epoch=EPOCH)
    cache.apply_engine(ENGINE | {"status": {"attempt": 1}})
    engine = cache.engines["team", "mine"]
    cache.apply_pod(pod_view(claimed("0")))
    assert cache.pod_of(engine) is None
    assert [pod.name for pod in cache.other_pods(engine, None)] == ["python-a"]


def test_a_member_that_goes_leaves_its_pool() -> None:
    cache = Cache(epoch=EPOCH)
    cache.apply_pod(pod_view(member()))
    cache.drop_pod(pod_view(member(version=5)))
    assert cache.pools() == []


def test_what_its_agent_said_is_read_and_odd_texts_are_not() -> None:
    ready = {"enrolment": "0" * 32, "keyId": "abcd1234", "takes": ["env", 3]}
    annotations = {"linkis.apache.org/warm-template": "digest", "linkis.apache.org/warm-ready": json.dumps(ready)}
    found = pod_view(member(annotations=annotations)).member
    assert found is not None
    assert found.ready is not None
    assert (found.ready.pod_uid, found.ready.nonce, found.takes) == ("uid-of-python-a", "0" * 32, frozenset({"env"}))
    for text in ("{", "[]", "3", json.dumps({"enrolment": 1}), "[" * 100_000):
        odd = pod_view(member(annotations={"linkis.apache.org/warm-ready": text})).member
        assert odd is not None
        assert odd.ready is None
        assert odd.takes == frozenset()


def test_a_label_does_not_make_an_engines_pod_a_member() -> None:
    view = pod_view(member(ownerReferences=[ENGINE_OWNER]))
    assert view.member is None
    assert view.owner_uid == "engine-uid"
