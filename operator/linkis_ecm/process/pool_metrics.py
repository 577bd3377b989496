"""What the operator counts of warm pools, by plugin. Must not know what a pool is made of."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from linkis_ecm.model.engine_status import ColdReason

STATES = ("ready", "starting", "ending", "stuck")
SOURCES = ("Value", "Schedule", "Rate")
# From a claim right after the refill to maxAge's default, a day.
_AGE_BUCKETS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600)


class PoolMetrics:
    """The families of `ecm_warm_pool_*`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._members = Gauge(
            "ecm_warm_pool_members",
            "Pods of a plugin's warm pool, by state: ready (an engine can take it), starting, ending, stuck (a minute"
            " over its grace and still there). None where this replica does not lead.",
            ["plugin", "state"],
            registry=registry,
        )
        self._wanted = Gauge(
            "ecm_warm_pool_wanted", "Pods that a plugin's warm pool is to have ready.", ["plugin"], registry=registry
        )
        self._wanted_from = Gauge(
            "ecm_warm_pool_wanted_from",
            "Pods that a plugin's warm pool is to have ready, by what that comes from: Value (size), Schedule, or Rate"
            " (scaling).",
            ["plugin", "source"],
            registry=registry,
        )
        self._problem = Gauge(
            "ecm_warm_pool_problem",
            "1 while a plugin's warm pool cannot be filled in a namespace, by reason, as the plugin's status has it.",
            ["plugin", "reason"],
            registry=registry,
        )
        self.creates = Counter(
            "ecm_warm_pool_creates",
            "Creates of pods of a warm pool, by outcome: made, refused (by the API server), unanswered (repeated under"
            " the same name).",
            ["plugin", "outcome"],
            registry=registry,
        )
        self.deletes = Counter(
            "ecm_warm_pool_deletes",
            "Pods of a warm pool deleted before an engine took them, by reason: age, ended, failed, key,"
            " no_pool, node, refused, room, secret, share, silent, surplus, tampered, template, unknown (who made it).",
            ["plugin", "reason"],
            registry=registry,
        )
        self.starts = Counter(
            "ecm_warm_pool_starts",
            "Starts of engines whose plugin has a warm pool, by origin: warm, or cold; and why cold, as coldReason of"
            " the engine's status.startup has it. PoolEmpty and MemberTaken: a larger pool helps.",
            ["plugin", "origin", "reason"],
            registry=registry,
        )
        self.age_at_claim = Histogram(
            "ecm_warm_pool_age_at_claim_seconds",
            "How long a pod had waited in its warm pool when an engine took it.",
            buckets=_AGE_BUCKETS,
            registry=registry,
        )
        # The reasons that are shown now, by plugin.
        self._shown: dict[str, frozenset[str]] = {}

    def show(
        self, plugin: str, *, states: Mapping[str, int], wanted: Mapping[str, int], reasons: frozenset[str]
    ) -> None:
        """The pool as it is now. Counters of a pool that is shown for the first time begin at 0."""
        if plugin not in self._shown:
            self.starts.labels(plugin, "warm", "")
            for why in ColdReason:
                self.starts.labels(plugin, "cold", why.value)
        for state in STATES:
            self._members.labels(plugin, state).set(states.get(state, 0))
        self._wanted.labels(plugin).set(sum(wanted.values()))
        for source in SOURCES:
            self._wanted_from.labels(plugin, source).set(wanted.get(source, 0))
        for reason in reasons:
            self._problem.labels(plugin, reason).set(1)
        for reason in self._shown.get(plugin, frozenset()) - reasons:
            self._problem.remove(plugin, reason)
        self._shown[plugin] = reasons

    def forget(self, plugin: str) -> None:
        """The plugin has no pool any more, or this replica does not lead."""
        if plugin not in self._shown:
            return
        for reason in self._shown.pop(plugin):
            self._problem.remove(plugin, reason)
        for state in STATES:
            self._members.remove(plugin, state)
        self._wanted.remove(plugin)
        for source in SOURCES:
            self._wanted_from.remove(plugin, source)

    def forget_all(self) -> None:
        for plugin in list(self._shown):
            self.forget(plugin)
