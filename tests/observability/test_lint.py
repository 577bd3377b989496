"""Prometheus's own linter finds nothing in what operator and gateway serve."""

from __future__ import annotations

import subprocess

import pytest

from linkis_ecm.controller.metrics import Metrics as OperatorMetrics
from linkis_ecm.gateway.metrics import Metrics as GatewayMetrics
from tools.observability.prometheus import binary


@pytest.mark.parametrize("made", [OperatorMetrics, GatewayMetrics], ids=["operator", "gateway"])
def test_the_linter_of_prometheus_finds_nothing(made: type[OperatorMetrics] | type[GatewayMetrics]) -> None:
    done = subprocess.run(
        [binary("promtool"), "check", "metrics"], input=made().registry.text(), capture_output=True, check=False,
        timeout=60,
    )  # fmt: skip
    assert (done.returncode, (done.stdout + done.stderr).decode()) == (0, "")
