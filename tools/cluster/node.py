"""The node built from source: starts its parts in order, ends them in reverse, leaves nothing behind.

Everything runs in a network namespace of its own (docs/design/cluster.md). Starting twice is harmless: what runs is
left, what died is started again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.cluster import binaries, packages, policies
from tools.cluster.layout import (
    API_PORT,
    BRIDGE,
    DNS_ADDRESS,
    NODE_ADDRESS,
    NODE_NAME,
    PAUSE,
    POD_CIDR,
    Layout,
    Machine,
    commands,
    pair,
    write_pki,
    write_settings,
)
from tools.cluster.paths import ROOT, namespace, run_folder
from tools.cluster.processes import Ledger, Note, end, snapshot
from tools.cluster.progress import ClusterError, run, step

# A component that is not up within this will not come up: on two busy cores each takes seconds.
PART_SECONDS = 120.0
# Two for a release with its own database: the first one's, and those that stand beside it (tools/checks.py).
VOLUMES = 12
BRIDGED = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
# kubelet first, so that nothing is started again; the API server's data last.
STOP_ORDER = (
    "kubelet", "kube-proxy", "coredns", "netpol", "kube-scheduler", "kube-controller-manager", "kube-apiserver",
)  # fmt: skip


# What `up` starts once the API server answers; the node's Ready condition says nothing of most of them.
NODE_PARTS = ("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "coredns")


def layout() -> Layout:
    """The node's folders."""
    return Layout(run_folder())


def ledger() -> Ledger:
    return Ledger(layout().root / "processes.json")


def inside(command: list[str]) -> list[str]:
    """The command in the node's network namespace. Not `ip netns exec`: that mounts a fresh /sys without cgroups."""
    return ["nsenter", f"--net=/run/netns/{namespace()}", *command]


def require_root() -> None:
    """Raises ClusterError for any other user: nobody else may start the node."""
    if os.geteuid() != 0:
        raise ClusterError(
            "the node built from source needs root (namespaces, mounts, cgroups)",
            remedy="run as root, start a Docker daemon (then kind is used), or use your own: CLUSTER=current",
        )


def prepare() -> dict[str, Path]:
    """Installs and builds what the node is made of, and starts nothing; the binaries by name."""
    require_root()
    packages.install(packages.NODE)
    return binaries.build_all(binaries.NODE)


def up() -> None:
    """Starts whatever does not run; returns when the node is Ready and names resolve."""
    built = prepare()
    place = layout()
    place.root.mkdir(parents=True, exist_ok=True)
    with step("certificates and settings"):
        outside_port = _outside_port(place)
        if not place.kubeconfig.exists():
            write_pki(place, outside_port=outside_port)
        write_settings(place, Machine.detect(), built)
    with step(f"network namespace {namespace()}"):
        _network()
        # Before all else, so that nobody is given its port meanwhile.
        forward = [sys.executable, "-m", "tools.cluster.forwarder", "--listen", str(outside_port)]
        forward += ["--namespace", namespace(), "--address", NODE_ADDRESS, "--port", str(API_PORT)]
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        ledger().start("forwarder", forward, log=place.logs / "forwarder.log", env=env)
    lines = commands(place, built)
    with step("etcd, containerd"):
        _start(place, "etcd", lines["etcd"], lambda: _answers("http://127.0.0.1:2379/health"))
        _start(place, "containerd", lines["containerd"], lambda: _ctr("version"))
        _pause_image()
    with step("kube-apiserver"):
        _start(place, "kube-apiserver", lines["kube-apiserver"], lambda: _ready(place))
        _wait(
            "the way in from outside",
            lambda: _reached(place),
            place.logs / "forwarder.log",
            alive=lambda: ledger().find("forwarder") is not None,
        )
    with step("network policies"):
        _apply(place, _objects())
        # Before the kubelet: a pod whose policies nobody can ask for gets no network.
        _start(place, "netpol", lines["netpol"], lambda: _listens(place.policy_socket))
    with step("controllers, scheduler, kubelet, proxy, DNS"):
        for name in NODE_PARTS:
            ledger().start(name, inside(lines[name]), log=place.logs / f"{name}.log", env=_with_sbin())
        _wait("the node's Ready condition", lambda: _node_ready(place), place.logs / "kubelet.log")
        _wait("cluster DNS", lambda: _answers("http://127.0.0.1:8181/ready"), place.logs / "coredns.log")
        _wait(
            "the default service account", lambda: _default_account(place), place.logs / "kube-controller-manager.log"
        )
    refresh_volumes()


