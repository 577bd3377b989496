"""Names and addresses that follow from an engine alone (docs/design/interfaces.md)."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

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
# Of a pod of nobody: the cluster autoscaler may take its node. Without it the emptyDirs and the owner, which is none of
# its kinds, would hold the node. Karpenter asks for nothing.
DISRUPTABLE = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "true"}
# Of an engine's pod: proof that the operator made it (engine.pod.made).
SEAL_ANNOTATION = "linkis.apache.org/seal"
# Of a pod that belongs to nobody yet (docs/design/warm.md): the plugin of its pool, as a label; the digest of the
# template that it was made of; what its agent said when it was ready.
POOL_LABEL = "linkis.apache.org/warm-pool"
TEMPLATE_ANNOTATION = "linkis.apache.org/warm-template"
READY_ANNOTATION = "linkis.apache.org/warm-ready"
# Of a pod that an engine took from a pool: for which of its attempts.
CLAIMED_ANNOTATION = "linkis.apache.org/warm-claimed"
# The size that it had there, cpu/cpuLimit/memory, where its engine asks for another one.
MEMBER_SIZE_ANNOTATION = "linkis.apache.org/warm-size"
# In place of an engine's uid in the key and the reports of a pod that belongs to nobody: no object has such a uid.
MEMBER_UID = "member"
# One selector for the pod reflector and the network policy.
POD_SELECTOR = "app.kubernetes.io/managed-by=linkis-ecm,app.kubernetes.io/component=engine"


# Each pass over an engine asks for it several times.
@lru_cache(maxsize=4096)
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


@lru_cache(maxsize=4096)  # asked for each pod of a pool in each of its passes, mostly of the same few names
def label_hash(value: str) -> str:
    """A label's value for a text that may be longer than a label takes or hold what it refuses."""
    if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", value):
        return value
    return f"sha256-{hashlib.sha256(value.encode()).hexdigest()[:32]}"
