"""The images name no processor: what `make images` and `make wheels` ask for another one, and what they cannot."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools import platforms
from tools.cluster import images

ROOT = Path(__file__).parents[2]
# Words by which a file would be of one processor alone.
PROCESSOR = re.compile(r"amd64|x86.64|i[36]86|aarch64|arm64|linux-gnu", re.IGNORECASE)


@pytest.mark.parametrize("name", ["Dockerfile", "tools/image/prune.py", *images.PINS.values()])
def test_what_images_are_made_of_names_no_processor(name: str) -> None:
    assert PROCESSOR.findall((ROOT / name).read_text()) == []


def test_wheels_are_asked_for_with_hashes_and_no_newer_libc_than_the_base_has() -> None:
    command = platforms.wheels_command(ROOT / "requirements/runtime.txt", "linux/arm64", "x")
    assert {"--require-hashes", "--only-binary=:all:", "--dry-run", "--no-deps"} <= set(command)
    assert "manylinux_2_36_aarch64" in command
    assert "manylinux2014_aarch64" in command
    assert not [word for word in command if "2_37" in word or "x86" in word]
    assert f"--python-version {platforms.PYTHON}" in " ".join(command)
    assert f"python{platforms.PYTHON}/" in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("docker", [True, False])
@pytest.mark.parametrize("target", images.TARGETS)
def test_an_image_is_built_for_the_platform_on_a_base_by_digest(docker: bool, target: str) -> None:
    command = platforms.build_command(target, "n:1", platform="linux/arm64", base="b@sha256:1", docker=docker)
    assert command[0] == ("docker" if docker else "buildah")
    words = " ".join(command)
    assert f"--platform linux/arm64 --target {target} --build-arg BASE_IMAGE=b@sha256:1 -t n:1" in words
    assert f"AS {target}\n" in (ROOT / "Dockerfile").read_text()
    assert "push" not in words


def test_a_machine_that_cannot_run_the_steps_says_what_is_missing() -> None:
    assert platforms.emulation_missing("linux/arm64", here="aarch64", registered=()) == ""
    assert platforms.emulation_missing("linux/arm64", here="x86_64", registered=("qemu-aarch64",)) == ""
    told = platforms.emulation_missing("linux/arm64", here="x86_64", registered=("register", "status"))
    assert "qemu-user-static" in told
