"""Where promtool and prometheus are: the machine's own, else Debian's, unpacked into the cache.

The package is unpacked and not installed: its installation would start a server, and needs root. Must not run either.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

import typer

from tools.cluster.paths import cache
from tools.cluster.progress import ClusterError, run, step

PACKAGE = "prometheus"
NAMES = ("promtool", "prometheus")
# 20 MB from the machine's mirror: 2 s here.
DOWNLOAD_SECONDS = 300.0
REMEDY = "put promtool and prometheus on PATH, or use a Debian machine whose apt sources have the package prometheus"


def binary(name: str) -> Path:
    """promtool or prometheus. Raises ClusterError where neither the machine nor its apt has it."""
    found = shutil.which(name)
    return Path(found) if found else _unpacked() / name


def _unpacked() -> Path:
    """The folder with both. Two at once: the second waits for the first and takes its result."""
    folder = cache() / "prometheus"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not all((folder / name).exists() for name in NAMES):
            with step("promtool and prometheus from Debian"):
                _unpack(folder)
    return folder


def _unpack(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        # apt drops root for a download and then cannot write into a folder of root's: it is told to stay who it is.
        download = ("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", PACKAGE)
        try:
            run(download, what="downloading prometheus", remedy=REMEDY, seconds=DOWNLOAD_SECONDS, cwd=Path(scratch))
        except ClusterError:
            if os.geteuid() != 0:
                raise
            # The lists are missing or name a version which the mirror no longer has.
            run(("apt-get", "update", "-q"), what="apt-get update", remedy=REMEDY, seconds=DOWNLOAD_SECONDS)
            run(download, what="downloading prometheus", remedy=REMEDY, seconds=DOWNLOAD_SECONDS, cwd=Path(scratch))
        (package,) = Path(scratch).glob("*.deb")
        unpack = ("dpkg-deb", "--extract", package, scratch)
        run(unpack, what="unpacking prometheus", remedy=REMEDY, seconds=60)
        for name in NAMES:
            (Path(scratch) / "usr/bin" / name).replace(folder / name)


def main() -> None:
    """Fetches both programs where they are missing, and prints where they are."""
    for one in NAMES:
        print(binary(one))


if __name__ == "__main__":
    typer.run(main)
