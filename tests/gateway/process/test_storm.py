"""The flood benchmark and the fuzzer run: each for seconds, over one installation of real processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.floods.__main__ import line, markdown, run_floods
from bench.floods.table import FLOODS
from tools.fuzz.__main__ import run
from tools.fuzz.findings import Findings
from tools.loopback.installation import installation

SECONDS = 2.0


# Nine processes start: 12 s of a processor, and many times as long on a machine that has none to spare.
@pytest.mark.timeout(500)
async def test_a_flood_is_measured_and_every_port_is_fuzzed(tmp_path: Path) -> None:
    with installation(tmp_path) as made:
        (calm,), not_run = await run_floods(made, FLOODS[:1], SECONDS)
        assert not not_run
        assert calm.seen.user.took
        assert calm.seen.gateway_health.took
        assert calm.seen.operator_health.took
        assert not calm.seen.user.failed
        assert min(calm.seen.peaks[name] for name in ("gateway", "operator", "agent")) > 10 << 20
        assert "nobody attacks" in line(calm.cells)
        assert "nobody attacks" in markdown([calm])
        findings = Findings(tmp_path / "found", seed=1)
        await run(made, SECONDS, 1, findings)
    # How late an answer comes is the machine's here, which runs other tests.
    assert not [kind for kind in findings.seen if "/healthz late" not in kind]


def test_each_flood_has_a_name_of_its_own() -> None:
    assert len({flood.name for flood in FLOODS}) == len(FLOODS) > 30
