"""The node's names, addresses, folders and component settings, as data: no process is started here.

The addresses exist in the node's own network namespace alone, so they can be constants on every machine.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tools.cluster import policies
from tools.cluster.pki import Authority, Pair, write_kubeconfig

NODE_NAME = "ecm-node"
NODE_ADDRESS = "10.89.0.1"
API_PORT = 6443
POD_CIDR = "10.244.0.0/16"
SERVICE_CIDR = "10.96.0.0/16"
SERVICE_ADDRESS = "10.96.0.1"  # the first of the range: the API server's own Service
DNS_ADDRESS = "10.96.0.10"
DOMAIN = "cluster.local"
CNI_BIN = "/usr/lib/cni"  # where Debian puts the plugins
BRIDGE = "ecm0"
# Set for processes in the node's network namespace: there the API server has its own address.
INSIDE = "LINKIS_ECM_INSIDE"
PAUSE = "localhost/linkis-ecm/pause:1"
# Beyond the 110 of kubelet's default: tests hold a few hundred small engines on the one node.
MAX_PODS = 400
# Processes and threads of one pod: a fork bomb in a test must not take the machine's.
POD_PIDS = 1024
ISSUER = f"https://kubernetes.default.svc.{DOMAIN}"


@dataclass(frozen=True)
class Machine:
    """What differs between machines and decides settings."""

    cgroup_v2: bool
    may_lower_oom_score: bool

    @staticmethod
    def detect() -> Machine:
        status = Path("/proc/self/status").read_text()
        capabilities = int(status.partition("CapEff:")[2].split()[0], 16)
        return Machine(
            cgroup_v2=Path("/sys/fs/cgroup/cgroup.controllers").exists(),
            may_lower_oom_score=bool(capabilities >> 24 & 1),  # 24 is CAP_SYS_RESOURCE
        )


@dataclass(frozen=True)
class Layout:
    """Folders and files of a node under its run folder."""

    root: Path

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def settings(self) -> Path:
        return self.root / "settings"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def kubelet(self) -> Path:
        return self.root / "kubelet"

    @property
    def volumes(self) -> Path:
        return self.root / "volumes"

    @property
    def containerd_socket(self) -> Path:
        return self.root / "containerd.sock"

    @property
    def policy_socket(self) -> Path:
        return self.root / "netpol.sock"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's access, from where this process is."""
        return self.inside_kubeconfig if INSIDE in os.environ else self.root / "kubeconfig"

    @property
    def inside_kubeconfig(self) -> Path:
        return self.root / "inside.kubeconfig"

    def config(self, user: str) -> Path:
        return self.settings / f"{user}.kubeconfig"


def write_pki(layout: Layout, *, outside_port: int) -> None:
    """Certificates and kubeconfigs of every component, and the administrator's for outside."""
    authority = Authority(layout.pki)
    layout.settings.mkdir(parents=True, exist_ok=True)
    service = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{DOMAIN}"]
    authority.issue(
        "apiserver",
        common_name="kube-apiserver",
        dns=[*service, "localhost"],
        addresses=["127.0.0.1", NODE_ADDRESS, SERVICE_ADDRESS],
    )
    authority.issue("kubelet-serving", common_name=NODE_NAME, dns=[NODE_NAME], addresses=[NODE_ADDRESS, "127.0.0.1"])
    authority.issue("apiserver-kubelet", common_name="kube-apiserver-kubelet-client", groups=["system:masters"])
    authority.signing_key("service-accounts")
    inside = f"https://{NODE_ADDRESS}:{API_PORT}"
    users: dict[str, tuple[str, Sequence[str]]] = {
        "kube-controller-manager": ("system:kube-controller-manager", ()),
        "kube-scheduler": ("system:kube-scheduler", ()),
        "kube-proxy": ("system:kube-proxy", ()),
        "coredns": ("system:coredns", ()),
        "netpol": ("system:netpol", ()),
        "kubelet": (f"system:node:{NODE_NAME}", ("system:nodes",)),
    }
    for name, (common_name, groups) in users.items():
        client = authority.issue(name, common_name=common_name, groups=groups)
        write_kubeconfig(layout.config(name), server=inside, authority=authority.pair.certificate, client=client)
    admin = authority.issue("admin", common_name="admin", groups=["system:masters"])
    outside = f"https://127.0.0.1:{outside_port}"
    write_kubeconfig(layout.inside_kubeconfig, server=inside, authority=authority.pair.certificate, client=admin)
    write_kubeconfig(layout.kubeconfig, server=outside, authority=authority.pair.certificate, client=admin)


