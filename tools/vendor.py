"""Takes the browser libraries of the console from npm's packages, and axe-core of its tests from a Python one.

`python -m tools.vendor` writes the console's into the checkout: who takes a newer version needs npm, and nobody else
does. `python -m tools.vendor axe` keeps axe-core in the cache, outside of the checkout. A package is pinned by the
SHA-512 of its tarball, as npm's own lock file pins it, and each file that is written by its SHA-256. npm's and pip's
configuration name the registries. Must not change a library's code: the edits below make one file find another, a
script a module, and of a package's description what a list of an image's contents needs.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from tools.cluster.paths import cache

ROOT = Path(__file__).parents[1]
VENDOR = ROOT / "operator/linkis_ecm/gateway/pages/console/vendor"
# A tarball of these packages has 700 KB at most.
MAX_BYTES = 8 << 20


class VendorError(Exception):
    """A package or a file is not the one that is pinned."""


@dataclass(frozen=True)
class VendoredFile:
    """One file of a package. `edit` makes the written bytes from those in the tarball."""

    path: str
    name: str
    sha256: str
    edit: Callable[[bytes], bytes] = bytes


@dataclass(frozen=True)
class Package:
    """One version of an npm package, and the files that are taken from it."""

    name: str
    version: str
    integrity: str
    files: tuple[VendoredFile, ...]


def _beside(data: bytes) -> bytes:
    """Import preact from the file beside it: a page without an inline import map has no bare names."""
    return _without_map(data.replace(b'from"preact"', b'from"./preact.mjs"'))


def _as_module(data: bytes) -> bytes:
    """A script that sets a global, as a module that exports it."""
    return data.rstrip() + b"\nexport default uPlot;\n"


def _without_map(data: bytes) -> bytes:
    """Without the last line, which names a source map that is not served."""
    return data.partition(b"\n//# sourceMappingURL=")[0] + b"\n"


def _identity(data: bytes) -> bytes:
    """Of a package.json what says which package this is, and its licence: by it syft lists the package."""
    known = json.loads(data)
    kept = {name: known[name] for name in ("name", "version", "license", "homepage", "repository") if name in known}
    return json.dumps(kept, indent=1, sort_keys=True).encode() + b"\n"


CONSOLE = (
    Package(
        "preact",
        "11.2.0",
        "sha512-/HfHI/7N84e6GrWBJ3J280z3mLaRJiDcSvj/A+y/4AbLnND/1UlGHe1sR6oYuTGwId0nP7dqDU9OnLxMPZ7xBg==",
        (
            VendoredFile(
                "package/dist/preact.mjs",
                "preact.mjs",
                "225d7a773766e6fb2cfcc45274fe41d2059f5782f3f2c4569aa5132a2d3a2902",
                _without_map,
            ),
            VendoredFile(
                "package/hooks/dist/hooks.mjs",
                "hooks.mjs",
                "13518e8899847145604866b14612f994ed70d894a423b64694b6e764d7b956c9",
                _beside,
            ),
            VendoredFile(
                "package/package.json",
                "preact/package.json",
                "244ba2021922b85177fab460efdfe79224259bdd2d78e5eb12a142b2845c71c6",
                _identity,
            ),
            VendoredFile(
                "package/LICENSE", "preact.LICENSE", "1fe6958409c8c257a70c587a18b6f7f412b179b456630790d30b2ec9a8e4b7d4"
            ),
        ),
    ),
    Package(
        "htm",
        "3.1.1",
        "sha512-983Vyg8NwUE7JkZ6NmOqpCZ+sh1bKv2iYTlUkzlWmA5JD2acKoxd4KVxbMmxX/85mtfdnDmTFoNKcg5DGAvxNQ==",
        (
            VendoredFile(
                "package/dist/htm.mjs", "htm.mjs", "ab33dd3f38059b9be4d5f5350128eefb2356639c4e0bbe9d9e8b3ba75847e9e4"
            ),
            VendoredFile(
                "package/package.json",
                "htm/package.json",
                "046b1837d4751a5d4f8bf4bde70d3a2caa5cf5b5ce6a14099bad82dfcf3bd450",
                _identity,
            ),
            VendoredFile(
                "package/LICENSE", "htm.LICENSE", "740725f7252e750af735d0028cc534970772f513331e9f68150fede8fb3ce00f"
            ),
        ),
    ),
    Package(
        "uplot",
        "1.6.32",
        "sha512-KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw==",
        (
            VendoredFile(
                "package/dist/uPlot.iife.min.js",
                "uplot.mjs",
                "073f022c867cb9c40f0be28f5d680830857a5b3a04082c2473880c8328a12e04",
                _as_module,
            ),
            VendoredFile(
                "package/dist/uPlot.min.css",
                "uplot.css",
                "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
            ),
            VendoredFile(
                "package/package.json",
                "uplot/package.json",
                "6cd93f4f46184f035bda057881d9e0fe8e36c03516006736fed685d44db6223d",
                _identity,
            ),
            VendoredFile(
                "package/LICENSE", "uplot.LICENSE", "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd"
            ),
        ),
    ),
)
# npm has newer ones. This is npm's own file of that version, byte by byte (compared on 2026-11-27), and pip is there.
AXE_VERSION = "4.14.0"
AXE_WHEEL = f"pytest-playwright-axe=={AXE_VERSION}"
AXE_FILE = "pytest_playwright_axe/resources/axe.min.js"
AXE_SHA256 = "20c09fe157a8a34a30e241aaa1fcdade657734f08ab379ecfbeb7d45cc46e878"


def files_of(package: Package, tarball: bytes) -> dict[str, bytes]:
    """The package's files by the names that they get. Raises VendorError where anything is not as pinned."""
    found = "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()
    if found != package.integrity:
        raise VendorError(f"{package.name} {package.version} is {found}, and {package.integrity} is pinned")
    taken = {}
    with tarfile.open(fileobj=io.BytesIO(tarball), mode="r:gz") as archive:
        for file in package.files:
            try:
                member = archive.extractfile(file.path)
            except KeyError:
                member = None
            if member is None:
                raise VendorError(f"{package.name} {package.version} has no file {file.path}")
            taken[file.name] = file.edit(member.read(MAX_BYTES))
            sha256 = hashlib.sha256(taken[file.name]).hexdigest()
            if sha256 != file.sha256:
                raise VendorError(f"{file.name} has the SHA-256 {sha256}, and {file.sha256} is pinned")
    return taken


