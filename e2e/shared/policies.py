"""The admission policies of this process's release, for the tests that take them away or change them for a while.

An engine that is made too soon after they are back is refused, as it must be, so whoever changes them waits in the end
until they count: the next test makes engines. Must not judge what the operator says meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from tools.testkit.cluster import kubectl
from tools.testkit.cluster.installation import RELEASE, until_policies_count
from tools.testkit.cluster.waiting import RELEASE_NAMESPACE

# Both a policy and its binding have this name.
POLICY = f"{RELEASE_NAMESPACE}.{RELEASE}-engineconns"
KINDS = ("validatingadmissionpolicy", "validatingadmissionpolicybinding")


def manifest(kind: str, name: str) -> str:
    """The object as it is, to be made again."""
    body = kubectl.get(kind, name)
    meta = {key: body["metadata"][key] for key in ("name", "labels", "annotations") if key in body["metadata"]}
    kept = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": meta, "spec": body["spec"]}
    return json.dumps(kept)


def apply(body: str) -> None:
    """As helm's own: its next upgrade would find fields of somebody else, and stop."""
    kubectl.must("apply", "--server-side", "--field-manager=helm", "-f", "-", stdin=body)


@contextmanager
def without(*objects: tuple[str, str]) -> Iterator[list[str]]:
    """Takes these away, by kind and name. Who pops a manifest has put it back; the others are put back here."""
    kept = [manifest(kind, name) for kind, name in objects]
    for kind, name in objects:
        kubectl.must("delete", kind, name)
    try:
        yield kept
    finally:
        while kept:
            apply(kept.pop())


def until_they_count() -> None:
    """Returns when an engine that is made from now on is taken."""
    until_policies_count(RELEASE_NAMESPACE)
