"""The seal of a warm pool's member: proof that this operator made the pod and heard its agent. Pure. No I/O.

Labels, annotations and owners can be copied by whoever may create pods, so none of them says who made a pod. The seal
is an HMAC by a key that only the operator has, over what must not change between the agent's enrolment and a claim. It
is of one pod's uid, so a copy of it on another pod is worth nothing. Must not decide what happens to a pod without one.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256

from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.model.agent_key import AgentKeyRef

# Of the master key's uses. An agent's key is an HMAC over a text with three slashes (`model.agent_key`), which this one
# has not: no agent's key is the key of a seal.
_PURPOSE = b"linkis-ecm seal of a warm pool's member"
# Seals whose check is remembered: a claim looks at all members of a pool, of which there are 1,000 at most.
_REMEMBERED = 20_000
# Characters of each part of ours: a seal has 64, the others fewer. Anybody may write longer ones into a pod, and what
# is remembered stays.
_PART_MAX = 64


class Seals:
    """Makes and checks seals. The first of `masters`, the operator's master keys, makes them; all are taken."""

    def __init__(self, masters: Sequence[bytes]) -> None:
        self._keys = tuple(hmac.digest(master, _PURPOSE, "sha256") for master in masters)
        self._check = lru_cache(_REMEMBERED)(self._matches)

    def seal(self, pod: PodView, enrolment: AgentKeyRef) -> str:
        """The seal of this pod with this enrolment of its agent: 64 hexadecimal digits."""
        return _digest(self._keys[0], pod.namespace, enrolment, pod.template)

    def holds(self, pod: PodView) -> bool:
        """Whether the pod carries the seal of itself: a member that was ready, or a pod that an engine took."""
        enrolment = pod.member.ready if pod.member is not None else pod.member_key
        # The enrolment as the view has it names the pod's own uid.
        if enrolment is None or len(pod.seal) != _PART_MAX:
            return False
        if any(len(part) > _PART_MAX for part in (pod.template, enrolment.nonce, enrolment.key_id)):
            return False
        return self._check(pod.namespace, enrolment, pod.template, pod.seal)

    def _matches(self, namespace: str, enrolment: AgentKeyRef, template: str, seal: str) -> bool:
        given = seal.encode(errors="replace")
        return any(
            hmac.compare_digest(_digest(key, namespace, enrolment, template).encode(), given) for key in self._keys
        )


def _digest(key: bytes, namespace: str, enrolment: AgentKeyRef, template: str) -> str:
    text = json.dumps([enrolment.pod_uid, namespace, enrolment.nonce, enrolment.key_id, template])
    return hmac.new(key, text.encode(), sha256).hexdigest()