def is_up() -> bool:
    """Each part runs, the API server answers and the node is Ready."""
    place = layout()
    return place.kubeconfig.exists() and not not_running() and _node_ready(place)


def not_running() -> list[str]:
    """The parts that `up` starts and that do not run now, by name. Without kube-proxy a Ready node has no Services."""
    parts = ("forwarder", "etcd", "containerd", "kube-apiserver", "netpol", *NODE_PARTS)
    return [name for name in parts if ledger().find(name) is None]


def down() -> None:
    """Ends what `up` started, by its own notes, and removes processes, mounts, devices, namespace, cgroups, files."""
    place = layout()
    notes = ledger()
    with step("end the node's processes"):
        for name in STOP_ORDER[:1]:
            notes.stop(name, seconds=15)
        shims = _shims(place)
        if notes.find("containerd") is not None:
            _kill_containers()
        end([*shims, *_shims(place)], seconds=5)
        for name in (*STOP_ORDER[1:], "forwarder", "containerd", "etcd"):
            notes.stop(name, seconds=10)
        for note in notes.notes():
            end([note], seconds=5)
    with step("remove mounts, namespace, cgroups, files"):
        _unmount(place.root)
        if Path(f"/run/netns/{namespace()}").exists():
            run(["ip", "netns", "delete", namespace()], what="removing the network namespace",
                remedy="look which process still holds it: ip netns pids", seconds=30)  # fmt: skip
        _remove_cgroups()
        if place.root.exists():
            shutil.rmtree(place.root)


