"""Under which conditions a run is made: commit, machine, versions, load. No name of the machine and no path of it."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.all.document import Conditions
from bench.figures.figure import MAX_TEXT

ROOT = Path(__file__).parents[2]
# What the measured paths and their floors are made of.
PACKAGES = ("aiohttp", "ipykernel", "jupyter_client", "kopf", "pyarrow", "pyzmq", "SQLAlchemy")
GIT_SECONDS = 30.0


def conditions(now: datetime.datetime) -> Conditions:
    """Of this moment."""
    head = _git("rev-parse", "HEAD")
    return Conditions(
        date=now.replace(microsecond=0),
        commit=head if len(head) == 40 else "unknown",
        changed=bool(_git("status", "--porcelain")),
        cores=len(os.sched_getaffinity(0)),
        processor=_processor(),
        load=os.getloadavg()[0],
        versions={"python": platform.python_version(), "linux": platform.release().partition("-")[0], **_versions()},
    )


def _git(*command: str) -> str:
    """What git answers about the checkout; "" where there is none."""
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            ["git", *command], cwd=ROOT, capture_output=True, text=True, check=True, timeout=GIT_SECONDS
        )
        return done.stdout.strip()
    return ""


def _processor() -> str:
    """The model's name as Linux calls it; "" where it says none."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return "".join(one for one in line.partition(":")[2].strip() if one.isprintable())[:MAX_TEXT]
    return ""


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
