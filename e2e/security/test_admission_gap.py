"""An EngineConn that came in while the admission policies were not there, or were others, on a real API server."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.shared.policies import KINDS, POLICY, apply, manifest, until_they_count, without
from tools.testkit.cluster import kubectl
from tools.testkit.cluster.installation import Installation
from tools.testkit.cluster.waiting import NAMESPACE, pods, status, until_holds, until_state

pytestmark = [pytest.mark.cluster, pytest.mark.release, pytest.mark.timeout(300)]
OBJECTS = [(kind, name) for name in (POLICY, f"{POLICY}-env") for kind in KINDS]


@pytest.fixture(autouse=True, scope="module")
def next_file(installation: Installation) -> Iterator[None]:
    """It makes engines at once, which is too soon after the policies of this one were written."""
    yield
    until_they_count()


@pytest.fixture
def gap(installation: Installation) -> Iterator[list[str]]:
    """Takes all policies away. The test puts back what it pops; what is left is put back at the end."""
    with without(*OBJECTS) as kept:
        yield kept


@pytest.fixture
def author(installation: Installation) -> Iterator[str]:
    """Somebody who may create engines and read no Secret, with a Secret beside him."""
    name = f"gap-{uuid.uuid4().hex[:6]}"
    who = f"person-{name}"
    kubectl.must(
        "create", "role", name, "-n", NAMESPACE, "--verb=create,get", "--resource=engineconns.linkis.apache.org"
    )
    kubectl.must("create", "rolebinding", name, "-n", NAMESPACE, f"--role={name}", f"--user={who}")
    kubectl.must("create", "secret", "generic", name, "-n", NAMESPACE, "--from-literal=password=theirs")
    yield who
    for kind in ("rolebinding", "role", "secret"):
        kubectl.run("delete", kind, name, "-n", NAMESPACE, "--ignore-not-found")


def create(who: str, name: str, *options: str, secret: str = "", user: str = "hadoop") -> kubectl.Answer:
    source: dict[str, Any] = {"secretKeyRef": {"name": secret, "key": "password"}}
    spec = {"engineType": "python", "user": user}
    body = {
        "apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConn",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec | ({"env": [{"name": "PASSWORD", "valueFrom": source}]} if secret else {}),
    }  # fmt: skip
    return kubectl.run("create", "--as", who, *options, "-f", "-", stdin=json.dumps(body))


def test_an_engine_that_was_made_without_the_policies_is_not_run_when_they_are_back(
    gap: list[str], author: str
) -> None:
    made = f"gap-{uuid.uuid4().hex[:6]}"
    try:
        until_holds(
            "the API server asks no policy any more",
            lambda: create(author, made, secret=author.removeprefix("person-")),
            lambda answer: answer.code == 0 or "AlreadyExists" in answer.err,
        )
        until_state(made, "Failed")
        assert status(made)["reason"] == "NotAdmitted"
        assert pods(made) == []
        while gap:
            apply(gap.pop())
        until_holds(
            "the API server asks the policies again",
            lambda: create(author, f"{made}-later", "--dry-run=server", user="somebody-else"),
            lambda answer: answer.code != 0 and "spec.user" in answer.err,
        )
        assert status(made)["engineState"] == "Failed"
        assert pods(made) == []
    finally:
        kubectl.run("delete", "ec", made, "-n", NAMESPACE, "--ignore-not-found", "--timeout=60s")


CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("validatingadmissionpolicy", {"validations": [{"expression": "true"}]}),
    (
        "validatingadmissionpolicybinding",
        {"matchResources": {"objectSelector": {"matchLabels": {"nobody": "has-this"}}}},
    ),
]


@pytest.mark.parametrize(("kind", "change"), CHANGES, ids=[kind for kind, _ in CHANGES])
def test_an_engine_that_was_made_while_a_policy_was_another_is_not_run(
    author: str, kind: str, change: dict[str, Any]
) -> None:
    """The policy that asks for the Secrets of variables, or its binding, is changed in place."""
    changed = f"{POLICY}-env"
    kept = manifest(kind, changed)
    found = json.loads(kept)
    made = f"gap-{uuid.uuid4().hex[:6]}"
    secret = author.removeprefix("person-")
    try:
        apply(json.dumps(found | {"spec": found["spec"] | change}))
        # In the name that he has: the other policy asks for it, and is as it was.
        until_holds(
            "the API server asks for no Secret any more",
            lambda: create(author, made, secret=secret, user=author),
            lambda answer: answer.code == 0 or "AlreadyExists" in answer.err,
        )
        until_state(made, "Failed")
        assert status(made)["reason"] == "NotAdmitted"
        assert f"{changed} was changed: spec.{next(iter(change))}" in status(made)["message"]
        assert pods(made) == []
        apply(kept)
        until_holds(
            "the API server asks for the Secrets again",
            lambda: create(author, f"{made}-later", "--dry-run=server", secret=secret, user=author),
            lambda answer: answer.code != 0 and "spec.env" in answer.err,
        )
        assert status(made)["engineState"] == "Failed"
        assert pods(made) == []
    finally:
        apply(kept)
        kubectl.run("delete", "ec", made, "-n", NAMESPACE, "--ignore-not-found", "--timeout=60s")
