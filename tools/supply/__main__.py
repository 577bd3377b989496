"""`python -m tools.supply repository|image|sbom|key|sign|verify`: what the repository and the images hold, signed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from tools.cluster import images
from tools.cluster.progress import ClusterError, step
from tools.supply import release, rootfs
from tools.supply import repository as source

ROOT = Path(__file__).parents[2]
# Ignored by git.
OUT = ROOT / "out/images"
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
    _judge(f"{len(files)} files", rootfs.faults(files, installs=archive.parent.name == "engine-python"))


def _each(action: Callable[[str, Path], None]) -> None:
    try:
        for target in images.TARGETS:
            action(target, OUT / target)
    except ClusterError as error:
        error.show()
        raise typer.Exit(1) from error


@app.command()
def sbom() -> None:
    """Writes both images with their contents (SPDX, CycloneDX) and provenance to out/images."""

    def one(target: str, folder: Path) -> None:
        with step(f"{target}: archive"):
            tag = images.export(target, folder / release.ARCHIVE)
        with step(f"{target}: contents"):
            base, archive = images.base_image()
            release.list_contents(folder, release.source(target, tag, base, archive, ROOT / images.PINS[target]))

    _each(one)


@app.command()
def key() -> None:
    """A new key pair of cosign's, outside the checkout."""
    pair = release.keys()
    try:
        release.make_keys(pair)
    except ClusterError as error:
        error.show()
        raise typer.Exit(1) from error
    print(f"{pair.private} signs and is secret; {pair.public} verifies and is published")


@app.command()
def sign(
    unclean: Annotated[bool, typer.Option("--unclean", help="Also what was built from uncommitted changes.")] = False,
) -> None:
    """Signs what `sbom` wrote."""

    def one(target: str, folder: Path) -> None:
        if not unclean:
            release.require_clean(folder)
        with step(f"{target}: signatures"):
            release.sign(folder, target, release.keys())

    _each(one)


@app.command()
def verify() -> None:
    """Whether the images in out/images, their contents and provenance are as they were signed."""
    _each(lambda target, folder: print(f"{target}: {release.verify(folder, release.keys())}"))


if __name__ == "__main__":
    app()
