"""`python -m tools.platforms wheels|build`: the images for another processor, such as linux/arm64.

`wheels` asks the package index whether each pinned package of the images has a wheel there, as the Dockerfile has no
compiler. `build` builds both images on a base of that processor. Must not push anything.
"""

from __future__ import annotations

import os
import platform as machine
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from tools.cluster import images
from tools.cluster.paths import ROOT
from tools.cluster.progress import ClusterError, run, step

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
# A platform as images have it, the processor as wheels have it.
PROCESSORS = {"linux/arm64": "aarch64", "linux/amd64": "x86_64"}
# Debian bookworm's. A wheel of a later one does not load there.
GLIBC = 36
# The Python of the base image.
PYTHON = "3.11"
Platform = Annotated[str, typer.Option("--platform", help="linux/arm64 or linux/amd64")]


def tags(platform: str) -> list[str]:
    """The platform tags of wheels that the base image takes, the newest first."""
    processor = PROCESSORS[platform]
    return [*(f"manylinux_2_{minor}_{processor}" for minor in range(GLIBC, 4, -1)), f"manylinux2014_{processor}"]


def wheels_command(pins: Path, platform: str, target: str) -> list[str]:
    """pip's own answer whether each pin, with its hash, has a wheel; installs and keeps nothing."""
    found = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--dry-run"]
    found += ["--ignore-installed", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    found += ["--implementation", "cp", "--python-version", PYTHON, "--target", target]
    return [*found, *(word for tag in tags(platform) for word in ("--platform", tag)), "-r", str(pins)]


def build_command(target: str, name: str, *, platform: str, base: str, docker: bool) -> list[str]:
    """The build of one image for the platform."""
    common = ["--platform", platform, "--target", target, "--build-arg", f"BASE_IMAGE={base}", "-t", name, str(ROOT)]
    if docker:
        return ["docker", "buildx", "build", "--load", *common]
    return ["buildah", "build", "--isolation", "chroot", "--network", "host", *common]


def emulation_missing(platform: str, *, here: str, registered: Sequence[str]) -> str:
    """Why a build's steps cannot run on this machine, with the remedy; "" if they can."""
    processor = PROCESSORS[platform]
    if here == processor or f"qemu-{processor}" in registered:
        return ""
    return (
        f"this machine is {here}, and {platform} needs qemu-{processor} in binfmt_misc: build on such a machine, or"
        " install qemu-user-static"
    )


def _registered() -> list[str]:
    folder = Path("/proc/sys/fs/binfmt_misc")
    return os.listdir(folder) if folder.is_dir() else []


def _checked(platform: str) -> str:
    if platform not in PROCESSORS:
        raise typer.BadParameter(f"{platform} is none of {', '.join(PROCESSORS)}")
    return platform


def _errors(action: Iterator[None]) -> None:
    try:
        for _ in action:
            pass
    except ClusterError as error:
        error.show()
        raise typer.Exit(1) from error


@app.command()
def wheels(platform: Platform = "linux/arm64") -> None:
    """Whether each pinned package of both images has a wheel for the platform (a minute, from the package index)."""

    def each() -> Iterator[None]:
        for target, pins in images.PINS.items():
            with step(f"{target}: wheels of {pins} for {_checked(platform)}"):
                run(wheels_command(ROOT / pins, platform, str(ROOT / "out/none")), what=f"finding wheels of {pins}",
                    remedy="pin a version that has one: the images have no compiler", seconds=600)  # fmt: skip
            yield

    _errors(each())


@app.command()
def build(
    base: Annotated[str, typer.Option("--base", help="A Debian with Python 3.11 for the platform, by its digest.")],
    platform: Platform = "linux/arm64",
) -> None:
    """Both images for the platform, on a base of yours; their names are printed, and nothing is pushed."""
    found = emulation_missing(_checked(platform), here=machine.machine(), registered=_registered())
    if found:
        print(found)
        raise typer.Exit(1)
    docker = (
        shutil.which("docker") is not None
        and not subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False, timeout=60).returncode
    )

    def each() -> Iterator[None]:
        for target in images.TARGETS:
            name = f"{images.tag(target)}-{platform.rpartition('/')[2]}"
            with step(f"{target} for {platform}"):
                run(build_command(target, name, platform=platform, base=base, docker=docker), what=f"building {target}",
                    remedy="look at the lines above", seconds=3600)  # fmt: skip
            print(name)
            yield

    _errors(each())


if __name__ == "__main__":
    app()
