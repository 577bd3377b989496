"""decide() over any input: it always returns, never goes back, and writes nothing more on its own result."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from linkis_ecm.engine.causes.verdicts import Verdict
from linkis_ecm.engine.decision import CollectEvidence, ConfirmPodGone, CreatePod, Snapshot, Stop
from linkis_ecm.model import reasons
from linkis_ecm.model.states import FINAL, EngineState, may_follow
from tests.unit.engine.snapshots import (
    COLLECTED,
    PLUGIN,
    at,
    clean,
    decided,
    ended,
    engine,
    failure,
    fatal,
    old_pod,
    oom,
    pod,
    report,
    snapshot,
)
from tools.testkit.fakes.rules import merged

STATUSES = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {},
        optional={
            "engineState": st.sampled_from([*EngineState, "Nonsense", 7, None]),
            "reason": st.sampled_from(["KernelReady", "StoppedByUser", "PodDeleted", "Nonsense", "", 3]),
            "stateSince": st.sampled_from(["2026-11-24T12:00:02Z", "yesterday", None, 5]),
            "podName": st.sampled_from(["e-pod-0", "", None]),
            "readyTime": st.sampled_from(["2026-11-24T12:00:02Z", "x", None]),
            "attempt": st.sampled_from([0, 1, 9, -4, "x", None]),
            "nextAttemptAt": st.sampled_from(["2026-11-24T12:00:10Z", "never", None]),
            "conditions": st.sampled_from([[], [3], "x", None, [{"type": "Ready"}]]),
            "startup": st.sampled_from([{}, {"accepted": "x"}, None]),
        },
    ),
)
PODS = st.one_of(
    st.none(),
    st.builds(
        pod,
        phase=st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Unknown"]),
        deleting=st.booleans(),
        terminated=st.sampled_from([None, ended, oom, clean]),
        ip=st.sampled_from(["", "10.0.0.9"]),
        reason=st.sampled_from(["", "Evicted"]),
        ready=st.booleans(),
        ready_since=st.sampled_from([None, at(1)]),
    ),
)
REPORTS = st.one_of(st.none(), st.builds(report, st.sampled_from(list(EngineState)), st.floats(0, 50)))
SNAPSHOTS = st.builds(
    lambda status, spec, **more: snapshot(engine=engine(status, **spec), **more),
    STATUSES,
    st.sampled_from(
        [{}, {"desiredState": "Stopped"}, {"restartPolicy": {"type": "OnFailure"}}, {"maxLifetime": "30s"}]
    ),
    pod=PODS,
    plugin=st.sampled_from([PLUGIN, None]),
    report=REPORTS,
    pod_gone=st.booleans(),
    report_path_down=st.booleans(),
    evidence=st.sampled_from([None, COLLECTED]),
    failure=st.sampled_from([None, failure, fatal]),
    other_pods=st.sampled_from([(), (old_pod,)]),
    stop=st.sampled_from([None, Stop(at(5), reasons.STOPPED_BY_USER)]),
)


@settings(max_examples=400, deadline=None)
@given(s=SNAPSHOTS, seconds=st.floats(0, 2000))
def test_decide_returns_for_every_input_and_never_goes_back(s: Snapshot, seconds: float) -> None:
    decision = decided(s, seconds)
    before = s.engine.state
    restarted = (decision.patch.get("attempt") or 0) > (
        s.engine.status.get("attempt") if isinstance(s.engine.status.get("attempt"), int) else 0
    )
    assert restarted or may_follow(before, decision.state)
    if before in FINAL:
        assert decision.state is before
    creates = [action for action in decision.actions if isinstance(action, CreatePod)]
    assert not (creates and s.pod is not None), "no second pod beside a pod"
    assert not (creates and s.other_pods), "no pod while another attempt's is there"
    if decision.record is not None and decision.record.final:
        assert decision.state in FINAL


@settings(max_examples=200, deadline=None)
@given(s=SNAPSHOTS, seconds=st.floats(0, 2000))
def test_decide_writes_nothing_more_on_its_own_result(s: Snapshot, seconds: float) -> None:
    decision = decided(s, seconds)
    if not decision.patch or any(isinstance(a, CollectEvidence | ConfirmPodGone | CreatePod) for a in decision.actions):
        return
    status = merged(s.engine.status, decision.patch)
    if decision.patch.get("attempt"):
        return
    again = decided(replace(s, engine=replace(s.engine, status=status), stop=decision.stop), seconds)
    assert again.patch == {}


@settings(max_examples=400, deadline=None)
@given(s=SNAPSHOTS, seconds=st.floats(0, 2000))
def test_a_pass_that_does_nothing_is_not_due_again_at_once(s: Snapshot, seconds: float) -> None:
    """A worker would repeat it without a pause."""
    decision = decided(s, seconds)
    if not decision.patch and not decision.actions and decision.deadline is not None:
        assert decision.deadline > at(seconds).timestamp()


@given(st.sampled_from(reasons.all_reasons()), st.text(max_size=40))
def test_sentences_of_a_message_do_not_run_together(reason: reasons.Reason, details: str) -> None:
    message = Verdict(reason, details).message
    assert message.startswith(reason.sentence)
    rest = message.removeprefix(reason.sentence)
    assert rest == "" or rest.startswith(" ")
    assert message.endswith((".", "!", "?"))
    if reason.remedy:
        before = message.removesuffix(reason.remedy)
        assert before.endswith((". ", "! ", "? "))