def fetch(package: Package) -> bytes:
    """The tarball, by npm. Raises VendorError."""
    with tempfile.TemporaryDirectory() as folder:
        spec = f"{package.name}@{package.version}"
        command = ["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", folder, spec]
        try:
            subprocess.run(command, check=True, timeout=300, cwd=folder, capture_output=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise VendorError(f"npm does not give {spec}: {error}") from None
        (tarball,) = Path(folder).glob("*.tgz")
        return tarball.read_bytes()


def axe_of(wheel: bytes) -> bytes:
    """axe-core's script in the wheel. Raises VendorError where it is not as pinned."""
    try:
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive, archive.open(AXE_FILE) as file:
            script = file.read(MAX_BYTES)
    except (KeyError, zipfile.BadZipFile) as error:
        raise VendorError(f"{AXE_WHEEL} has no {AXE_FILE}: {error}") from None
    sha256 = hashlib.sha256(script).hexdigest()
    if sha256 != AXE_SHA256:
        raise VendorError(f"{AXE_FILE} has the SHA-256 {sha256}, and {AXE_SHA256} is pinned")
    return script


def fetch_axe() -> bytes:
    """The wheel, by pip. Raises VendorError."""
    with tempfile.TemporaryDirectory() as folder:
        # Only the file is wanted, so no dependency, and nothing of it is installed. It says that it needs Python 3.12.
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--python-version=3.12", f"--dest={folder}", AXE_WHEEL]
        try:
            subprocess.run(command, check=True, timeout=300, cwd=folder, capture_output=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise VendorError(f"pip does not give {AXE_WHEEL}: {error}") from None
        (wheel,) = Path(folder).glob("*.whl")
        return wheel.read_bytes()


def axe_script() -> Path:
    """axe-core's script in the cache; fetched where it is not there, or not as pinned. Raises VendorError."""
    target = cache() / "axe-core" / f"{AXE_VERSION}.js"
    if target.exists() and hashlib.sha256(target.read_bytes()).hexdigest() == AXE_SHA256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    # Renamed when it is whole: tests in other processes may look for it now.
    partial = target.with_suffix(f".{os.getpid()}")
    partial.write_bytes(axe_of(fetch_axe()))
    partial.rename(target)
    return target


def main(what: Annotated[Literal["console", "axe"], typer.Argument()] = "console") -> None:
    """Fetches what the console ships; `axe`: the script of the tests of accessibility, into the cache."""
    if what == "axe":
        print(axe_script())
        return
    VENDOR.mkdir(parents=True, exist_ok=True)
    for package in CONSOLE:
        for name, data in files_of(package, fetch(package)).items():
            (VENDOR / name).parent.mkdir(exist_ok=True)
            (VENDOR / name).write_bytes(data)
            print(f"{package.name} {package.version}: {name}, {len(data)} bytes")


if __name__ == "__main__":
    typer.run(main)
