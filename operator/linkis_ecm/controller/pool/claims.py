"""Executes the claims of pods from warm pools: takes the pod at the API server, tells its agent (docs/design/warm.md).

The answers go into the cache at once. Each step may be repeated. Must not decide anything, nor choose a member.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from linkis_ecm.agent.formats.names import KERNEL_ENV_PREFIX
from linkis_ecm.agent.formats.variables import STRING_BYTES, problem_of, string_bytes
from linkis_ecm.agent_client.address import agent_host
from linkis_ecm.controller.pods.refusals import concerns_limit_range
from linkis_ecm.controller.pods.resizes import OVERRULED, resize, short, why_refused
from linkis_ecm.controller.state.cache import Cache
from linkis_ecm.engine.causes.cold_starts import Cold
from linkis_ecm.engine.decision import ClaimAgent, ClaimPod
from linkis_ecm.engine.names import AGENT_PORT, MEMBER_UID, host_port
from linkis_ecm.engine.pod_view import PodView, pod_view
from linkis_ecm.engine.view import EngineView
from linkis_ecm.kube.client import ApiError, Conflict, Forbidden, Invalid, KubeClient, NotFound
from linkis_ecm.kube.resources import PODS, SECRETS
from linkis_ecm.model.agent_key import key_of
from linkis_ecm.model.engine_status import ColdReason

log = logging.getLogger(__name__)

# Seconds for each Secret or ConfigMap. A healthy API server answers within some ten milliseconds.
READ_SECONDS = 3.0
# Bytes of all variables together: Linux gives a program a quarter of its stack, 2 MiB, of which the member has some.
ENVIRONMENT_BYTES = 1 << 20
# Secrets that are read at a time, of all claims: each may have 1 MiB, and takes several times that while it is read.
READS = 4
# Characters of base64 for one variable's value, and for all: what is longer is not decoded.
VALUE_CHARS, VALUES_CHARS = (-(-size // 3) * 4 for size in (STRING_BYTES, ENVIRONMENT_BYTES))
_TOO_LARGE = "Its environment is larger than a claim carries."


@dataclass(slots=True)
class _Budget:
    """Characters that the values of one claim may still have, before they are decoded."""

    left: int
    is_exceeded: bool = False

    def take(self, text: str) -> bool:
        """Whether the value may be kept."""
        self.left -= len(text)
        self.is_exceeded = self.is_exceeded or self.left < 0 or len(text) > VALUE_CHARS
        return not self.is_exceeded


class Pool(Protocol):
    """The warm pools, as a pass over an engine uses them (`reservations`). No call waits."""

    def offer(self, engine: EngineView) -> tuple[PodView, dict[str, Any]] | None:
        """A ready member that is reserved for this engine, and its template; None where there is none."""
        ...

    def release(self, engine: EngineView) -> None:
        """The engine takes no member: another one may have it."""
        ...

    def why_none(self, engine: EngineView) -> Cold | None:
        """Why it is offered no member though there are some; None where there are none."""
        ...

    def claim_failed(self, engine: EngineView, because: Cold) -> None:
        """A claim has cost a member and came to nothing."""
        ...

    def claim_succeeded(self, engine: EngineView) -> None:
        """The agent has taken the claim."""
        ...

    def refused(self, pod: PodView) -> None:
        """The API server did not give that member to the engine: somebody else has it, or it is gone."""
        ...


@dataclass(frozen=True, slots=True)
class ClaimRefused:
    """The claim does not go on. `sentence` says why, and `reason` in a word; `another`: another member may do."""

    sentence: str
    reason: ColdReason = ColdReason.AGENT_REFUSED
    another: bool = False

    @property
    def why(self) -> Cold:
        return Cold(self.reason, self.sentence)


class ClaimAgents(Protocol):
    """Requests to an agent in a pool's pod."""

    async def reach(self, address: str, member_key: str) -> None:
        """Open a connection that has proved the key, for the claim that follows. No error is raised."""
        ...

    async def claim(
        self, address: str, member_key: str, engine_key: str, body: dict[str, Any]
    ) -> dict[str, Any] | ClaimRefused:
        """Its first report as the engine's agent. A repeated claim of the same engine is answered the same."""
        ...


