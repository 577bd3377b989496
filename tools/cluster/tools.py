"""What the rest of the repository imports: paths of the tools and of the cluster's access, whatever the backend."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from tools.cluster import binaries, node, packages
from tools.cluster import images as product
from tools.cluster.layout import INSIDE, NODE_ADDRESS
from tools.cluster.paths import run_folder
from tools.cluster.progress import ClusterError, run, step

KIND_CLUSTER = "linkis-ecm"
Backend = Literal["current", "kind", "node"]


@functools.cache
def backend() -> Backend:
    """The current cluster if asked for, kind where a Docker daemon answers, else the node built from source."""
    asked = os.environ.get("CLUSTER", "")
    if asked in ("current", "kind", "node"):
        return asked  # type: ignore[return-value]
    if asked:
        raise ClusterError(f"CLUSTER is {asked!r}", remedy="write current, kind or node, or leave it out")
    if shutil.which("docker"):
        answer = subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=20)
        if answer.returncode == 0:
            return "kind"
    return "node"


def helm() -> Path:
    """Helm, built from its Go module where it is not installed."""
    found = shutil.which("helm")
    return Path(found) if found else binaries.build("helm")


def kubectl() -> Path:
    """kubectl of the node's version where that is built, else the installed one."""
    built = binaries.cached("kubectl")
    if built.exists():
        return built
    found = shutil.which("kubectl")
    return Path(found) if found else binaries.build("kubectl")


def kubeconfig() -> Path:
    """The access to the cluster."""
    if backend() == "current":
        return Path(os.environ.get("KUBECONFIG", "").split(":")[0] or Path.home() / ".kube/config")
    return node.layout().kubeconfig if backend() == "node" else run_folder() / "kind.kubeconfig"


def in_cluster_network(command: list[str]) -> list[str]:
    """The command where it reaches pods and Services by their addresses; only on the node built from source."""
    return node.inside(["env", f"{INSIDE}=1", *command]) if backend() == "node" else command


def dns_block() -> str | None:
    """The CIDR of the cluster's DNS where it is no pod, so that a policy can name it by its address alone."""
    return f"{NODE_ADDRESS}/32" if backend() == "node" else None


def up() -> None:
    """Starts the cluster unless it runs."""
    if backend() == "node":
        node.up()
    elif backend() == "kind":
        _kind_up()
    elif not is_up():
        raise ClusterError("the current KUBECONFIG's cluster does not answer", remedy="check `kubectl cluster-info`")


def prepare() -> None:
    """Builds what `up`, `images` and an installation of the chart need; none needs a running cluster for that."""
    if backend() == "node":
        node.require_root()
        # All at once: an installation of Debian packages holds a lock.
        packages.install([*packages.NODE, *packages.IMAGES])
        # Side by side: images wait for packages and keep one core busy, Go waits for modules and for its linker. Where
        # the binaries fail, the images are built to their end before this says so.
        with ThreadPoolExecutor(1) as pool:
            images = pool.submit(product.build)
            binaries.build_all([*binaries.NODE, *([] if shutil.which("helm") else ["helm"])])
            images.result()
    elif backend() == "kind":
        _kind()
        helm()


def down() -> None:
    """Ends what `up` started; the current cluster is left alone."""
    if backend() == "node":
        node.down()
    elif backend() == "kind":
        with step("end the kind cluster"):
            run([_kind(), "delete", "cluster", "--name", KIND_CLUSTER], what="ending kind", remedy=_REMEDY, seconds=120)
        kubeconfig().unlink(missing_ok=True)


def is_up() -> bool:
    """The cluster answers."""
    if backend() == "node":
        return node.is_up()
    command = [str(kubectl()), "--kubeconfig", str(kubeconfig()), "get", "nodes", "--request-timeout=10s"]
    return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0


def images() -> dict[str, str]:
    """The images' tags by target, built and loaded where that has not happened.

    On the current cluster nothing can be loaded: ECM_IMAGES names them, as JSON.
    """
    if backend() == "node":
        return product.build_for_node()
    if backend() == "kind":
        return product.build_with_docker(KIND_CLUSTER, _kind())
    named = os.environ.get("ECM_IMAGES", "")
    if not named:
        raise ClusterError(
            "the current cluster's images are not named",
            remedy='push them to a registry it reaches and set ECM_IMAGES={"ecm": "…", "engine-python": "…"}',
        )
    loaded: dict[str, str] = json.loads(named)
    return loaded


def refresh_volumes() -> None:
    """Room for claims, on the node built from source; other clusters have their own."""
    if backend() == "node":
        node.refresh_volumes()


_REMEDY = "check that the Docker daemon runs: docker info"


def _kind() -> Path:
    found = shutil.which("kind")
    return Path(found) if found else binaries.build("kind")


def _kind_up() -> None:
    kubeconfig().parent.mkdir(parents=True, exist_ok=True)
    if is_up():
        return
    with step("kind cluster"):
        run([_kind(), "create", "cluster", "--name", KIND_CLUSTER, "--kubeconfig", kubeconfig(), "--wait", "120s"],
            what="starting kind", remedy=_REMEDY, seconds=600)  # fmt: skip
