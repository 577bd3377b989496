"""Commands of Helm in the documentation can be run as they are written, and keep the release's other values."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.unit.chart.test_chart import CHART
from tools.cluster.tools import helm

ROOT = Path(__file__).parents[3]
PAGES = (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.md"))
KEEPS = "--reset-then-reuse-values"


def commands() -> list[str]:
    """Each `helm install` or `helm upgrade` of a code block, on one line."""
    found = []
    for page in PAGES:
        for block in page.read_text().split("```")[1::2]:
            lines = [line.strip() for line in re.sub(r"\\\n\s*", "", block).splitlines()]
            found += [line.partition(" #")[0] for line in lines if re.match(r"helm (install|upgrade) ", line)]
    return found


COMMANDS = commands()


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 10


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_whole_and_its_values_are_the_charts(command: str) -> None:
    words = shlex.split(command)
    assert "…" not in command
    assert "helm/linkis-ecm" in words
    # An upgrade takes the chart's defaults for what it is not given, so also another image and database.
    assert words[1] == "install" or "--install" in words or KEEPS in words or "-f" in words
    values: list[str] = []
    for option, value in itertools.pairwise(words):
        if option in ("--set", "--set-json"):
            # What stands in capitals is the reader's to name.
            values += [option, value.replace("SECOND", "second").replace("REGISTRY", "registry")]
    secret = () if any("auth.existingSecret" in value for value in values) else ("--set", "auth.existingSecret=x")
    done = subprocess.run(
        [str(helm()), "template", "x", CHART, *secret, *values], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
