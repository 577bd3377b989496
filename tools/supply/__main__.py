"""`python -m tools.supply repository|image`: what the repository and the images hold."""

from __future__ import annotations

from pathlib import Path

import typer

from tools.supply import repository as source
from tools.supply import rootfs

ROOT = Path(__file__).parents[2]
app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


def _judge(what: str, faults: list[str]) -> None:
    for fault in faults:
        print(fault)
    print(f"{what}: {len(faults)} faults")
    raise typer.Exit(1 if faults else 0)


@app.command()
def repository() -> None:
    """Pins, owners, licence, no binaries, no secrets, file modes; without network."""
    files = source.tracked(ROOT)
    _judge(f"{len(files)} files", source.faults(files))


@app.command()
def image(archive: Path) -> None:
    """Which files of an image (an OCI archive) must not ship."""
    files = rootfs.entries(archive)
    _judge(f"{len(files)} files", rootfs.faults(files))


if __name__ == "__main__":
    app()