def refresh_volumes() -> None:
    """Persistent volumes for claims without a class: released ones are emptied and offered again."""
    place = layout()
    # Releases may be installed side by side; each comes here first.
    with (place.root / "volumes.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _refresh_volumes(place)


def _refresh_volumes(place: Layout) -> None:
    kubectl = _kubectl(place)
    found = json.loads(run([*kubectl, "get", "pv", "-o", "json"], what="listing volumes", remedy=_LOGS, seconds=30))
    phases = {item["metadata"]["name"]: item["status"].get("phase") for item in found["items"]}
    for number in range(VOLUMES):
        name = f"ecm-{number}"
        if phases.get(name) in ("Available", "Bound", "Pending"):
            continue
        if name in phases:
            run([*kubectl, "delete", "pv", name, "--wait=true"], what="removing a volume", remedy=_LOGS, seconds=60)
        folder = place.volumes / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        folder.chmod(0o777)
        _apply(place, [_volume(name, folder)])


_LOGS = "look at the logs in the node's run folder, then `make cluster-down` and `make cluster`"


def _outside_port(place: Layout) -> int:
    file = place.root / "port"
    if file.exists():
        return int(file.read_text())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    file.write_text(str(port))
    return port


def _network() -> None:
    name = namespace()
    remedy = "run as root on a kernel with network namespaces"
    if not Path(f"/run/netns/{name}").exists():
        run(["ip", "netns", "add", name], what="adding the network namespace", remedy=remedy, seconds=10)
    ip = ["ip", "-n", name]
    run([*ip, "link", "set", "lo", "up"], what="raising its loopback", remedy=remedy, seconds=10)
    run([*ip, "address", "replace", f"{NODE_ADDRESS}/32", "dev", "lo"], what="its address", remedy=remedy, seconds=10)
    # A default route over loopback: kube-proxy and kubelet look for one, and nothing gets out by it.
    run([*ip, "route", "replace", "default", "dev", "lo"], what="its route", remedy=remedy, seconds=10)
    forwarding = "echo 1 > /proc/sys/net/ipv4/ip_forward"
    run(inside(["sh", "-c", forwarding]), what="forwarding in the namespace", remedy=remedy, seconds=10)
    # A pod that asks a Service of a pod beside it is answered only where frames on the bridge pass iptables, too.
    if not BRIDGED.exists():
        run(["modprobe", "br_netfilter"], what="the kernel's module br_netfilter", env=_with_sbin(), seconds=30,
            remedy="load it by hand (Debian's package kmod has modprobe): no pod reaches a Service")  # fmt: skip
    # Where frames on the bridge do not pass ip6tables, a pod reaches the one beside it by its link-local address.
    for switch in (BRIDGED, BRIDGED.with_name("bridge-nf-call-ip6tables")):
        run(inside(["sh", "-c", f"echo 1 > {switch}"]), what="iptables on the bridge", remedy=remedy, seconds=10)
    rules = {"iptables": policies.ipv4_rules(POD_CIDR), "ip6tables": policies.ipv6_rules(BRIDGE)}
    for tool, text in rules.items():
        run(inside([f"{tool}-restore", "--noflush"]), what=f"rules of {tool} for network policies", env=_with_sbin(),
            remedy="the kernel needs NFQUEUE and conntrack in iptables", seconds=30, stdin=text)  # fmt: skip


def _with_sbin() -> dict[str, str]:
    """The environment in which components find runc, iptables and modprobe, which Debian puts into sbin."""
    return os.environ | {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}


def _start(place: Layout, name: str, command: list[str], ready: Callable[[], bool]) -> None:
    log = place.logs / f"{name}.log"
    ledger().start(name, inside(command), log=log, env=_with_sbin())
    _wait(name, ready, log, alive=lambda: ledger().find(name) is not None)


def _wait(what: str, ready: Callable[[], bool], log: Path, alive: Callable[[], bool] = lambda: True) -> None:
    deadline = time.monotonic() + PART_SECONDS
    while not ready():
        if not alive():
            raise ClusterError(f"{what} ended at once", remedy=_LOGS, log=log)
        if time.monotonic() > deadline:
            raise ClusterError(f"{what} is not ready after {PART_SECONDS:.0f} s", remedy=_LOGS, log=log)
        time.sleep(0.1)


def _answers(url: str) -> bool:
    """Whether an address inside the namespace answers 200."""
    return _succeeds(inside([sys.executable, "-c", f"import urllib.request as u; u.urlopen({url!r}, timeout=2)"]))


def _listens(path: Path) -> bool:
    """Whether somebody takes connections on a socket of the run folder."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2)
        return probe.connect_ex(str(path)) == 0


def _succeeds(command: list[str]) -> bool:
    """Whether a question's command ends well; one that takes too long on a busy machine is no answer yet."""
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _ready(place: Layout) -> bool:
    admin = pair(place, "admin")
    program = (
        "import ssl,urllib.request as u\n"
        f"c=ssl.create_default_context(cafile={str(place.pki / 'ca.crt')!r})\n"
        f"c.load_cert_chain({str(admin.certificate)!r},{str(admin.key)!r})\n"
        f"u.urlopen('https://{NODE_ADDRESS}:{API_PORT}/readyz',timeout=2,context=c)"
    )
    return _succeeds(inside([sys.executable, "-c", program]))


def _kubectl(place: Layout) -> list[str]:
    return [str(binaries.cached("kubectl")), "--kubeconfig", str(place.kubeconfig), "--request-timeout=20s"]


def _reached(place: Layout) -> bool:
    return _succeeds([*_kubectl(place), "get", "--raw", "/readyz"])


def _node_ready(place: Layout) -> bool:
    jsonpath = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
    done = subprocess.run(
        [*_kubectl(place), "get", "node", NODE_NAME, "-o", jsonpath],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.stdout == "True"


def _default_account(place: Layout) -> bool:
    return _succeeds([*_kubectl(place), "get", "serviceaccount", "default", "-n", "default"])


def _apply(place: Layout, objects: list[dict[str, Any]]) -> None:
    body = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    run([*_kubectl(place), "apply", "--server-side", "--force-conflicts", "-f", "-"],
        what="applying the node's own objects", remedy=_LOGS, seconds=60, stdin=body)  # fmt: skip


def _objects() -> list[dict[str, Any]]:
    """What the node itself needs: rights of CoreDNS and of netpol, and the Service that leads to CoreDNS."""
    read = ["list", "watch"]
    dns = [
        {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": read},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
    ]
    network = [
        {"apiGroups": [""], "resources": ["pods", "namespaces"], "verbs": read},
        {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": read},
    ]
    ports = [{"name": f"dns-{kind.lower()}", "port": 53, "protocol": kind} for kind in ("UDP", "TCP")]
    where = {"name": "kube-dns", "namespace": "kube-system"}
    labels = {"kubernetes.io/service-name": "kube-dns", "endpointslice.kubernetes.io/managed-by": "linkis-ecm-node"}
    return [
        *_may("system:coredns", dns),
        *_may("system:netpol", network),
        {"apiVersion": "v1", "kind": "Service", "metadata": where, "spec": {"clusterIP": DNS_ADDRESS, "ports": ports}},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": where | {"labels": labels},
         "addressType": "IPv4", "endpoints": [{"addresses": [NODE_ADDRESS], "conditions": {"ready": True}}],
         "ports": ports},
    ]  # fmt: skip


def _may(user: str, rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A role of that name, bound to the user of that name."""
    group = "rbac.authorization.k8s.io"
    common = {"apiVersion": f"{group}/v1", "metadata": {"name": user}}
    reference = {"apiGroup": group, "kind": "ClusterRole", "name": user}
    subject = {"apiGroup": group, "kind": "User", "name": user}
    return [
        common | {"kind": "ClusterRole", "rules": rules},
        common | {"kind": "ClusterRoleBinding", "roleRef": reference, "subjects": [subject]},
    ]


def _volume(name: str, folder: Path) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "5Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(folder)},
        },
    }


# --- containerd


def ctr(*arguments: str) -> list[str]:
    """containerd's client, in Kubernetes's namespace."""
    return [str(binaries.cached("ctr")), "--address", str(layout().containerd_socket), "-n", "k8s.io", *arguments]


def _ctr(*arguments: str) -> bool:
    return _succeeds(ctr(*arguments))


def images() -> set[str]:
    """The names of the images that containerd has."""
    listed = run(ctr("images", "list", "-q"), what="listing images", remedy=_LOGS, seconds=30)
    return set(listed.split())


def load(archive: Path, seconds: float = 300) -> None:
    """Imports an OCI archive."""
    run(ctr("images", "import", str(archive)), what="importing an image", remedy=_LOGS, seconds=seconds)


def _pause_image() -> None:
    if PAUSE in images():
        return
    work = layout().root / "pause"
    work.mkdir(exist_ok=True)
    shutil.copy("/usr/bin/catatonit", work / "pause")
    # An OCI image by hand: one layer with one static program.
    layer = work / "layer.tar"
    with tarfile.open(layer, "w") as tar:
        tar.add(work / "pause", "pause")
    archive = work / "image.tar"
    config = {
        "architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/pause", "-P"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_sha256(layer)}"]}, "history": [{"created_by": "pause"}],
    }  # fmt: skip
    (work / "config.json").write_text(json.dumps(config))
    (work / "manifest.json").write_text(
        json.dumps([{"Config": "config.json", "RepoTags": [PAUSE], "Layers": ["layer.tar"]}])
    )
    with tarfile.open(archive, "w") as tar:
        for name in ("config.json", "layer.tar", "manifest.json"):
            tar.add(work / name, name)
    load(archive)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _kill_containers() -> None:
    listed = subprocess.run(ctr("tasks", "list", "-q"), capture_output=True, text=True, check=False, timeout=30)
    names = listed.stdout.split()
    for name in names:
        subprocess.run(ctr("tasks", "kill", "-a", "-s", "SIGKILL", name), capture_output=True, check=False, timeout=30)
    for name in names:
        subprocess.run(ctr("tasks", "delete", "-f", name), capture_output=True, check=False, timeout=30)


def _shims(place: Layout) -> list[Note]:
    """The shims of our containerd, by its socket in their command line, with what runs under them."""
    found: list[Note] = []
    socket_name = str(place.containerd_socket).encode()
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int(folder.name)
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(pid)
            line = (folder / "cmdline").read_bytes().split(b"\0")
            if line[0].endswith(b"containerd-shim-runc-v2") and socket_name in line:
                note = snapshot(pid, "shim")
                found += [note] if note else []
    waiting = [note.pid for note in found]
    while waiting:
        for pid in children.get(waiting.pop(), []):
            note = snapshot(pid, "container")
            found += [note] if note else []
            waiting.append(pid)
    return found


# --- what the kernel keeps


def mounts_under(text: str, root: str) -> list[str]:
    """Mount points under a folder, deepest and latest first, from the text of /proc/self/mountinfo."""
    points = [line.split()[4].encode().decode("unicode_escape") for line in text.splitlines()]
    return [point for point in reversed(points) if point == root or point.startswith(f"{root}/")]


def _unmount(root: Path) -> None:
    for _ in range(3):
        points = mounts_under(Path("/proc/self/mountinfo").read_text(), str(root))
        if not points:
            return
        for point in points:
            subprocess.run(["umount", "-l", point], capture_output=True, check=False, timeout=30)
    left = mounts_under(Path("/proc/self/mountinfo").read_text(), str(root))
    if left:
        raise ClusterError(f"{len(left)} mounts are left, the first is {left[0]}", remedy="unmount them by hand")


def _remove_cgroups() -> None:
    """kubelet's and containerd's groups; deepest first, and only empty ones can be removed."""
    base = Path("/sys/fs/cgroup")
    tops = [base / name for name in ("kubepods", "k8s.io")]
    tops += [group / name for group in base.iterdir() if group.is_dir() for name in ("kubepods", "k8s.io")]
    for top in tops:
        if not top.is_dir():
            continue
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
