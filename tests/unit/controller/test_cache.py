"""The operator's cache: what it has already is not parsed again."""

from __future__ import annotations

from typing import Any

import pytest

from linkis_ecm.controller.state import cache as module
from linkis_ecm.controller.state.cache import Cache
from linkis_ecm.engine.pod_view import pod_view
from tests.unit.engine.snapshots import T0


def engine_body(version: int, uid: str = "u1") -> dict[str, Any]:
    return {
        "metadata": {"namespace": "ns", "name": "e", "uid": uid, "resourceVersion": str(version)},
        "spec": {"engineType": "python", "user": "ada"},
    }


def pod_body(version: int, uid: str = "p1") -> dict[str, Any]:
    return {"metadata": {"namespace": "ns", "name": "p", "uid": uid, "resourceVersion": str(version)}}


def test_an_engine_that_comes_back_by_the_watch_is_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []

    def counted(body: Any, **how: Any) -> Any:
        parsed.append(body["metadata"]["resourceVersion"])
        return view(body, **how)

    view = module.engine_view
    monkeypatch.setattr(module, "engine_view", counted)
    cache = Cache(epoch=T0)
    assert cache.apply_engine(engine_body(7))
    assert not cache.apply_engine(engine_body(7))
    assert parsed == ["7"]
    assert cache.apply_engine(engine_body(8))
    assert not cache.apply_engine(engine_body(7))
    assert cache.apply_engine(engine_body(8, uid="u2"))
    assert cache.engines["ns", "e"].uid == "u2"


def test_a_pod_is_known_in_exactly_the_version_that_the_cache_has() -> None:
    cache = Cache(epoch=T0)
    assert cache.known_pod(pod_body(5)) is None
    made = pod_view(pod_body(5))
    cache.apply_pod(made)
    assert cache.known_pod(pod_body(5)) is made
    assert cache.known_pod(pod_body(6)) is None
    assert cache.known_pod(pod_body(5, uid="p2")) is None
