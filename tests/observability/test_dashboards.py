"""The dashboards are what the code makes; a panel says what it shows, an expression asks for what is counted."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools import reference
from tools.dashboards.__main__ import FOLDERS
from tools.dashboards.boards import BOARDS
from tools.dashboards.build import to_json
from tools.dashboards.panels import CONSOLE, HERE_OF_SHARDS, Board, Panel
from tools.observability.alerts import alerts
from tools.observability.evaluating import plain
from tools.observability.expressions import names, problems, series_of_operators
from tools.observability.prometheus import binary

ROOT = Path(__file__).parents[2]
PANELS = [(board, panel) for board in BOARDS for panel in board.panels()]
IDS = [f"{board.name}: {panel.title}" for board, panel in PANELS]
# Grafana's names of units (public/app/... of its own registry), those that we use.
UNITS = {"short", "s", "ops", "reqps", "bytes", "Bps", "percentunit"}


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_a_committed_dashboard_is_what_the_code_makes(board: Board, folder: str) -> None:
    assert (ROOT / folder / f"{board.name}.json").read_text() == to_json(board), "run `make generate` and commit"
    assert {path.stem for path in (ROOT / folder).iterdir()} == {board.name for board in BOARDS}


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=IDS)
def test_a_panel_says_what_it_shows_and_where_to_go_on(board: Board, panel: Panel) -> None:
    assert panel.unit in UNITS
    assert panel.description.endswith(".")
    assert len(panel.description) > 10
    assert panel.link == CONSOLE or (ROOT / f"docs/runbooks/{panel.link}.md").is_file()
    assert panel.queries
    for query in panel.queries:
        assert bool(query.legend) != (panel.kind == "number")


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=IDS)
def test_a_panel_asks_for_what_is_counted_in_one_installation(board: Board, panel: Panel) -> None:
    for query in panel.queries:
        assert problems(query.expr) == []
        assert query.expr.count("$namespace") == query.expr.count("{"), "each selector asks for the installation"
        for name in names(query.expr):
            asked = query.expr.count(f'{name}{{cluster=~"$cluster"')
            for_shards = query.expr.count(f"{name}{{{HERE_OF_SHARDS}")
            # A gateway has no such label: with a shard chosen its panels would be empty.
            assert for_shards == (asked if name in series_of_operators() else 0), name
        by = query.legend.split("{{")[1:]
        for label in (part.split("}}")[0] for part in by):
            assert label in query.expr or label == "instance", f"the legend shows {label}, which the expression sums up"


def test_each_expression_parses(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}_{letter}", "expr": plain(query.expr)}
        for number, (_, panel) in enumerate(PANELS)
        for letter, query in enumerate(panel.queries)
    ]
    rules = [rule | {"record": rule["record"].replace("panel:", "panel:p")} for rule in rules]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        [binary("promtool"), "check", "rules", "rules.yaml"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_family_is_shown_or_asked_for_by_an_alert() -> None:
    asked = [query.expr for _, panel in PANELS for query in panel.queries] + [alert.expr for alert in alerts()]
    shown = {name for expression in asked for name in names(expression)}
    families = {family.name for process in reference.families().values() for family in process}
    assert {name for name in families if not any(one.startswith(name) for one in shown)} == set()


def test_no_two_panels_of_a_dashboard_have_one_title() -> None:
    for board in BOARDS:
        titles = Counter(panel.title for panel in board.panels())
        assert [title for title, count in titles.items() if count > 1] == []


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_grafana_gets_all_of_it(board: Board) -> None:
    made: dict[str, Any] = json.loads(to_json(board))
    panels = [panel for panel in made["panels"] if panel["type"] != "row"]
    assert [panel["title"] for panel in panels] == [panel.title for panel in board.panels()]
    assert [panel["id"] for panel in made["panels"]] == list(range(1, len(made["panels"]) + 1))
    for panel, source in zip(panels, board.panels(), strict=True):
        assert panel["fieldConfig"]["defaults"]["unit"] == source.unit
        assert panel["description"] == source.description
        assert panel["links"]
        assert [target["expr"] for target in panel["targets"]] == [query.expr for query in source.queries]
        assert panel["datasource"]["uid"] == "${datasource}"
        place = panel["gridPos"]
        assert 0 <= place["x"] <= 24 - place["w"]
    # A ConfigMap holds 1 MiB, and all four are in one.
    assert len(to_json(board)) < 200_000
    assert [variable["name"] for variable in made["templating"]["list"]] == [
        "datasource",
        "cluster",
        "namespace",
        "release",
        "shard",
        "console",
    ]


def test_the_documented_command_sets_the_consoles_address_in_each_dashboard(tmp_path: Path) -> None:
    page = (ROOT / "docs/monitoring.md").read_text()
    (command,) = re.findall(r"```sh\n(sed .*)\n```", page)
    folder = tmp_path / "manifests/dashboards"
    shutil.copytree(ROOT / "manifests/dashboards", folder)
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True, timeout=10)
    for path in folder.glob("*.json"):
        (variable,) = [one for one in json.loads(path.read_text())["templating"]["list"] if one["name"] == "console"]
        assert variable["query"] == "https://ecm.example.org/console"


def test_the_overview_is_for_a_lead() -> None:
    """It fits two screens: what is wrong is seen without scrolling far."""
    assert len(BOARDS[0].panels()) <= 25