def pair(layout: Layout, name: str) -> Pair:
    return Pair(layout.pki / f"{name}.crt", layout.pki / f"{name}.key")


def containerd_toml(layout: Layout, machine: Machine, binaries: Mapping[str, Path]) -> str:
    """Everything that containerd would put elsewhere is put under the run folder."""
    oom = "false" if machine.may_lower_oom_score else "true"
    return f"""\
version = 3
root = "{layout.root}/containerd"
state = "{layout.root}/containerd-state"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.erofs", "io.containerd.tracing.processor.v1.otlp"]

[grpc]
address = "{layout.containerd_socket}"

[ttrpc]
address = "{layout.containerd_socket}.ttrpc"

[plugins."io.containerd.internal.v1.opt"]
path = "{layout.root}/opt"

[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE}"

[plugins."io.containerd.cri.v1.runtime"]
# Without CAP_SYS_RESOURCE nothing may lower its oom_score_adj, and every sandbox would fail.
restrict_oom_score_adj = {oom}
netns_mounts_under_state_dir = true
enable_selinux = false
# Debian's AppArmor profiles may be absent in a container.
disable_apparmor = true

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{CNI_BIN}", "{binaries[policies.PLUGIN].parent}"]
conf_dir = "{layout.settings}/cni"

[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
runtime_path = "{binaries["containerd-shim-runc-v2"]}"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "/usr/sbin/runc"
Root = "{layout.root}/runc"
SystemdCgroup = false
"""


def cni_conflist(layout: Layout) -> dict[str, Any]:
    ranges = [[{"subnet": POD_CIDR}]]
    return {
        "cniVersion": "1.0.0",
        "name": "linkis-ecm",
        "plugins": [
            {
                "type": "bridge",
                "bridge": BRIDGE,
                "isGateway": True,
                "ipMasq": False,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "ranges": ranges,
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "dataDir": f"{layout.root}/cni",
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
            policies.cni_plugin(str(layout.policy_socket)),
        ],
    }


def kubelet_config(layout: Layout) -> dict[str, Any]:
    serving = pair(layout, "kubelet-serving")
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(serving.certificate),
        "tlsPrivateKeyFile": str(serving.key),
        "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": DOMAIN,
        "resolvConf": str(layout.settings / "resolv.conf"),
        "maxPods": MAX_PODS,
        "podPidsLimit": POD_PIDS,
        "podLogsDir": str(layout.root / "pod-logs"),
        "volumePluginDir": str(layout.kubelet / "plugins"),
        # Images are loaded by hand here: collected ones could not be pulled again.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        # A developer's disk is often nearly full; the node must not evict because of it.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "nodeStatusReportFrequency": "1m",
        "enableServer": True,
    }


def proxy_config(layout: Layout) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": POD_CIDR,
        "hostnameOverride": NODE_NAME,
        "clientConnection": {"kubeconfig": str(layout.config("kube-proxy"))},
        # Those settings are the machine's, not the namespace's: left alone.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "iptables": {"minSyncPeriod": "100ms"},
    }


def corefile(layout: Layout) -> str:
    """No cache, and a second at most in clients: an engine's name must resolve as soon as its pod has an address.

    The node has no way out, so a name outside the cluster does not exist; in a block of its own, because CoreDNS asks
    template before kubernetes.
    """
    return f"""\
{DOMAIN}:53 in-addr.arpa:53 {{
    bind {NODE_ADDRESS}
    errors
    ready 127.0.0.1:8181
    kubernetes {DOMAIN} in-addr.arpa {{
        kubeconfig {layout.config("coredns")}
        ttl 1
        pods insecure
    }}
}}
.:53 {{
    bind {NODE_ADDRESS}
    template IN ANY . {{
        rcode NXDOMAIN
    }}
}}
"""


