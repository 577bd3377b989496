"""`python -m tools.dashboards` writes the dashboards: for everybody into manifests, for the chart into its files.

Helm reads no file outside of the chart, so each is there twice. A test compares them.
"""

from __future__ import annotations

from pathlib import Path

import typer

from tools.dashboards.boards import BOARDS
from tools.dashboards.build import to_json

ROOT = Path(__file__).parents[2]
FOLDERS = ("manifests/dashboards", "helm/linkis-ecm/files/dashboards")


def main() -> None:
    """Writes all of them."""
    for folder in FOLDERS:
        (ROOT / folder).mkdir(parents=True, exist_ok=True)
        for board in BOARDS:
            (ROOT / folder / f"{board.name}.json").write_text(to_json(board))


if __name__ == "__main__":
    typer.run(main)
