"""Whether a pod under the name of an engine's pod is what this operator made. Pure. No I/O.

The name follows from the engine, so whoever may create pods can take it first, or delete the engine's pod and make
another one in its place. The operator knows its own pod by its uid: from the API server's answer to its create, and
then from the engine's status. Where it knows no uid, because it ended or got no answer in between, the pod must have
the operator's seal, which is over what the pod runs. Must not decide what happens to a pod that has none.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from linkis_ecm.engine.names import SEAL_ANNOTATION

# Of the master key's uses. The text that is sealed is a JSON list, which no text of an agent's key is
# (`model.agent_key`), and the key is another than that of members' seals (`engine.warm.seals`).
_PURPOSE = b"linkis-ecm seal of an engine's pod"
# What a seal is not over. Fields that the API server, its own admission plugins, the scheduler and the kubelet write;
# amounts, which the API server writes in a form of its own; where the pod may run. None of them says what it runs.
_LEFT_OUT = frozenset(
    {
        "apiVersion", "defaultMode", "dnsPolicy", "expirationSeconds", "failureThreshold", "imagePullPolicy",
        "imagePullSecrets", "nodeName", "overhead", "periodSeconds", "preemptionPolicy", "priority",
        "priorityClassName", "protocol", "resources", "schedulerName", "schedulingGates", "scheme", "serviceAccount",
        "sizeLimit", "successThreshold", "terminationMessagePath", "terminationMessagePolicy", "timeoutSeconds",
        "tolerations",
    }
)  # fmt: skip
# The API server leaves fields out that are false, except these, which mean something else where they are absent.
_FALSE_COUNTS = frozenset(
    {
        "allowPrivilegeEscalation", "automountServiceAccountToken", "enableServiceLinks", "hostUsers", "optional",
        "privileged", "readOnlyRootFilesystem", "runAsNonRoot",
    }
)  # fmt: skip
# A pod's spec is less deep. What is deeper has no seal.
_DEPTH = 24


class PodSeals:
    """Makes and checks seals. The first of `masters`, the operator's master keys, makes them; all are taken."""

    def __init__(self, masters: Sequence[bytes]) -> None:
        self._keys = tuple(hmac.digest(master, _PURPOSE, "sha256") for master in masters)

    def sealed(self, pod: Mapping[str, Any]) -> dict[str, Any]:
        """The manifest with its seal. Raises ValueError for a spec that is too deep."""
        metadata = dict(pod["metadata"])
        seal = _digest(self._keys[0], pod)
        metadata["annotations"] = {**(metadata.get("annotations") or {}), SEAL_ANNOTATION: seal}
        return {**pod, "metadata": metadata}

    def holds(self, pod: Mapping[str, Any]) -> bool:
        """Whether a pod of the API has the seal of its own name, namespace, owners and of what it runs.

        A pod that a webhook has changed has none: it is made anew, which costs one start.
        """
        given = str((pod["metadata"].get("annotations") or {}).get(SEAL_ANNOTATION) or "").encode(errors="replace")
        try:
            return any(hmac.compare_digest(_digest(key, pod).encode(), given) for key in self._keys)
        except ValueError:
            return False


def _digest(key: bytes, pod: Mapping[str, Any]) -> str:
    metadata = pod["metadata"]
    owners = sorted(str(owner.get("uid")) for owner in metadata.get("ownerReferences") or [])
    runs = _plain(pod.get("spec") or {}, _DEPTH)
    text = json.dumps([metadata.get("namespace"), metadata.get("name"), owners, runs], sort_keys=True)
    return hmac.new(key, text.encode(), sha256).hexdigest()


def _plain(value: Any, depth: int) -> Any:
    """What a pod runs, in one form for the manifest and for what the API server makes of it."""
    if depth < 0:
        raise ValueError("the pod's spec is too deep")
    if isinstance(value, Mapping):
        parts = {name: _plain(part, depth - 1) for name, part in value.items() if name not in _LEFT_OUT}
        # The API server writes the default's name.
        if parts.get("serviceAccountName") == "default":
            del parts["serviceAccountName"]
        return {name: part for name, part in parts.items() if not _is_empty(name, part)}
    return [_plain(part, depth - 1) for part in value] if isinstance(value, list) else value


def _is_empty(name: str, value: Any) -> bool:
    return value is None or value in ("", {}, []) or (value is False and name not in _FALSE_COUNTS)
