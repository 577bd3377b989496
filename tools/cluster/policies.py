"""How the node enforces NetworkPolicies: the kernel's rules and the CNI plugin, as data. No process is started here.

The first packet of each connection from or to a pod waits in a netfilter queue for the verdict of go/netpol. Where
nobody reads the queue the packet is dropped, so nothing passes while the reader is away.
"""

from __future__ import annotations

from typing import Any

QUEUE = 100
# Its chains come after a Service's address is translated, and before the filter table, in which kube-proxy accepts.
TABLE = "mangle"
PLUGIN = "netpol"  # the binary's name is the plugin's type


def ipv4_rules(pods: str) -> str:
    """For `iptables-restore --noflush`. INPUT too: the API server and the kubelet are processes of the node itself.

    What the node sends to pods is not asked for, as Kubernetes wants it: probes come from there. Only the first packet
    is asked for, and conntrack knows the answers to it.
    """
    known = "-m conntrack --ctstate ESTABLISHED,RELATED -j RETURN"
    ask = f"-j NFQUEUE --queue-num {QUEUE}"
    return f"""\
*{TABLE}
-F FORWARD
-F INPUT
-A FORWARD {known}
-A FORWARD -s {pods} {ask}
-A FORWARD -d {pods} {ask}
-A INPUT {known}
-A INPUT -s {pods} {ask}
COMMIT
"""


def ipv6_rules(bridge: str) -> str:
    """For `ip6tables-restore --noflush`. Pods have link-local addresses alone, which no policy knows: none passes."""
    return f"""\
*{TABLE}
-F FORWARD
-F INPUT
-A FORWARD -j DROP
-A INPUT -i {bridge} -j DROP
COMMIT
"""


def cni_plugin(socket: str) -> dict[str, Any]:
    """The last plugin of the chain: it holds a pod until its policies count for the addresses that it was given."""
    return {"type": PLUGIN, "socket": socket}
