"""Names and addresses that follow from an engine alone (docs/design/interfaces.md)."""

from __future__ import annotations

import hashlib
import re

AGENT_PORT = 9105
MANAGED_BY = "linkis-ecm"
# Of an engine's pod: whose ticket it has.
TICKET_ANNOTATION = "linkis.apache.org/ticket-id"
# Of a pod: which installation made it (hashed). The same name is the annotation by which the author of an EngineConn
# names the installation that is to accept it (as it is).
INSTANCE = "linkis.apache.org/ecm-instance"
# Before the names of a plugin's volumes in its engines' pods.
PLUGIN_VOLUME = "plugin-"
# Of a pod: the node's autoscaler leaves it where it is (cluster autoscaler, Karpenter).
UNDISRUPTED = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}
# One selector for the pod reflector and the network policy.
POD_SELECTOR = "app.kubernetes.io/managed-by=linkis-ecm,app.kubernetes.io/component=engine"


def pod_name(name: str, uid: str, attempt: int) -> str:
    """`<name, first 30>-<first 8 hex of sha256(uid)>-<attempt>`: the same on every pass, another for every engine."""
    stem = re.sub(r"[^a-z0-9-]", "-", name[:30].lower()).strip("-") or "engine"
    return f"{stem}-{hashlib.sha256(uid.encode()).hexdigest()[:8]}-{attempt}"


def service_instance(pod: str, service: str, namespace: str, port: int = AGENT_PORT) -> str:
    """`host:port` as Linkis has it; at most 127 characters of the column's 128."""
    return f"{pod}.{service}.{namespace}:{port}"


def host_port(ip: str, port: int) -> str:
    """`ip:port`, with brackets where the address is of IPv6 and has colons of its own."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def label_hash(value: str) -> str:
    """A label's value for a text that may be longer than a label takes or hold what it refuses."""
    if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", value):
        return value
    return f"sha256-{hashlib.sha256(value.encode()).hexdigest()[:32]}"
