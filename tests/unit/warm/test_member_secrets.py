"""A Secret of containers beside the engine that has changed since a pod of a pool was made."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from linkis_ecm.controller.pool.secrets import MOST, MemberSecrets, beside, changed_at
from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.kube.client import ApiError
from linkis_ecm.kube.resources import SECRETS

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def entry(time: str, *, data: bool = True) -> dict[str, Any]:
    return {"manager": "m", "time": time, "fieldsV1": {"f:data": {}} if data else {"f:metadata": {}}}


def secret(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": "s", "managedFields": list(entries)}, "data": {"k": "Mg=="}}


def a_pod(created: datetime | None, namespace: str = "team") -> PodView:
    return PodView(
        namespace=namespace, name="m", uid="u", version=1, owner_uid="", owner_name="", phase="Running", created=created
    )  # fmt: skip


class Api:
    """Answers reads of Secrets, and counts them."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.reads = answer, 0

    async def get(self, resource: Any, name: str, **_: Any) -> Any:
        assert resource is SECRETS
        self.reads += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_the_secrets_of_other_containers_count_and_not_the_engines() -> None:
    def named(name: str) -> list[dict[str, Any]]:
        return [{"name": "A", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}}, {"name": "B", "value": "b"}]

    spec = {
        "containers": [
            {"name": "engine", "env": named("mine")}, {"name": "proxy", "env": named("proxy")}, {"name": "x"},
        ],
        "initContainers": [{"name": "fetch", "env": named("fetch")}],
    }  # fmt: skip
    assert beside({"spec": spec}) == {"proxy", "fetch"}
    assert beside({"spec": {"containers": [{"name": "engine"}]}}) == frozenset()


def test_the_last_writer_of_the_data_says_when_it_changed() -> None:
    found = secret(
        entry("2026-11-28T10:00:00Z"), entry("2026-11-28T11:00:00Z"), entry("2026-11-28T12:00:00Z", data=False)
    )
    assert changed_at(found) == datetime(2026, 11, 28, 11, tzinfo=UTC)
    assert changed_at(secret()) is None
    assert changed_at({"metadata": {}}) is None
    assert changed_at(secret(entry("yesterday"))) is None


async def test_a_pod_of_before_the_change_is_outdated_and_a_later_one_is_not() -> None:
    api = Api(secret(entry("2026-11-28T11:00:00Z")))
    secrets = MemberSecrets(api)  # type: ignore[arg-type]
    old, new = a_pod(NOW - timedelta(hours=2)), a_pod(NOW)
    assert not secrets.is_outdated(old, ["s"]), "nothing is known yet"
    assert await secrets.look([("team", "s")], NOW)
    assert [secrets.is_outdated(pod, ["s"]) for pod in (old, new, a_pod(None))] == [True, False, False]
    assert not secrets.is_outdated(old, ["other"])
    assert not secrets.is_outdated(a_pod(old.created, "elsewhere"), ["s"])
    # Once a minute, and nothing is new.
    assert not await secrets.look([("team", "s")], NOW + timedelta(seconds=59))
    assert not await secrets.look([("team", "s")], NOW + timedelta(seconds=61))
    assert api.reads == 2


@pytest.mark.parametrize("status", [403, 404, 500])
async def test_what_cannot_be_read_changes_nothing(status: int) -> None:
    secrets = MemberSecrets(Api(ApiError(status, "Reason", "no")))  # type: ignore[arg-type]
    assert not await secrets.look([("team", "s")], NOW)
    assert not secrets.is_outdated(a_pod(NOW - timedelta(days=1)), ["s"])


async def test_many_secrets_are_read_over_several_looks() -> None:
    api = Api(secret())
    secrets = MemberSecrets(api)  # type: ignore[arg-type]
    keys = [("team", f"s{number}") for number in range(MOST + 5)]
    await secrets.look(keys, NOW)
    assert api.reads == MOST
    await secrets.look(keys, NOW + timedelta(seconds=1))
    assert api.reads == MOST + 5


async def test_a_time_to_come_replaces_pods_once() -> None:
    secrets = MemberSecrets(Api(secret(entry("2099-01-01T00:00:00Z"))))  # type: ignore[arg-type]
    assert await secrets.look([("team", "s")], NOW)
    assert secrets.is_outdated(a_pod(NOW - timedelta(seconds=1)), ["s"])
    for minutes in (2, 4):
        later = NOW + timedelta(minutes=minutes)
        assert not await secrets.look([("team", "s")], later)
        assert not secrets.is_outdated(a_pod(NOW + timedelta(seconds=1)), ["s"])


async def test_a_secret_whose_time_went_back_has_changed_now() -> None:
    api = Api(secret(entry("2026-11-28T11:00:00Z")))
    secrets = MemberSecrets(api)  # type: ignore[arg-type]
    await secrets.look([("team", "s")], NOW)
    api.answer = secret(entry("2026-11-01T00:00:00Z"))
    later = NOW + timedelta(minutes=2)
    assert await secrets.look([("team", "s")], later)
    assert secrets.is_outdated(a_pod(NOW), ["s"])
    assert not secrets.is_outdated(a_pod(later), ["s"])
