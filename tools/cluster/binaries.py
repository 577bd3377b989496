"""Builds the node's binaries from Go modules, once per pins: the cache's key is what the build reads.

The pins are the go.mod and go.sum files under go/; nothing is downloaded but modules, through Go's own client.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tools.cluster.paths import GO, cache
from tools.cluster.progress import ClusterError, run, step


@dataclass(frozen=True)
class Binary:
    """A binary: the module folder under go/ and the package in it."""

    module: str
    package: str


BINARIES = {
    "kube": Binary("kube", "."),
    "kubectl": Binary("kube", "./kubectl"),
    "containerd": Binary("containerd", "github.com/containerd/containerd/v2/cmd/containerd"),
    "containerd-shim-runc-v2": Binary("containerd", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"),
    "ctr": Binary("containerd", "github.com/containerd/containerd/v2/cmd/ctr"),
    "etcd": Binary("etcd", "go.etcd.io/etcd/server/v3"),
    "coredns": Binary("coredns", "."),
    "netpol": Binary("netpol", "."),
    "helm": Binary("helm", "helm.sh/helm/v4/cmd/helm"),
    "kind": Binary("kind", "sigs.k8s.io/kind"),
    # For what ships: lists of contents, signatures and attestations (tools/supply).
    "cosign": Binary("cosign", "github.com/sigstore/cosign/v3/cmd/cosign"),
    "syft": Binary("syft", "github.com/anchore/syft/cmd/syft"),
    # Stands in for kubelets in the benchmark of scale alone.
    "kwok": Binary("kwok", "sigs.k8s.io/kwok/cmd/kwok"),
}
# What these and helm share has one version in all their go.mod files, so Go compiles it once: after a change of one,
# `go work init` with the six folders, `go work sync`, `go mod tidy` in each, and go.work is removed again.
NODE = ("kube", "kubectl", "containerd", "containerd-shim-runc-v2", "ctr", "etcd", "coredns", "netpol")
# The whole of Kubernetes took 12 min 55 s cold on 2 cores; a slower machine with other work gets four times that.
BUILD_SECONDS = 3600.0
# To fetch one binary's modules took 31 s on busy cores.
FETCH_SECONDS = 600.0
# The first minor version that can fetch the exact toolchain a go.mod names.
FIRST_GO = (1, 21)


def kubernetes_version() -> str:
    """The version of k8s.io/kubernetes that go/kube/go.mod pins."""
    found = re.search(r"k8s\.io/kubernetes (v[0-9.]+)", (GO / "kube/go.mod").read_text())
    if not found:
        raise ClusterError("go/kube/go.mod names no version of k8s.io/kubernetes", remedy="restore the file from git")
    return found.group(1)


def flags(name: str) -> list[str]:
    linker = "-s -w"
    if BINARIES[name].module == "kube":
        # Without it clients see v0.0.0-master.
        linker += f" -X k8s.io/component-base/version.gitVersion={kubernetes_version()}"
    return ["-trimpath", "-ldflags", linker]


def pins(name: str) -> str:
    """A hash of all that decides what comes out: pins, our few lines of Go, flags."""
    digest = hashlib.sha256(repr((BINARIES[name], flags(name))).encode())
    folder = GO / BINARIES[name].module
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def cached(name: str) -> Path:
    """Where the binary is or will be."""
    if name not in BINARIES:
        raise ClusterError(f"there is no binary called {name}", remedy=f"name one of {', '.join(BINARIES)}")
    return cache() / "bin" / pins(name) / name


def go() -> str:
    found = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")
    remedy = "install Go 1.21 or newer (it fetches the exact toolchain that go.mod names by itself) and put it on PATH"
    if not found:
        raise ClusterError("Go is not installed, and the node's binaries are built from Go modules", remedy=remedy)
    version = run([found, "env", "GOVERSION"], what="asking Go for its version", remedy=remedy, seconds=120)
    numbers = re.match(r"go(\d+)\.(\d+)", version.strip())
    if numbers and (int(numbers[1]), int(numbers[2])) < FIRST_GO:
        raise ClusterError(f"{found} is {version.strip()}, too old for the pinned modules", remedy=remedy)
    return found


def _environment() -> dict[str, str]:
    return {**os.environ, "CGO_ENABLED": "0"}


def build(name: str) -> Path:
    """The binary, built unless the cache has it. Two at once: the second waits for the first and takes its result."""
    target = cached(name)
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return target
        binary = BINARIES[name]
        partial = target.with_name(f".{name}.partial")
        command = [go(), "build", "-mod=readonly", *flags(name), "-o", str(partial), binary.package]
        with step(f"build {name}"):
            run(
                command,
                what=f"building {name} from its Go modules",
                remedy="look at the lines above; the modules come through Go's own proxy setting (go env GOPROXY)",
                seconds=BUILD_SECONDS,
                env=_environment(),
                cwd=GO / binary.module,
            )
        partial.replace(target)
    return target


def build_all(names: Sequence[str]) -> dict[str, Path]:
    """One after another: each build keeps all cores busy by itself. The modules of the next ones come meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        fetching = [pool.submit(_fetch_modules, name) for name in names[1:]]
        try:
            return {name: build(name) for name in names}
        finally:
            for one in fetching:
                one.cancel()


def _fetch_modules(name: str) -> None:
    """Brings the modules that a build reads into Go's own cache; nothing where the binary is built.

    What fails here is left to the build, which then asks for them itself and says what failed.
    """
    if cached(name).exists():
        return
    binary = BINARIES[name]
    command = [go(), "list", "-mod=readonly", "-deps", binary.package]
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(
            command, capture_output=True, check=False, timeout=FETCH_SECONDS, env=_environment(), cwd=GO / binary.module
        )
