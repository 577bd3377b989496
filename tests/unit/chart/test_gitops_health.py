"""What GitOps tools make of each state: Argo CD by its scripts, run by Lua 5.1; Flux and kpt by kstatus."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from lupa import lua51

from linkis_ecm.engine.status.conditions import conditions, pass_failed_conditions
from linkis_ecm.model.states import EngineState

ROOT = Path(__file__).parents[3]
SCRIPTS = yaml.safe_load((ROOT / "manifests/argocd/health.yaml").read_text())["data"]
NOW = datetime(2026, 11, 27, tzinfo=UTC)
GROUP = "resource.customizations.health.linkis.apache.org_"


def engine(state: EngineState, *, reason: str = "X", generation: int = 2, observed: int = 2) -> dict[str, Any]:
    """As the operator writes it."""
    found = conditions(
        None, state=state, reason=reason, message="m", scheduled=True, registered=True, now=NOW, generation=observed
    )
    status = {"engineState": state.value, "message": "m", "observedGeneration": observed, "conditions": found}
    return {"kind": "EngineConn", "metadata": {"name": "e", "generation": generation}, "status": status}


def argo(obj: dict[str, Any]) -> tuple[str, str]:
    """Status and message of Argo CD's script for the object's kind."""
    lua = lua51.LuaRuntime(register_eval=False, register_builtins=False)  # type: ignore[call-arg]
    lua.globals().obj = lua.table_from(obj, recursive=True)
    found = lua.execute(SCRIPTS[GROUP + obj["kind"]])
    return found["status"], found["message"]


def kstatus(obj: dict[str, Any]) -> str:
    """kstatus's rules for a kind that it does not know, as its documents have them."""
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    status = obj.get("status", {})
    if status.get("observedGeneration", obj["metadata"]["generation"]) != obj["metadata"]["generation"]:
        return "InProgress"
    known = {condition["type"]: condition["status"] for condition in status.get("conditions", [])}
    if known.get("Reconciling") == "True":
        return "InProgress"
    if known.get("Stalled") == "True":
        return "Failed"
    return {"True": "Current", None: "Current"}.get(known.get("Ready"), "InProgress")


UP = ("Healthy", "Current")
COMING = ("Progressing", "InProgress")
BAD = ("Degraded", "Failed")
STATES = {
    EngineState.STARTING: COMING,
    EngineState.UNLOCK: UP,
    EngineState.LOCKED: UP,
    EngineState.IDLE: UP,
    EngineState.BUSY: UP,
    EngineState.RUNNING: UP,
    EngineState.SHUTTING_DOWN: COMING,
    EngineState.SUCCESS: UP,
    EngineState.FAILED: BAD,
}


@pytest.mark.parametrize("state", EngineState)
def test_each_state_is_healthy_or_not_to_both(state: EngineState) -> None:
    found = engine(state)
    assert (argo(found)[0], kstatus(found)) == STATES[state]
    assert argo(found)[1] == "m"


def test_a_change_that_the_operator_has_not_seen_is_in_progress() -> None:
    found = engine(EngineState.IDLE, generation=3)
    assert (argo(found)[0], kstatus(found)) == COMING
    assert "last change" in argo(found)[1]


@pytest.mark.parametrize("reason", ["ProcessNotReady", "KeyMismatch"])
def test_an_engine_that_cannot_be_used_now_is_in_progress(reason: str) -> None:
    found = engine(EngineState.IDLE, reason=reason)
    assert (argo(found)[0], kstatus(found)) == COMING


def test_an_engine_on_which_the_operator_fails_is_degraded() -> None:
    found = engine(EngineState.IDLE)
    found["status"]["conditions"] = pass_failed_conditions(found["status"]["conditions"], "no", now=NOW, generation=2)
    assert (argo(found)[0], kstatus(found)) == BAD


@pytest.mark.parametrize("seen", ["no state", "not the last change"])
def test_an_engine_on_which_the_operator_fails_is_degraded_before_it_has_got_further(seen: str) -> None:
    found = engine(EngineState.IDLE, generation=3)
    found["status"]["conditions"] = pass_failed_conditions(found["status"]["conditions"], "no", now=NOW, generation=2)
    if seen == "no state":
        found["status"] = {"conditions": pass_failed_conditions([], "no", now=NOW, generation=2)}
    status, message = argo(found)
    assert status == "Degraded"
    assert "no" in message


def test_an_engine_that_no_operator_has_seen() -> None:
    found = {"kind": "EngineConn", "metadata": {"name": "e", "generation": 1}}
    assert argo(found) == ("Progressing", "The operator has not seen it yet")
    assert kstatus(found) == "Current"


def test_an_entry_of_the_catalogue_is_healthy() -> None:
    found: dict[str, Any] = {"kind": "EngineConnPlugin", "metadata": {"name": "p", "generation": 1}}
    assert (argo(found)[0], kstatus(found)) == UP
    found["status"] = {"conditions": [{"type": "Stalled", "status": "True", "message": "bad"}]}
    assert (argo(found), kstatus(found)) == (("Degraded", "bad"), "Failed")