def write_settings(layout: Layout, machine: Machine, binaries: Mapping[str, Path]) -> None:
    """The components' files, from pins and detection alone; on every `up` those are written that would be others."""
    (layout.settings / "cni").mkdir(parents=True, exist_ok=True)
    for folder in (layout.logs, layout.kubelet / "plugins", layout.volumes, layout.root / "opt"):
        folder.mkdir(parents=True, exist_ok=True)
    files = {
        "containerd.toml": containerd_toml(layout, machine, binaries),
        "cni/10-ecm.conflist": json.dumps(cni_conflist(layout), indent=1),
        "kubelet.yaml": yaml.safe_dump(kubelet_config(layout)),
        "kube-proxy.yaml": yaml.safe_dump(proxy_config(layout)),
        "Corefile": corefile(layout),
        "resolv.conf": "",
    }
    for name, text in files.items():
        file = layout.settings / name
        # kube-proxy ends when its file is written, also with the same text: an `up` beside it must not harm a node.
        if not file.exists() or file.read_text() != text:
            file.write_text(text)


def commands(layout: Layout, binaries: Mapping[str, Path]) -> dict[str, list[str]]:
    """The components' command lines, in the order in which they start."""
    kube = str(binaries["kube"])
    authority = layout.pki / "ca.crt"
    accounts = layout.pki / "service-accounts"
    own = {name: str(layout.config(name)) for name in ("kube-controller-manager", "kube-scheduler", "kubelet")}

    def as_user(name: str) -> list[str]:
        flags = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
        return [*(f"--{flag}={own[name]}" for flag in flags), "--leader-elect=false", "--bind-address=127.0.0.1"]

    serving, to_kubelet = pair(layout, "apiserver"), pair(layout, "apiserver-kubelet")
    return {
        "etcd": [
            str(binaries["etcd"]),
            f"--data-dir={layout.root}/etcd",
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--unsafe-no-fsync",
            "--logger=zap",
            "--log-level=warn",
        ],
        "containerd": [str(binaries["containerd"]), f"--config={layout.settings}/containerd.toml"],
        "kube-apiserver": [
            kube,
            "kube-apiserver",
            f"--advertise-address={NODE_ADDRESS}",
            f"--secure-port={API_PORT}",
            f"--client-ca-file={authority}",
            f"--tls-cert-file={serving.certificate}",
            f"--tls-private-key-file={serving.key}",
            "--etcd-servers=http://127.0.0.1:2379",
            f"--service-account-key-file={accounts}.pub",
            f"--service-account-signing-key-file={accounts}.key",
            f"--service-account-issuer={ISSUER}",
            f"--service-cluster-ip-range={SERVICE_CIDR}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-certificate-authority={authority}",
            f"--kubelet-client-certificate={to_kubelet.certificate}",
            f"--kubelet-client-key={to_kubelet.key}",
            "--allow-privileged=true",
            "--profiling=false",
        ],
        "kube-controller-manager": [
            kube,
            "kube-controller-manager",
            *as_user("kube-controller-manager"),
            f"--service-account-private-key-file={accounts}.key",
            f"--root-ca-file={authority}",
            f"--cluster-signing-cert-file={authority}",
            f"--cluster-signing-key-file={layout.pki}/ca.key",
            "--use-service-account-credentials=true",
        ],
        "kube-scheduler": [kube, "kube-scheduler", *as_user("kube-scheduler")],
        "kubelet": [
            kube,
            "kubelet",
            f"--config={layout.settings}/kubelet.yaml",
            f"--kubeconfig={own['kubelet']}",
            f"--root-dir={layout.kubelet}",
            f"--cert-dir={layout.pki}",
            f"--hostname-override={NODE_NAME}",
            f"--node-ip={NODE_ADDRESS}",
        ],
        "kube-proxy": [kube, "kube-proxy", f"--config={layout.settings}/kube-proxy.yaml"],
        "coredns": [str(binaries["coredns"]), f"-conf={layout.settings}/Corefile"],
        "netpol": [
            str(binaries["netpol"]),
            f"--kubeconfig={layout.config('netpol')}",
            f"--socket={layout.policy_socket}",
            f"--queue={policies.QUEUE}",
        ],
    }
