"""The limits of people: the rule, the sentence, the setting; and places that are given in any order of events."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linkis_ecm.controller.admission import Admission
from linkis_ecm.controller.state.cache import Cache
from linkis_ecm.engine.admission.limits import LIMITS, NO_LIMITS, Amount, Holder, Limits, amount, parse_limits, refusal
from linkis_ecm.engine.names import pod_name
from linkis_ecm.engine.pod_view import pod_view
from linkis_ecm.model import reasons
from linkis_ecm.process.environment import SettingsError
from tools.testkit.simulation.world import PLUGIN_SPEC

NOW = datetime(2026, 11, 27, tzinfo=UTC)


def holder(name: str, user: str = "alice", namespace: str = "lab", cpu: str = "1", memory: str = "1Gi") -> Holder:
    return Holder(namespace, name, user, amount(cpu, memory))


def ask(limits: Limits, asked: Holder, *held: Holder) -> Any:
    return refusal(
        asked,
        of_user=[one for one in held if one.user == asked.user],
        of_namespace=[one for one in held if one.namespace == asked.namespace],
        limits=limits,
    )


def test_the_refusal_has_the_figure_and_the_users_own_engines() -> None:
    limits = parse_limits('{"user": {"engines": 2}}')
    assert ask(limits, holder("c"), holder("a")) is None
    refused = ask(limits, holder("c"), holder("b"), holder("a"), holder("x", "bob"))
    assert refused.limit == "user_engines"
    assert refused.sentence == "User alice has 2 of 2 engines: stop one of lab/a, lab/b."
    assert not refused.fatal


def test_names_are_compared_exactly() -> None:
    limits = parse_limits('{"user": {"engines": 1}, "users": {"Alice": {"engines": 2}}}')
    assert ask(limits, holder("b", "Alice"), holder("a", "alice")) is None
    assert limits.of_user("Alice").engines == 2
    assert limits.of_user("alice").engines == 1
    assert limits.of_user("ALICE").engines == 1


@pytest.mark.parametrize(
    ("figures", "limit", "sentence"),
    [
        ({"cpu": "2500m"}, "user_cpu", "User alice has 2 of 2.5 cpu, and this engine asks for 1: stop one of"),
        ({"memory": "2.5Gi"}, "user_memory", "User alice has 2Gi of 2.5Gi memory, and this engine asks for 1Gi: stop"),
    ],
)
def test_cpu_and_memory_are_limited_too(figures: dict[str, str], limit: str, sentence: str) -> None:
    refused = ask(parse_limits(json.dumps({"user": figures})), holder("c"), holder("a"), holder("b"))
    assert refused.limit == limit
    assert refused.sentence.startswith(sentence)


def test_the_names_of_others_are_not_told_in_a_full_namespace() -> None:
    limits = parse_limits('{"namespace": {"engines": 2}}')
    refused = ask(limits, holder("c"), holder("secret-x", "bob"), holder("secret-y", "bob"))
    assert refused.limit == "namespace_engines"
    assert refused.sentence == "Namespace lab has 2 of 2 engines: wait until others end."
    own = ask(limits, holder("c"), holder("secret-x", "bob"), holder("a"))
    assert own.sentence == "Namespace lab has 2 of 2 engines: stop one of lab/a."


def test_what_can_never_fit_is_fatal() -> None:
    refused = ask(parse_limits('{"user": {"memory": "512Mi"}}'), holder("a"))
    assert refused.fatal
    assert (
        refused.sentence
        == "The engine asks for 1Gi of memory, and user alice may have 512Mi at a time: ask for 512Mi at most."
    )


def test_many_own_engines_are_named_in_part() -> None:
    held = [holder(f"e{n:02}") for n in range(12)]
    assert ask(Limits(user=Amount(engines=12)), holder("new"), *held).sentence.endswith("lab/e09 and 2 more.")


def test_a_name_has_the_figures_for_all_where_its_own_are_left_out() -> None:
    limits = parse_limits(
        '{"user": {"engines": 3, "cpu": "4"}, "users": {"root": {"engines": 0}}, "namespaces": {"lab": {"engines": 9}}}'
    )
    assert limits.of_user("root") == Amount(engines=0, cpu_milli=4000)
    assert limits.of_user("bob") == Amount(engines=3, cpu_milli=4000)
    assert limits.of_namespace("lab") == Amount(engines=9)
    assert limits.of_namespace("other") == Amount()


@pytest.mark.parametrize(
    "text",
    [
        "x", "[]", "3", '{"user": 3}', '{"people": {}}', '{"user": {"engines": 1.5}}', '{"user": {"engines": -1}}',
        '{"user": {"cpu": "much"}}', '{"user": {"gpu": 1}}', '{"users": {"a": 1}}', '{"user": {"engines": true}}',
        "[" * 100_000,
    ],
)  # fmt: skip
def test_a_setting_that_means_nothing_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write JSON such as"):
        parse_limits(text)


def test_both_processes_read_the_setting(operator_env: Callable[..., Any]) -> None:
    assert operator_env().limits == NO_LIMITS
    assert operator_env(ECM_LIMITS='{"user": {"engines": 3}}').limits == Limits(user=Amount(engines=3))
    with pytest.raises(SettingsError, match="ECM_LIMITS has user that is no object"):
        operator_env(ECM_LIMITS='{"user": 3}')


@pytest.fixture
def operator_env(tmp_path: Any) -> Callable[..., Any]:
    from linkis_ecm.controller.settings import from_environment

    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    base = {
        "ECM_DATABASE_URL": "sqlite://", "ECM_INSTANCE": "ecm:1", "ECM_REPORT_URL": "http://op:9103",
        "ECM_TOKEN_KEY_FILE": str(key), "ECM_ARCHIVE_URL": "memory://",
    }  # fmt: skip
    return lambda **more: from_environment(base | more)


def test_the_limits_of_the_metric_are_those_of_the_rule() -> None:
    assert LIMITS == (
        "user_engines", "user_cpu", "user_memory", "user_extended", "namespace_engines", "namespace_cpu",
        "namespace_memory", "namespace_extended",
    )  # fmt: skip


# --- places


class Model:
    """A cluster of two users and two namespaces, an operator that may die at any time, and a watch that is late."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.version = 0
        # What the API server has.
        self.engines: dict[str, dict[str, Any]] = {}
        self.pods: dict[str, dict[str, Any]] = {}
        self.seen: set[str] = set()
        self.restart()

    def restart(self) -> None:
        """A new operator: it lists everything before it decides anything."""
        self.cache = Cache(epoch=NOW)
        plugin = {"metadata": {"name": "python", "resourceVersion": "1"}, "spec": PLUGIN_SPEC}
        assert self.cache.apply_plugin(plugin)
        self.admission = Admission(cache=self.cache, limits=self.limits)
        # Engines that were given a place, and the cpu of the pod that is on its way to the API server.
        self.under_way: dict[str, str] = {}
        for name in self.engines:
            self.see(name)
        for pod in self.pods.values():
            self.cache.apply_pod(pod_view(pod))

    def next(self) -> str:
        self.version += 1
        return str(self.version)

    def create(self, user: str, namespace: str, cpu: str) -> None:
        name = f"e{len(self.engines)}-{self.next()}"
        self.engines[name] = {
            # Several in one second, and the order of uids is not that of creation.
            "metadata": {"name": name, "namespace": namespace, "uid": f"{hash(name) % 97:02}-{name}",
                         "resourceVersion": self.next(), "creationTimestamp": "2026-11-27T00:00:00Z"},
            "spec": {"engineType": "python", "user": user, "resources": {"cpu": cpu}},
            "status": {},
        }  # fmt: skip

    def see(self, name: str) -> None:
        self.seen.add(name)
        self.cache.apply_engine(self.engines[name])

    def ask(self, name: str) -> None:
        engine = self.cache.engines.get((self.engines[name]["metadata"]["namespace"], name))
        if engine is None or engine.spec is None or engine.spec.resources is None or name in self.under_way:
            return
        if self.cache.pod_of(engine) is None and self.admission.ask(engine) is None:
            self.under_way[name] = engine.spec.resources.cpu or ""

    def make_pod(self) -> None:
        """The oldest pod under way arrives at the API server, and its answer at the operator."""
        name = next(iter(self.under_way))
        cpu = self.under_way.pop(name)
        if name not in self.engines:
            return
        meta, attempt = self.engines[name]["metadata"], self.engines[name]["status"].get("attempt", 0)
        self.pods[name] = {
            "metadata": {"name": pod_name(name, meta["uid"], attempt), "namespace": meta["namespace"],
                         "uid": f"pod-{self.next()}", "resourceVersion": self.next(),
                         "ownerReferences": [{"kind": "EngineConn", "uid": meta["uid"], "name": name}]},
            "spec": {"containers": [{"name": "engine", "resources": {
                "requests": {"cpu": cpu, "memory": "1Gi"},
                "limits": {"memory": "1Gi"}}}]},
        }  # fmt: skip
        self.cache.apply_pod(pod_view(self.pods[name]))

    def edit(self, name: str, cpu: str) -> None:
        """The user gives an engine another size: its pod stays as it is, its next one has the new size."""
        self.engines[name] = self.engines[name] | {
            "metadata": self.engines[name]["metadata"] | {"resourceVersion": self.next()},
            "spec": self.engines[name]["spec"] | {"resources": {"cpu": cpu}},
        }
        if name in self.seen:
            self.see(name)

    def crash(self, name: str) -> None:
        """Its pod ends, and the operator begins another attempt."""
        pod = self.pods.pop(name)
        self.cache.drop_pod(pod_view(pod))
        item = self.engines[name]
        self.engines[name] = item | {
            "metadata": item["metadata"] | {"resourceVersion": self.next()},
            "status": {"engineState": "Starting", "attempt": item["status"].get("attempt", 0) + 1},
        }
        self.see(name)

    def end(self, name: str, *, deleted: bool) -> None:
        """It ends, or is deleted with its pod; the operator hears of it."""
        item = self.engines.pop(name)
        self.pods.pop(name, None)
        key, uid = (item["metadata"]["namespace"], name), item["metadata"]["uid"]
        view = self.cache.engines.get(key)
        if view is None:
            return
        if deleted:
            self.cache.drop_engine(key, uid)
        else:
            final = {"metadata": item["metadata"] | {"resourceVersion": self.next()}}
            self.cache.apply_engine(item | final | {"status": {"engineState": "Failed"}})
        self.admission.waiting_for(view)

    def check(self) -> None:
        """Engines with a pod, or with one under way, are within every limit."""
        holding = [
            (self.engines[name], self.pods[name]["spec"]["containers"][0]["resources"]["requests"]["cpu"])
            for name in self.pods
        ] + [(self.engines[name], cpu) for name, cpu in self.under_way.items() if name in self.engines]
        for user in ("a", "b"):
            own = [amount(cpu, "1Gi") for item, cpu in holding if item["spec"]["user"] == user]
            assert len(own) <= self.limits.of_user(user).engines
            assert sum(one.cpu_milli for one in own) <= self.limits.of_user(user).cpu_milli
        for namespace in ("x", "y"):
            there = [item for item, _ in holding if item["metadata"]["namespace"] == namespace]
            assert len(there) <= self.limits.of_namespace(namespace).engines


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["create", "see", "ask", "pod", "end", "delete", "edit", "crash", "restart"]),
        st.integers(0, 30),
        st.sampled_from([("a", "x"), ("a", "y"), ("b", "x")]),
        st.sampled_from(["500m", "1", "2"]),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_never_more_than_the_limits_in_any_order_of_events_and_restarts(steps: list[Any]) -> None:
    model = Model(Limits(user=Amount(engines=2, cpu_milli=2500), namespace=Amount(engines=3)))
    for action, number, (user, namespace), cpu in steps:
        names = sorted(model.engines)
        name = names[number % len(names)] if names else None
        if action == "create":
            model.create(user, namespace, cpu)
        elif action == "restart":
            model.restart()
        elif action == "pod":
            if model.under_way:
                model.make_pod()
        elif name is not None and action == "edit":
            model.edit(name, cpu)
        elif name is not None and action == "crash":
            if name in model.pods:
                model.crash(name)
        elif name is not None and action in ("end", "delete"):
            model.end(name, deleted=action == "delete")
        elif name is not None:
            getattr(model, action)(name)
        model.check()


