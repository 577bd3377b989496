"""Writes the alerts as files: `python -m tools.observability.rules`. A test compares them.

- manifests/alerts/linkis-ecm.yaml: a rule file for a plain Prometheus;
- helm/linkis-ecm/files/alerts.yaml: the same groups for the chart's PrometheusRule, with places for the URL and for
  what the release's series are known by;
- docs/runbooks/README.md: the table of all alerts.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer
import yaml

from tools.observability.alerts import GROUPS, RUNBOOKS, Alert
from tools.reference import table

ROOT = Path(__file__).parents[2]
HEAD = "# Written by `make generate` from tools/observability/alerts.py; do not edit.\n"
# What the chart's template replaces by `metrics.prometheusRule.runbookUrl`.
PLACE = "RUNBOOK_URL"
# What it replaces by the labels that the release's series have: its namespace, and its name where monitors of the chart
# put it there.
HERE_PLACE = 'namespace="RELEASE_NAMESPACE"'
_ABSENT = re.compile(r"\babsent\((\w+)\)")


def groups(runbooks: str, here: str = "") -> dict[str, Any]:
    """The content of a rule file. `here`: labels of the one installation whose absence fires, else any's does.

    `absent` has no label of what is absent but those that it asks for: without them nobody can tell which installation
    is down, and one that runs hides one that does not.
    """
    return {
        "groups": [
            {"name": f"linkis-ecm.{name}", "rules": [_rule(alert, runbooks, here) for alert in members]}
            for name, members in GROUPS.items()
        ]
    }


def _rule(alert: Alert, runbooks: str, here: str) -> dict[str, Any]:
    one = _ABSENT.sub(rf"absent(\1{{{here}}})", alert.expr) if here else alert.expr
    return {
        "alert": alert.name,
        "expr": one,
        "for": alert.lasts,
        "labels": {"severity": alert.severity},
        "annotations": told(alert, runbooks),
    }


def told(alert: Alert, runbooks: str = RUNBOOKS) -> dict[str, str]:
    """What its reader is told."""
    return {
        "summary": alert.summary,
        "description": alert.description,
        "runbook_url": f"{runbooks}/{alert.page}",
    }


def rule_file(runbooks: str = RUNBOOKS, here: str = "") -> str:
    """A rule file as YAML."""
    return HEAD + yaml.safe_dump(groups(runbooks, here), sort_keys=False, width=120, allow_unicode=True)


INDEX = """\
# Runbooks

<!-- The table is written by `make generate` from tools/observability/alerts.py; do not edit. -->
One page for each alert of [manifests/alerts](../../manifests/alerts/linkis-ecm.yaml), which the chart installs as a
PrometheusRule by `metrics.prometheusRule.enabled`: what it means, whom it harms, how to find the cause, what to do.
critical is for now, warning for working hours, info for a dashboard.

Commands use `$NS` for the namespace of the release, such as `NS=linkis`, and `$ENGINES` for that of its engines; the
release is called `linkis-ecm`. A test runs each command of a Diagnosis on a real cluster. Expressions are for
Prometheus, one a block.

**First** read Impact: most faults leave engines that run alone. Then take the commands of Diagnosis from above to
below, and of Mitigation the line that fits what they show. To restart operator or gateway ends no engine.

**Values** such as `operator.resources` are those of the chart. Change them where yours are kept; by hand:

```
helm upgrade linkis-ecm helm/linkis-ecm -n "$NS" --reset-then-reuse-values --wait --set operator.replicas=1
```

Names that begin with `spec.` are fields of an EngineConnPlugin (`kubectl get ecp`). For a type that the chart makes
set the same field under `engines` of the values, as the next upgrade writes it anew; else `kubectl edit ecp
NAME`. Engines that run keep what they had. `ECM_...` are variables of a process, set by `operator.extraEnv` or
`gateway.extraEnv`.

**The operator's own `/readyz`** says in a sentence what keeps it from its work, `ok` if nothing does, and the
namespaces that it cannot serve. The command forwards a port, asks, and ends the forwarding. With several replicas put
`pod/NAME` in the place of `deployment/linkis-ecm-operator`: the one that leads is HOLDER in `kubectl get leases -n
"$NS" -o custom-columns=NAME:.metadata.name,HOLDER:.spec.holderIdentity`.

**With shards** (`operator.shards`) the label `shard` of an alert, and the dashboards' variable, say which operator it
is; without the label it is the one that has no name. Take `deployment/linkis-ecm-operator-SHARD` in the commands, and
`-l linkis.apache.org/shard=SHARD` for its pods; [shards](../shards.md) says what is each one's and what is common.

`kubectl get --raw "/readyz?verbose"` asks the API server, and says nothing of the operator.

## When a page does not help

1. Look at the other alerts that fire: one cause fires several. Begin with the one of the database, the API server or
   the operator.
2. `helm test -n "$NS" linkis-ecm` says whether the gateway answers.
3. Restart the part whose log has the errors: `kubectl rollout restart deployment -n "$NS" -l
   app.kubernetes.io/component=operator` (or `operator-shard`, or `gateway`). Engines run on, and code that runs in
   them is not lost.
4. Still there: report it with the alert's text, the part's log (`--tail=2000`), the answer of `/readyz`, and the
   version (`helm list -n "$NS"`).

## All alerts

"""


def index() -> str:
    """docs/runbooks/README.md."""
    rows = [
        (f"[{alert.name}]({alert.page})", alert.severity, alert.lasts, alert.summary)
        for members in GROUPS.values()
        for alert in members
    ]
    return INDEX + table(("alert", "severity", "after", "summary"), rows)


FILES = {
    "manifests/alerts/linkis-ecm.yaml": rule_file,
    "helm/linkis-ecm/files/alerts.yaml": lambda: rule_file(PLACE, HERE_PLACE),
    "docs/runbooks/README.md": index,
}


def main() -> None:
    """Writes all files."""
    for name, text in FILES.items():
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text())


if __name__ == "__main__":
    typer.run(main)
