"""Builds the product's images and brings them to the cluster. Unchanged content is not built again.

A tag carries the hash of what the image is made of. With Docker: `docker build`, `kind load`. Without: a base from
Debian packages by mmdebstrap, `buildah`, and containerd's import. `export` writes an image to a file instead.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tools.cluster import node, packages
from tools.cluster.paths import ROOT, cache
from tools.cluster.progress import run, step

TARGETS = ("ecm", "engine-python")
# Where a registry answers; built on by its digest, which the daemon knows once it has pulled it.
PUBLIC_BASE = "python:3.11-slim-bookworm"
# What the base is made of where no registry answers; a change makes a new one.
BASE_PACKAGES = "python3,python3-venv,ca-certificates,fonts-wqy-microhei"
SUITE = "bookworm"
_SOURCES = {
    "ecm": ["operator/linkis_ecm"],
    "engine-python": ["operator/linkis_ecm/__init__.py", "operator/linkis_ecm/agent", "tools/image/fonts.py"],
}
PINS = {"ecm": "requirements/runtime.txt", "engine-python": "requirements/engine-python.txt"}
# What pip needs of the machine to reach its registry; mounted for the build, never in an image.
_MACHINE = ("/etc/ssl/certs", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/etc/pip.conf")


def _files(paths: Iterable[str]) -> Iterable[Path]:
    for name in paths:
        path = ROOT / name
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        yield from (one for one in found if one.is_file() and "__pycache__" not in one.parts)


def tag(target: str) -> str:
    """`localhost/linkis-ecm/<target>:<hash of its content>`."""
    digest = hashlib.sha256(f"{BASE_PACKAGES} {SUITE}".encode())
    for path in _files(["Dockerfile", "tools/image/prune.py", PINS[target], *_SOURCES[target]]):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return f"localhost/linkis-ecm/{target}:{digest.hexdigest()[:12]}"


def build_with_docker(cluster: str, kind: Path) -> dict[str, str]:
    """For kind: built by the daemon, loaded into its node."""
    tags = {target: tag(target) for target in TARGETS}
    with step("base image"):
        base = _digest(PUBLIC_BASE)
    for target, name in tags.items():
        with step(f"image {target}"):
            run(["docker", "build", "--target", target, "--build-arg", f"BASE_IMAGE={base}", "-t", name, str(ROOT)],
                what=f"building {target}", remedy="look at the lines above", seconds=1800)  # fmt: skip
            run([kind, "load", "docker-image", name, "--name", cluster],
                what=f"loading {target}", remedy="look at the lines above", seconds=600)  # fmt: skip
    return tags


def _digest(name: str) -> str:
    """A public image's name with its digest."""
    remedy = "check that the Docker daemon reaches its registry"
    run(["docker", "pull", "-q", name], what=f"pulling {name}", remedy=remedy, seconds=600)
    asked = ["docker", "image", "inspect", "--format", "{{index .RepoDigests 0}}", name]
    return run(asked, what=f"asking for the digest of {name}", remedy=remedy, seconds=60).strip()


def build() -> None:
    """Builds what `build_for_node` and `export` hand out, without a node."""
    for target in TARGETS:
        name = tag(target)
        packages.install(packages.IMAGES)
        if not _known(name):
            with step(f"image {target}"):
                _make(target, name, str(ROOT))


def build_for_node() -> dict[str, str]:
    """For the node built from source."""
    tags = {target: tag(target) for target in TARGETS}
    there = node.images()
    for target, name in tags.items():
        if name not in there:
            with step(f"image {target}"):
                _build(target, name, str(ROOT))
    return tags


def build_beside(target: str, dockerfile: Path, pins: Path, **arguments: str) -> str:
    """The name of an image that is not the product's, from its own Dockerfile beside its pins, for the same node."""
    digest = hashlib.sha256(f"{BASE_PACKAGES} {SUITE} {sorted(arguments.items())}".encode())
    for path in (dockerfile, pins):
        digest.update(path.read_bytes() + b"\0")
    name = f"localhost/linkis-ecm/{dockerfile.stem}-{target}:{digest.hexdigest()[:12]}"
    if name not in node.images():
        options = [f"--build-arg={key}={value}" for key, value in arguments.items()]
        with step(f"image {dockerfile.stem}-{target}"):
            _build(target, name, "-f", str(dockerfile), *options, str(dockerfile.parent))
    return name


def _environment() -> dict[str, str]:
    # overlay needs no copies; chroot needs no further privileges.
    return os.environ | {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "overlay"}


def _buildah(*arguments: str) -> list[str]:
    store = cache() / "buildah"
    return ["buildah", "--root", str(store / "root"), "--runroot", str(store / "run"), *arguments]


def export(target: str, archive: Path) -> str:
    """Writes an image of the product to a file (an OCI archive), built where it was not; its tag."""
    name = tag(target)
    if not _known(name):
        with step(f"image {target}"):
            _make(target, name, str(ROOT))
    _push(name, archive)
    return name


def base_image() -> tuple[str, Path]:
    """The name of the base image, and the file that it was made from."""
    return _base(), _base_archive()


def _build(target: str, name: str, *arguments: str) -> None:
    if not _known(name):
        _make(target, name, *arguments)
    # Named by its tag: two runs may build two versions of one target at the same time.
    archive = cache() / f"{name.rpartition('/')[2].replace(':', '-')}.oci.tar"
    _push(name, archive)
    node.load(archive)
    archive.unlink()


def _make(target: str, name: str, *arguments: str) -> None:
    packages.install(packages.IMAGES)
    base = _base()
    mounts = [f"-v={path}:{path}:ro" for path in _MACHINE if Path(path).exists()]
    command = _buildah(
        "build", "--layers", "--network", "host", "--target", target, "--build-arg", f"BASE_IMAGE={base}"
    )
    run([*command, *mounts, "-t", name, *arguments], what=f"building {target}", env=_environment(), seconds=1800,
        remedy="look at the lines above; packages come through pip's own settings")  # fmt: skip


def _push(name: str, archive: Path) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    archive.unlink(missing_ok=True)
    run(_buildah("push", name, f"oci-archive:{archive}:{name}"), what=f"exporting {name}", env=_environment(),
        remedy="check the room on the disk", seconds=900)  # fmt: skip


def _known(name: str) -> bool:
    command = _buildah("inspect", "--type", "image", name)
    return subprocess.run(command, capture_output=True, check=False, timeout=60, env=_environment()).returncode == 0


def _base_key() -> str:
    return hashlib.sha256(f"{BASE_PACKAGES} {SUITE} 1".encode()).hexdigest()[:12]


def _base_archive() -> Path:
    return cache() / f"base-{_base_key()}.tar"


def _base() -> str:
    """The base image: Debian with Python, from the machine's own package sources."""
    name = f"localhost/linkis-ecm/base:{_base_key()}"
    if _known(name):
        return name
    archive = _base_archive()
    remedy = "check the machine's Debian package sources (apt-get update)"
    if not archive.exists():
        partial = archive.with_suffix(".partial")
        with step("base image by mmdebstrap"):
            run(["mmdebstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", "--format=tar", SUITE, str(partial)],
                what="making the base image", remedy=remedy, seconds=900)  # fmt: skip
        partial.replace(archive)
    container = run(_buildah("from", "scratch"), what="a base container", remedy=remedy, seconds=60, env=_environment())
    where = container.strip()
    run(
        _buildah("add", where, str(archive), "/"), what="the base image", remedy=remedy, seconds=300, env=_environment()
    )
    run(_buildah("commit", "--rm", where, name), what="the base image", remedy=remedy, seconds=300, env=_environment())
    return name
