"""Whether a pod under the name of an engine's pod is what this operator made. Pure. No I/O.

The name follows from the engine, so whoever may create pods can take it first, or delete the engine's pod and make
another one in its place. The operator knows its own pod by its uid: from the API server's answer to its create, and
then from the engine's status. Where it knows no uid, because it ended or got no answer in between, the pod must have
the operator's seal, which is over the whole of it (`sealed_form`). Must not decide what happens to a pod that has none.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from linkis_ecm.engine.names import SEAL_ANNOTATION
from linkis_ecm.engine.pod.sealed_form import Given, form, given

# Of the master key's uses. The text that is sealed is a JSON list, which no text of an agent's key is
# (`model.agent_key`), and the key is another than that of members' seals (`engine.warm.seals`).
_PURPOSE = b"linkis-ecm seal of an engine's pod"
# Characters of the annotation. The greatest podTemplate has names for a quarter of it.
_SEAL_MAX = 128 << 10


class PodSeals:
    """Makes and checks seals. The first of `masters`, the operator's master keys, makes them; all are taken."""

    def __init__(self, masters: Sequence[bytes]) -> None:
        self._keys = tuple(hmac.digest(master, _PURPOSE, "sha256") for master in masters)

    def sealed(self, pod: Mapping[str, Any]) -> dict[str, Any]:
        """The manifest with its seal. Raises ValueError for one that is too deep."""
        metadata, known = dict(pod["metadata"]), given(pod)
        seal = {"given": known.written(), "mac": _mac(self._keys[0], _text(pod, known))}
        text = json.dumps(seal, separators=(",", ":"))
        metadata["annotations"] = {**(metadata.get("annotations") or {}), SEAL_ANNOTATION: text}
        return {**pod, "metadata": metadata}

    def holds(self, pod: Mapping[str, Any]) -> bool:
        """Whether a pod of the API has the seal of itself.

        A pod that a webhook has changed, beyond labels and the notes of `sealed_form`, has none: it is made anew, which
        costs one start.
        """
        try:
            known, mac = _read((pod["metadata"].get("annotations") or {}).get(SEAL_ANNOTATION))
            text = _text(pod, known)
        except (ValueError, RecursionError):
            return False
        return any(hmac.compare_digest(_mac(key, text).encode(), mac.encode(errors="replace")) for key in self._keys)


def _read(annotation: Any) -> tuple[Given, str]:
    """What the manifest gave, and the seal. Raises ValueError for what is no seal, as those of earlier versions are."""
    if not isinstance(annotation, str) or len(annotation) > _SEAL_MAX:
        raise ValueError("no seal")
    found = json.loads(annotation)
    mac = found.get("mac") if isinstance(found, dict) else None
    if not isinstance(mac, str):
        raise ValueError("no seal")
    return Given.read(found.get("given")), mac


def _text(pod: Mapping[str, Any], known: Given) -> bytes:
    return json.dumps([known.written(), form(pod, known)], sort_keys=True).encode()


def _mac(key: bytes, text: bytes) -> str:
    return hmac.new(key, text, sha256).hexdigest()