class WarmClaims:
    """The two steps of a claim, and the resize beside the second."""

    def __init__(
        self, *, client: KubeClient, cache: Cache, agents: ClaimAgents, master_keys: Sequence[bytes]
    ) -> None:  # fmt: skip
        self._client = client
        self._cache = cache
        self._agents = agents
        self._master_keys = master_keys
        self._reads = asyncio.Semaphore(READS)

    async def claim_pod(self, engine: EngineView, action: ClaimPod) -> ClaimRefused | None:
        """PATCH the member into the engine's pod. None: it is. Raises ApiError where it is not known whether it is."""
        member = action.member
        reaching = asyncio.create_task(self._reach(member))
        try:
            answer = await self._client.patch_operations(
                PODS, member.name, action.patch, namespace=engine.namespace
            )  # fmt: skip
        except (Invalid, Conflict):
            # Somebody else has it; or an earlier try of ours was executed, and its answer got lost.
            if await self.is_claimed(engine, member.name):
                return None
            said = "Another engine took the pod that was reserved for it in the warm pool."
            return ClaimRefused(said, ColdReason.MEMBER_TAKEN, another=True)
        except NotFound:
            said = "The pod that was reserved for it in the warm pool is gone."
            return ClaimRefused(said, ColdReason.MEMBER_TAKEN, another=True)
        except Forbidden as error:
            said = f"The API server does not let the operator claim a pod: {short(error)}."
            return ClaimRefused(said, ColdReason.CLAIM_FORBIDDEN)
        finally:
            # An agent that is slower than the API server is asked anew, with the claim's own timeout.
            reaching.cancel()
        self._cache.apply_pod(pod_view(answer))
        return None

    async def _reach(self, member: PodView) -> None:
        """Connect to the agent beside the PATCH: the claim finds the connection open."""
        ref = member.member.ready if member.member is not None else None
        key = key_of(self._master_keys, ref, MEMBER_UID, 0) if ref is not None else None
        if key is None:
            return
        try:
            host = agent_host(host_port(member.ip, AGENT_PORT), AGENT_PORT)
        except ValueError:
            return
        await self._agents.reach(host, key)

    async def is_claimed(self, engine: EngineView, name: str) -> bool:
        """Whether the API server has that pod as the engine's. What it has goes into the cache. Raises ApiError."""
        try:
            found = pod_view(await self._client.get(PODS, name, namespace=engine.namespace))
        except NotFound:
            return False
        # Also another engine's: nobody is to take it for a member any more.
        self._cache.apply_pod(found)
        return found.owner_uid == engine.uid and found.claimed is not None

    async def environment(
        self, engine: EngineView, entries: Sequence[dict[str, Any]]
    ) -> dict[str, str] | ClaimRefused:  # fmt: skip
        """The variables with their values, the engine's and its plugin's. Each named Secret is read once; it is the one
        kind that a variable may name.

        ClaimRefused: the engine must start cold, so that the kubelet says what is missing in its usual words.
        """
        wanted: dict[str, set[str]] = {}
        for entry in entries:
            if name := _secret_of(entry):
                wanted.setdefault(name, set()).add(_key_of(entry))
        budget = _Budget(VALUES_CHARS)
        names = sorted(wanted)
        try:
            read = await asyncio.gather(
                *(self._read_secret(engine.namespace, name, wanted[name], budget) for name in names)
            )
        except ApiError as error:
            whose = _named_by(*(entry["name"] for entry in entries if _secret_of(entry)))
            said = f"The operator cannot read the Secrets that {whose} names: {short(error)}."
            return ClaimRefused(said, ColdReason.ENVIRONMENT)
        if budget.is_exceeded:
            return ClaimRefused(_TOO_LARGE, ColdReason.ENVIRONMENT)
        secrets = dict(zip(names, read, strict=True))
        values: dict[str, str] = {}
        for entry in entries:
            found = _value(entry, secrets)
            if isinstance(found, ClaimRefused):
                return found
            if found is not None:
                if problem := problem_of(found):
                    return ClaimRefused(_unusable(entry, problem), ColdReason.ENVIRONMENT)
                values[entry["name"]] = found
        sizes = [string_bytes(name, value) for name, value in values.items()]
        if max(sizes, default=0) > STRING_BYTES or sum(sizes) > ENVIRONMENT_BYTES:
            return ClaimRefused(_TOO_LARGE, ColdReason.ENVIRONMENT)
        return values

    async def _read_secret(
        self, namespace: str, name: str, keys: set[str], budget: _Budget
    ) -> dict[str, Any] | None:  # fmt: skip
        """The values of these keys, as the API has them; None where there is none of that name. Raises ApiError.

        Nothing else of the Secret is kept, and nothing is read once the claim's values are too many.
        """
        async with self._reads:
            if budget.is_exceeded:
                return {}
            try:
                found = await self._client.get(SECRETS, name, namespace=namespace, timeout=READ_SECONDS)
            except NotFound:
                return None
            data = found.get("data") or {}
            return {key: data[key] for key in sorted(keys) if key in data and budget.take(data[key])}

    async def claim_agent(
        self, engine: EngineView, action: ClaimAgent, environment: dict[str, str]
    ) -> dict[str, Any] | ClaimRefused:  # fmt: skip
        """POST /v1/claim: its first report as the engine's agent."""
        member_key = key_of(self._master_keys, action.member_key, MEMBER_UID, 0)
        engine_key = key_of(self._master_keys, action.member_key, engine.uid, action.attempt)
        if member_key is None or engine_key is None:
            return ClaimRefused("The pod that it took is of a master key that this operator does not have.")
        try:
            host = agent_host(action.address, AGENT_PORT)
        except ValueError:
            return ClaimRefused("The pod that it took has no address of an agent.")
        body = {"environment": environment, "key": engine_key}
        return await self._agents.claim(host, member_key, engine_key, body)

    async def resize_pod(self, engine: EngineView, action: ClaimAgent) -> tuple[str, bool]:
        """PATCH the size of the claimed pod. "" where the API server took it, else what it said, and whether time does
        not help. It does where a quota or a webhook refuses; not where Kubernetes has a rule against it, where
        the cluster resizes no pods, or where a LimitRange refuses it, as it does the engine's own pod, with the remedy.
        """
        if action.resources is None:
            return "", False
        try:
            taken = await resize(self._client, self._cache, engine, action.pod, action.resources)
        except ApiError as error:
            log.warning("%s: its pod %s is not resized: %s", engine.key, action.pod, error)
            return why_refused(error), isinstance(error, Invalid | NotFound) or concerns_limit_range(error)
        return ("" if taken else OVERRULED), False


