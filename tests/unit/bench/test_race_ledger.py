"""The judge of `python -m bench.races`: it finds each broken promise, and nothing where all are kept."""

from __future__ import annotations

from typing import Any

import pytest

from bench.races.ledger import POOL_LABEL, Ledger


def pod(name: str, *engines: str, member: bool = False, **meta: Any) -> dict[str, Any]:
    owners = [{"kind": "EngineConn", "name": one, "uid": f"uid-{one}"} for one in engines]
    if not engines:
        owners = [{"kind": "EngineConnPlugin", "name": "python", "uid": "uid-python"}]
    labels = {POOL_LABEL: "python"} if member else {}
    return {"metadata": {"name": name, "uid": f"uid-{name}", "labels": labels, "ownerReferences": owners, **meta}}


def engine(name: str, kind: str = "warm", podName: str = "", **status: Any) -> dict[str, Any]:  # noqa: N803
    said = {"engineState": "Idle", "attempt": 0, "podName": podName, "ticketId": f"ticket-{name}",
            "startup": {"kind": kind}, **status}  # fmt: skip
    return {"metadata": {"name": name, "uid": f"uid-{name}"}, "status": said}


@pytest.fixture
def ledger() -> Ledger:
    """Engine a took member m, engine b started cold."""
    made = Ledger()
    made.pod("ADDED", pod("m", member=True))
    made.engine("ADDED", {"metadata": {"name": "a", "uid": "uid-a"}})
    made.pod("MODIFIED", pod("m", "a"))
    made.engine("MODIFIED", engine("a", podName="m"))
    made.pod("ADDED", pod("own", "b"))
    made.engine("ADDED", engine("b", "cold", podName="own", startup={"kind": "cold", "coldBecause": "None was ready."}))
    return made


def test_what_keeps_all_promises_has_no_fault(ledger: Ledger) -> None:
    assert ledger.double_claims() == ledger.faults(["a", "b"]) == []
    assert ledger.claimed == 1
    assert ledger.idle() == {"a": "ticket-a", "b": "ticket-b"}
    assert ledger.pod_of("a") == "m"
    assert ledger.starts(["a", "b"]) == ({"warm": 1, "cold": 1}, {"None was ready.": 1})


def test_a_pod_of_two_engines_is_found_also_when_it_is_gone(ledger: Ledger) -> None:
    ledger.pod("MODIFIED", pod("m", "b"))
    ledger.pod("DELETED", pod("m", "b"))
    assert ledger.double_claims() == ["Pod m was given to 2 engines: a, b."]


def test_an_engine_that_is_lost_or_failed_is_found(ledger: Ledger) -> None:
    ledger.engine("MODIFIED", engine("b", engineState="Failed", reason="StartTimeout"))
    assert ledger.faults(["b", "c"]) == ["Engine b is Failed: StartTimeout.", "Engine c was never seen."]


def test_an_engine_has_one_pod_and_names_it(ledger: Ledger) -> None:
    ledger.pod("ADDED", pod("second", "a"))
    ledger.pod("MODIFIED", pod("own", "b", deletionTimestamp="now"))
    assert ledger.faults(["a", "b"]) == ["Engine a has 2 pods: m, second.", "Engine b has 0 pods: ."]
    ledger.pod("DELETED", pod("m", "a"))
    assert ledger.faults(["a"]) == [
        "Engine a names pod m and has second.", "Engine a says warm; its pod was a member: False.",
    ]  # fmt: skip


def test_a_second_attempt_is_a_fault(ledger: Ledger) -> None:
    ledger.engine("MODIFIED", engine("a", podName="m", attempt=1))
    assert ledger.faults(["a"]) == ["Engine a needed attempt 1."]
