"""The seal of a member is of one pod, and nobody without the master key can make one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from linkis_ecm.engine.pod_view import PodView, pod_view
from linkis_ecm.engine.warm.seals import Seals
from linkis_ecm.model.agent_key import AgentKeyRef, key_id

OLD, NEW = b"o" * 32, b"n" * 32
OWNER = {"kind": "EngineConn", "name": "mine", "uid": "engine-uid"}


def pod(seal: Any = None, **changes: str) -> PodView:
    said = {"enrolment": changes.get("nonce", "0" * 32), "keyId": changes.get("key", key_id(OLD)), "seal": seal}
    said |= {"podUid": changes["named"]} if "named" in changes else {}
    annotations = {
        "linkis.apache.org/warm-template": changes.get("template", "digest"),
        "linkis.apache.org/warm-ready": json.dumps(said),
    }
    metadata: dict[str, Any] = {
        "namespace": changes.get("namespace", "team"), "name": "a", "uid": changes.get("uid", "pod-uid"),
        "annotations": annotations, "labels": {"linkis.apache.org/warm-pool": "python"},
    }  # fmt: skip
    if "claimed" in changes:
        metadata |= {"labels": {}, "ownerReferences": [OWNER]}
        annotations["linkis.apache.org/warm-claimed"] = "0"
    return pod_view({"metadata": metadata, "spec": {"containers": []}})


def sealed(seals: Seals) -> str:
    return seals.seal(pod(), AgentKeyRef("pod-uid", "0" * 32, key_id(OLD)))


@pytest.mark.parametrize(
    "change", [{"uid": "other"}, {"namespace": "other"}, {"nonce": "1" * 32}, {"key": "other"}, {"template": "other"}]
)
def test_a_seal_is_of_one_pod_one_enrolment_and_one_template(change: dict[str, str]) -> None:
    seals = Seals((OLD,))
    seal = sealed(seals)
    assert seals.holds(pod(seal))
    assert seals.holds(pod(seal, claimed="0")), "it stays with a claim"
    assert not seals.holds(pod(seal, **change))


@pytest.mark.parametrize("claimed", [{}, {"claimed": "0"}])
def test_a_copy_that_names_the_pod_of_the_seal_has_none(claimed: dict[str, str]) -> None:
    seals = Seals((OLD,))
    seal = sealed(seals)
    assert seals.holds(pod(seal, named="other", **claimed))
    assert not seals.holds(pod(seal, uid="other", named="pod-uid", **claimed))


@pytest.mark.parametrize("seal", [None, "", 3, [], "0" * 64, "\udcff" * 64, "é"])
def test_what_is_no_seal_proves_nothing(seal: Any) -> None:
    assert not Seals((OLD,)).holds(pod(seal))


@pytest.mark.parametrize("part", ["template", "nonce", "key", "seal"])
def test_no_long_text_of_a_stranger_is_kept(part: str) -> None:
    seals, long = Seals((OLD,)), "x" * 1000
    found = pod(long) if part == "seal" else pod(sealed(seals), **{part: long})
    assert not seals.holds(found)
    assert seals._check.cache_info().currsize == 0
    # Nor by the pod's view, of which there is one for each pod.
    huge = "y" * 200_000
    assert huge not in repr(pod(huge) if part == "seal" else pod(sealed(seals), **{part: huge}))


def test_a_rotated_key_keeps_the_members() -> None:
    seal = sealed(Seals((OLD,)))
    assert Seals((NEW, OLD)).holds(pod(seal))
    assert not Seals((NEW,)).holds(pod(seal))
    assert sealed(Seals((NEW, OLD))) == sealed(Seals((NEW,)))