def needs_secrets(entries: Sequence[dict[str, Any]]) -> bool:
    """Whether a variable's value comes from a Secret."""
    return any(_secret_of(entry) for entry in entries)


def _secret_of(entry: dict[str, Any]) -> str:
    """The Secret that a variable's value comes from; "" where it comes from none."""
    return str(((entry.get("valueFrom") or {}).get("secretKeyRef") or {}).get("name") or "")


def _key_of(entry: dict[str, Any]) -> str:
    return str(entry["valueFrom"]["secretKeyRef"]["key"])


def _unusable(entry: dict[str, Any], problem: str) -> str:
    """Why a variable with that value is carried by no claim. The value is in no text."""
    if name := _secret_of(entry):
        return f"Secret {name}, key {_key_of(entry)}, {problem}."
    return f"A variable of {_named_by(entry['name'])} {problem}."


def _named_by(*variables: str) -> str:
    """Where the variables are written, in a sentence: the user's where one of them is the user's."""
    is_users = any(name.startswith(KERNEL_ENV_PREFIX) for name in variables)
    return "spec.env" if is_users else "env of the EngineConnPlugin"


def _value(entry: dict[str, Any], secrets: dict[str, dict[str, Any] | None]) -> str | ClaimRefused | None:
    """A variable's value; None for a field of the pod, which the kubelet has given to the member."""
    if "valueFrom" not in entry:
        return str(entry.get("value") or "")
    name = _secret_of(entry)
    if not name:
        return None
    data, key = secrets[name], _key_of(entry)
    text = (data or {}).get(key)
    if text is None:
        what = f"Secret {name}" if data is None else f"Secret {name}, key {key}"
        said = f"{what}, which {_named_by(entry['name'])} names, is not there."
        return ClaimRefused(said, ColdReason.ENVIRONMENT)
    try:
        return base64.b64decode(text, validate=True).decode()
    except ValueError:
        said = f"Secret {name}, key {key}, is no text in UTF-8: a claim carries text."
        return ClaimRefused(said, ColdReason.ENVIRONMENT)