def test_the_oldest_that_waits_is_looked_at_first_when_a_place_is_free() -> None:
    model = Model(Limits(user=Amount(engines=1)))
    for _ in range(3):
        model.create("a", "x", "1")
    first, *others = model.engines
    for number, name in enumerate(reversed(others)):
        meta = model.engines[name]["metadata"]
        meta["creationTimestamp"] = f"2026-11-27T00:00:0{number + 1}Z"
        model.engines[name]["status"] = {"engineState": "Starting", "reason": reasons.LIMIT_REACHED.name}
    for name in model.engines:
        model.see(name)
    model.ask(first)
    view = model.cache.engines["x", first]
    model.cache.drop_engine(view.key, view.uid)
    assert [name for _, name in model.admission.waiting_for(view)] == list(reversed(others))


def test_passes_over_many_waiting_engines_count_the_holders_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(Limits(user=Amount(engines=5)))
    for _ in range(200):
        model.create("a", "x", "500m")
    for name in model.engines:
        model.see(name)
    counted = 0
    live_of = model.cache.live_of

    def counting(scope: Any) -> Any:
        nonlocal counted
        counted += 1
        return live_of(scope)

    monkeypatch.setattr(model.cache, "live_of", counting)
    for name in model.engines:
        model.ask(name)
    assert len(model.under_way) == 5
    assert counted < 20
