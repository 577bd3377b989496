"""Annotations of a pod are somebody's words: of each of ours no more is kept than the operator writes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from linkis_ecm.engine import names, pod_view
from linkis_ecm.engine.pod_view import NOTE_MAX, READY_MAX
from linkis_ecm.model.engineconn import Launch

OWNER = {"kind": "EngineConn", "name": "mine", "uid": "engine-uid"}
LONG = "x" * 100_000
OURS = (
    names.TICKET_ANNOTATION, names.TEMPLATE_ANNOTATION, names.READY_ANNOTATION, names.CLAIMED_ANNOTATION,
    names.MEMBER_SIZE_ANNOTATION, names.SEAL_ANNOTATION, pod_view.LAUNCH_ANNOTATION, pod_view.SPEC_ANNOTATION,
)  # fmt: skip


def view(owned: bool, **annotations: Any) -> pod_view.PodView:
    metadata: dict[str, Any] = {"namespace": "team", "name": "a", "uid": "u", "annotations": annotations}
    metadata |= {"ownerReferences": [OWNER]} if owned else {"labels": {names.POOL_LABEL: "python"}}
    return pod_view.pod_view({"metadata": metadata, "spec": {"containers": []}})


@pytest.mark.parametrize("text", [LONG, json.dumps({"takes": [LONG], "enrolment": LONG, "keyId": LONG, "seal": LONG})])
@pytest.mark.parametrize("owned", [True, False])
@pytest.mark.parametrize("name", OURS)
def test_a_long_annotation_is_not_kept(name: str, owned: bool, text: str) -> None:
    claimed = {} if name == names.CLAIMED_ANNOTATION else {names.CLAIMED_ANNOTATION: "0"}
    assert LONG not in repr(view(owned, **claimed, **{name: text}))


@pytest.mark.parametrize(
    ("owner", "image"), [({"name": LONG}, "a:1"), ({"uid": LONG}, "a:1"), ({}, LONG)], ids=["name", "uid", "image"]
)
def test_no_long_text_that_the_api_server_takes_is_kept(owner: dict[str, str], image: str) -> None:
    spec = {"containers": [{"name": "engine", "image": image}]}
    metadata = {"namespace": "team", "name": "a", "uid": "u", "ownerReferences": [OWNER | owner]}
    found = pod_view.pod_view({"metadata": metadata, "spec": spec})
    assert LONG not in repr(found)
    assert found.owner_uid == ("" if owner else "engine-uid")


def test_the_longest_of_ours_are_read() -> None:
    check = {"http": {"path": "/" + '"' * 255, "port": 65535}, "initialDelaySeconds": 3600, "failureThreshold": 10}
    launch = Launch.model_validate({"kind": "process", "port": 65535, "ready": check})
    text = launch.model_dump_json(by_alias=True, exclude_none=True)
    assert len(text) < NOTE_MAX
    assert view(True, **{pod_view.LAUNCH_ANNOTATION: text}).launch == launch
    takes = [chr(0x10000 + n) * 32 for n in range(8)]
    said = {"enrolment": "0" * 32, "keyId": "0" * 8, "takes": takes, "seal": "0" * 64}
    assert len(json.dumps(said)) < READY_MAX
    member = view(False, **{names.READY_ANNOTATION: json.dumps(said)}).member
    assert member is not None
    assert member.takes == set(takes)
