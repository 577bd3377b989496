"""Debian packages: installed from the machine's own sources, whose settings are the machine's and not ours."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable

from tools.cluster.progress import ClusterError, run, step

# What the node needs besides what is built from Go modules; the values say for what.
NODE = {
    "runc": "runs containers; Debian's has seccomp, one built from the module has not",
    "containernetworking-plugins": "bridge, host-local and portmap",
    "catatonit": "the static init of the pause image",
    "iproute2": "the node's network namespace",
    "iptables": "kube-proxy's rules, and those that enforce network policies",
    "conntrack": "kube-proxy drops stale flows with it",
    "util-linux": "nsenter",
    "ca-certificates": "the image build reads them",
}
IMAGES = {"mmdebstrap": "the base image", "buildah": "builds images without a daemon"}


def missing(names: Iterable[str]) -> list[str]:
    """Those of the packages that dpkg does not know as installed."""
    wanted = list(names)
    try:
        done = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *wanted],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    except FileNotFoundError:
        raise ClusterError(
            "this machine has no dpkg, so Debian packages cannot be installed",
            remedy="use a Debian machine, or a cluster of your own: CLUSTER=current",
        ) from None
    installed = {line.split()[0] for line in done.stdout.splitlines() if line.endswith(" installed")}
    return [name for name in wanted if name not in installed]


def install(names: Iterable[str]) -> None:
    """Installs what is missing; without anything missing it needs no root and no network."""
    wanted = missing(names)
    if not wanted:
        return
    listed = " ".join(wanted)
    by_hand = f"run as root: apt-get update && apt-get install --no-install-recommends {listed}"
    if os.geteuid() != 0:
        raise ClusterError(f"Debian packages are missing and only root may install them: {listed}", remedy=by_hand)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # No policy-rc.d is written: none of these packages is a service that we would not start ourselves, except database
    # servers, which their users start with their own settings.
    # Another installation may hold the lock, as a new machine's own upgrade does: waited for, within the step's time.
    waits = ["-o", "DPkg::Lock::Timeout=300"]
    install_them = ["apt-get", "install", *waits, "-y", "-q", "--no-install-recommends", *wanted]
    with step(f"Debian packages: {listed}"):
        simulated = subprocess.run(
            ["apt-get", "install", "-s", "-q", *wanted], capture_output=True, check=False, timeout=120, env=env
        )
        if simulated.returncode:  # the lists are missing or too old
            run(["apt-get", "update", "-q"], what="apt-get update", remedy=by_hand, seconds=300, env=env)
        try:
            run(install_them, what="apt-get install", remedy=by_hand, seconds=900, env=env)
        except ClusterError:  # lists that name versions which the mirror no longer has
            run(["apt-get", "update", "-q"], what="apt-get update", remedy=by_hand, seconds=300, env=env)
            run(install_them, what="apt-get install", remedy=by_hand, seconds=900, env=env)
