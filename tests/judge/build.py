"""Builds the judge with Maven, once for each state of its sources, and says how to run it.

Jars and classes stand in the cache outside the checkout, in a folder named by what they are made of, so that a warm
run starts Java and nothing else. Must not be imported by anything but tests and the checks.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tools.cluster.paths import cache

HERE = Path(__file__).parent
# Goals, not the lifecycle: its other plugins would be fetched for nothing. Their versions are the pom's.
COMPILE = "org.apache.maven.plugins:maven-compiler-plugin:compile"
COPY = "org.apache.maven.plugins:maven-dependency-plugin:copy-dependencies"
# Cold: 53 MB in some 250 artifacts from Maven Central, 30 s on two busy cores.
BUILD_SECONDS = 600
# A JVM that lives for seconds: no second compiler, no threads to collect garbage with.
JAVA = ("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m")
REMEDY = "install a JDK (17 or later) and Maven: python -m tools.cluster packages default-jdk-headless maven"


def built() -> Path:
    """The folder with `classes` and `jars`, made if it is not there. Raises RuntimeError with what to do about it."""
    sources = [HERE / "pom.xml", HERE / "jars.sha256", *sorted((HERE / "src").rglob("*.java"))]
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.relative_to(HERE).as_posix().encode() + b"\0" + source.read_bytes() + b"\0")
    folder = cache() / "judge" / digest.hexdigest()[:16]
    if not folder.exists():
        if shutil.which("mvn") is None or shutil.which("javac") is None:
            raise RuntimeError(f"Linkis's own client cannot be built here: {REMEDY}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="building-") as building:
            _build(Path(building) / "judge")
            try:
                os.rename(Path(building) / "judge", folder)
            except OSError:
                if not folder.exists():  # else another process was first
                    raise
    return folder


def _build(folder: Path) -> None:
    maven = ["mvn", "-B", "-q", "-C", "-f", str(HERE / "pom.xml"), f"-Djudge.build={folder}", COMPILE, COPY]
    offline = subprocess.run([*maven, "-o"], capture_output=True, check=False, timeout=BUILD_SECONDS)
    if offline.returncode:  # the local repository does not have everything yet
        done = subprocess.run(maven, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS)
        if done.returncode:
            raise RuntimeError(f"Maven cannot build the judge; {REMEDY}\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    found = {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in (folder / "jars").iterdir()}
    pinned = dict(reversed(line.split()) for line in (HERE / "jars.sha256").read_text().splitlines())
    if found != pinned:
        wrong = sorted(name for name in found.keys() | pinned.keys() if found.get(name) != pinned.get(name))
        raise RuntimeError(f"These jars are not the ones of tests/judge/jars.sha256: {', '.join(wrong)}")


def judge(*arguments: str, seconds: float = 400.0) -> dict[str, dict[str, Any]]:
    """Runs it; what it printed, by the name of the step. Raises RuntimeError and TimeoutExpired."""
    folder = built()
    command = [*JAVA, "-cp", f"{folder / 'classes'}:{folder / 'jars'}/*", "Judge", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    if done.returncode:
        raise RuntimeError(f"the judge ended with {done.returncode}: {done.stderr[-3000:]}")
    steps = [json.loads(line) for line in done.stdout.splitlines()]
    return {step["step"]: step for step in steps}


if __name__ == "__main__":
    print(f"Linkis's own client: {built()}")  # noqa: T201
