"""Makes an expression of a dashboard one that Prometheus evaluates by itself: Grafana's variables get values.

Must not ask Prometheus.
"""

from __future__ import annotations

from collections.abc import Mapping

# Of the dashboards' own variables, with All chosen.
ALL: dict[str, str] = dict.fromkeys(("$cluster", "$namespace", "$release", "$shard"), ".*")
VALUES: Mapping[str, str] = ALL | {"$__rate_interval": "5m", "$__range": "1h"}


def plain(expression: str, values: Mapping[str, str] = VALUES) -> str:
    """The expression without Grafana's variables. Raises ValueError for one that has no value here."""
    for name, value in values.items():
        expression = expression.replace(name, value)
    if "$" in expression:
        raise ValueError(f"a variable has no value: {expression}")
    return expression
