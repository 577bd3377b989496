"""Where the judge cannot be had, the run fails and says what to do: it is never skipped."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.judge import build


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_without_java_or_maven_it_fails_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="packages default-jdk-headless maven"):
        build.built()


def test_jars_that_are_not_the_pinned_ones_are_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def maven(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        (folder,) = [part.partition("=")[2] for part in command if part.startswith("-Djudge.build=")]
        (Path(folder) / "jars").mkdir(parents=True)
        (Path(folder) / "jars" / "gson-2.8.9.jar").write_bytes(b"something else")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(build.subprocess, "run", maven)
    monkeypatch.setattr(build.shutil, "which", lambda name: f"/bin/{name}")
    with pytest.raises(RuntimeError, match=r"not the ones of tests/judge/jars\.sha256: .*gson"):
        build.built()
    assert not list(tmp_path.rglob("*.jar"))


def test_the_error_of_a_failed_maven_build_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.CompletedProcess([], 1, "[ERROR] Could not transfer artifact", "")
    monkeypatch.setattr(build.subprocess, "run", lambda *_, **__: done)
    monkeypatch.setattr(build.shutil, "which", lambda name: f"/bin/{name}")
    with pytest.raises(RuntimeError, match="Could not transfer artifact"):
        build.built()
