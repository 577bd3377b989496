"""Executes the actions of a decision: the operator's only writes. Each one is idempotent.

The API server's answer goes into the cache at once, so that the next decision does not wait for a watch. Must not
decide anything.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from linkis_ecm.agent_client.address import agent_host
from linkis_ecm.controller.pods import refusals
from linkis_ecm.controller.pods.events import read_pod_events
from linkis_ecm.controller.state.cache import Cache
from linkis_ecm.controller.state.kept import KeptFields
from linkis_ecm.engine.admission.ownership import Ownership
from linkis_ecm.engine.causes.start_problems import problem_of_events
from linkis_ecm.engine.causes.verdicts import Verdict
from linkis_ecm.engine.decision import (
    ConfirmPodGone,
    CreateFailure,
    CreatePod,
    Decision,
    DeleteEngine,
    DeletePod,
    GetAgentStatus,
    GetNodeCondition,
    GetPodEvents,
    IdentifyPod,
    KeyRefused,
    MarkPod,
    StopAgent,
)
from linkis_ecm.engine.names import AGENT_PORT, UNDISRUPTED, pod_name
from linkis_ecm.engine.pod.made import PodSeals
from linkis_ecm.engine.pod_view import pod_view
from linkis_ecm.engine.view import EngineView
from linkis_ecm.kube.client import AlreadyExists, ApiError, Conflict, Forbidden, KubeClient, NotFound
from linkis_ecm.kube.resources import ENGINECONNS, LIMIT_RANGES, NODES, PODS
from linkis_ecm.model import reasons
from linkis_ecm.model.agent_key import key_of

log = logging.getLogger(__name__)

# A refusal that may end by itself, such as a quota, is tried again after this time.
QUOTA_RETRY = timedelta(seconds=5)
# An API server that does not take a pod for a moment gets it again without a word to anybody; so many times.
TRIES_UNTOLD = 2
# Asked with in place of a key that is not here: no agent proves it, so nothing is sent to it.
NO_KEY = "none"


class Agents(Protocol):
    """Requests to an engine's agent."""

    async def stop(self, address: str, key: str, *, grace: int, reason: str) -> bool:
        """Asks it to drain and exit within `grace` seconds; False where it did not take the request."""
        ...

    async def status(self, address: str, key: str) -> dict[str, Any] | KeyRefused | None:
        """The report that it would send; None where it does not answer."""
        ...


class Executor:
    """Writes to the API server and talks to agents, for one decision at a time."""

    def __init__(
        self,
        *,
        client: KubeClient,
        cache: Cache,
        agents: Agents,
        master_keys: Sequence[bytes],
        clock: Callable[[], datetime],
        ownership: Ownership,
        kept: KeptFields,
    ) -> None:
        self._client = client
        self._kept = kept
        self._cache = cache
        self._agents = agents
        self._master_keys = master_keys
        self._clock = clock
        self._ownership = ownership
        self._seals = PodSeals(master_keys)

    async def create_pod(self, engine: EngineView, action: CreatePod, *, tries: int = 0) -> CreateFailure | None:
        """POSTs the pod; None where it is there afterwards, else why it is refused.

        Raises ApiError to be repeated soon. After TRIES_UNTOLD such `tries` in a row it is a refusal, too.
        """
        try:
            made = await self._client.create(PODS, self._seals.sealed(action.pod))
        except AlreadyExists:
            return await self._use_existing(engine, action)
        except Forbidden as error:
            return self._refusal(refusals.of_forbidden(error, await self._limit_ranges(engine, error)))
        except ApiError as error:
            if error.is_malformed:
                return self._refusal(refusals.of_malformed(error, await self._limit_ranges(engine, error)))
            if not refusals.is_webhook_outage(error) and tries < TRIES_UNTOLD:
                raise
            return self._refusal(refusals.of_outage(error))
        view = pod_view(made)
        self._cache.record_made(view.uid)
        self._cache.apply_pod(view)
        return None

    async def _limit_ranges(self, engine: EngineView, error: ApiError) -> list[dict[str, Any]]:
        """Those of the engine's namespace, if they explain the error; empty also without the right to list them."""
        if not refusals.concerns_limit_range(error):
            return []
        try:
            return (await self._client.list(LIMIT_RANGES, namespace=engine.namespace, timeout=5.0)).items
        except ApiError as problem:
            log.info("%s: LimitRanges: %s", engine.key, problem)
            return []

    async def _use_existing(self, engine: EngineView, action: CreatePod) -> CreateFailure | None:
        """A pod with this name exists: ours, from before a crash, or another one's."""
        name = pod_name(engine.name, engine.uid, action.attempt)
        body = await self._client.get(PODS, name, namespace=engine.namespace)
        found = pod_view(body)
        if found.owner_uid != engine.uid:
            # Whoever may create pods may take a name: the engine waits until its start's time is over. The pod is not
            # deleted, as its owner may be anybody.
            return self._refusal(Verdict(reasons.NAME_CONFLICT, f"The pod is {name}."))
        self._cache.apply_pod(found)
        if self._ownership.is_foreign_pod(found):
            return self._refusal(Verdict(reasons.NAME_CONFLICT, f"Another installation made the pod {name}."))
        if not await self._is_own(engine, body):
            return self._refusal(Verdict(reasons.NAME_CONFLICT, f"Somebody else made the pod {name}; it is deleted."))
        return None

    async def identify_pod(self, engine: EngineView, action: IdentifyPod) -> bool:
        """Note that the pod is this operator's; or that it is not, and delete it. False where that pod is gone, and the
        cache will hear of it. Raises ApiError: then it is asked again."""
        try:
            body = await self._client.get(PODS, action.name, namespace=engine.namespace)
        except NotFound:
            return False
        if body["metadata"]["uid"] != action.uid:
            return False
        await self._is_own(engine, body)
        return True

    async def _is_own(self, engine: EngineView, body: dict[str, Any]) -> bool:
        """Whether this operator made the pod of that name, by its seal. If not, it is deleted, and no pod of the
        engine's any more, whether or not it goes."""
        name, uid = body["metadata"]["name"], body["metadata"]["uid"]
        if self._seals.holds(body):
            self._cache.record_made(uid)
            return True
        log.warning("%s: the pod %s, uid %s, is not this operator's and is deleted", engine.key, name, uid)
        await self.delete_pod(engine, DeletePod(name, uid, 0))
        self._cache.record_strange(uid)
        return False

    def _refusal(self, verdict: Verdict) -> CreateFailure:
        return CreateFailure(verdict, self._clock() + QUOTA_RETRY)

    def without_dropped(self, engine: EngineView, decision: Decision) -> Decision:
        """The decision, without a patch where the API server is known to drop all that it would change."""
        patch = self._kept.worth_writing(engine.status, decision.patch)
        return decision if patch == decision.patch else replace(decision, patch=patch)

    async def patch_status(self, engine: EngineView, patch: dict[str, Any]) -> bool:
        """PATCH the status of exactly this engine. False if it was deleted or created again, or changed before it was
        ours: the first write is the acceptance, and of two installations one alone accepts an engine."""
        precondition = {"uid": engine.uid}
        # What was checked is the spec of this version alone.
        if not self._ownership.has_accepted(engine) or "admission" in patch:
            precondition["resourceVersion"] = str(engine.version)
        body = {"metadata": precondition, "status": patch}
        try:
            answer = await self._client.patch(
                ENGINECONNS, engine.name, body, namespace=engine.namespace, subresource="status"
            )
        except (NotFound, Conflict) as error:
            # The engine was deleted meanwhile, or created again. The watch reports that by itself.
            log.info("%s: its status was not taken: %s", engine.key, error)
            if isinstance(error, Conflict) and "resourceVersion" in precondition:
                await self._read_again(engine)
            return False
        self._kept.note(engine.name, engine.uid, patch, answer)
        self._cache.apply_engine(answer)
        return True

    async def _read_again(self, engine: EngineView) -> None:
        """The engine as it is now, into the cache: the view that a write was decided by was too old."""
        try:
            self._cache.apply_engine(await self._client.get(ENGINECONNS, engine.name, namespace=engine.namespace))
        except NotFound:
            log.info("%s: it is gone", engine.key)

    async def delete_pod(self, engine: EngineView, action: DeletePod) -> bool:
        """DELETE exactly this pod. It is no error if the pod does not exist.

        Returns True if the answer's pod went into the cache, so that the watch's event will bring nothing new.
        """
        try:
            answer = await self._client.delete(
                PODS, action.name, namespace=engine.namespace, uid=action.uid, grace_seconds=action.grace
            )
        except (NotFound, Conflict) as error:
            log.info("%s: its pod %s is not there to delete: %s", engine.key, action.name, error)
            return False
        # For a pod that is deleted at once the answer is a Status, or the pod as it was before.
        ending = answer.get("kind") == "Pod" and answer["metadata"].get("deletionTimestamp") is not None
        return ending and action.grace > 0 and self._cache.apply_pod(pod_view(answer))

    async def mark_pod(self, engine: EngineView, action: MarkPod) -> None:
        """PATCH the annotations of exactly this pod. What fails is tried again in a later pass."""
        wanted = {name: value if action.undisrupted else None for name, value in UNDISRUPTED.items()}
        body = {"metadata": {"uid": action.uid, "annotations": wanted}}
        try:
            answer = await self._client.patch(PODS, action.name, body, namespace=engine.namespace)
        except ApiError as error:
            log.warning("%s: its pod's annotations for autoscalers are not written: %s", engine.key, error)
            return
        self._cache.apply_pod(pod_view(answer))

    async def confirm_pod(self, engine: EngineView, action: ConfirmPodGone) -> bool:
        """Whether the API server has the engine's pod. If so, the pod goes into the cache."""
        try:
            found = pod_view(await self._client.get(PODS, action.name, namespace=engine.namespace))
        except NotFound:
            return False
        if found.owner_uid != engine.uid or engine.text("podUid") not in ("", found.uid):
            return False
        if self._cache.is_strange(found.uid):
            return False
        self._cache.apply_pod(found)
        return True

    async def stop_agent(self, engine: EngineView, action: StopAgent) -> bool:
        """False also where nobody has its key: the pod's deletion ends it then."""
        key = key_of(self._master_keys, action.key, engine.uid, action.attempt)
        host = _agent_host(engine, action.address)
        if key is None or host is None:
            return False
        return await self._agents.stop(host, key, grace=action.grace, reason=action.reason)

    async def get_agent_status(self, engine: EngineView, action: GetAgentStatus) -> dict[str, Any] | KeyRefused | None:
        """Its report; None where nobody answers. An agent whose key is not here is asked, too: does it live?"""
        key = key_of(self._master_keys, action.key, engine.uid, action.attempt)
        host = _agent_host(engine, action.address)
        if host is None:
            return None
        if key is not None:
            return await self._agents.status(host, key)
        answer = await self._agents.status(host, NO_KEY)
        return None if answer is None else KeyRefused("It answers, and this operator has no key for it.")

    async def get_node_condition(self, action: GetNodeCondition) -> str:
        """The state of a node at the API server: "ready", or a text that says what is wrong."""
        try:
            node = await self._client.get(NODES, action.name, timeout=5.0)
        except NotFound:
            return "it is gone"
        except ApiError as error:
            # Without the right to read nodes the engine's reason is AgentLost, which is also true.
            log.info("node %s: %s", action.name, error)
            return "ready"
        conditions = (node.get("status") or {}).get("conditions") or []
        ready: dict[str, Any] = next((c for c in conditions if c.get("type") == "Ready"), {})
        if ready.get("status") == "True":
            return "ready"
        return f"not ready ({ready.get('reason') or 'unknown'}: {ready.get('message') or 'no message'})"

    async def get_start_problem(self, engine: EngineView, action: GetPodEvents) -> Verdict | None:
        """Why the pod does not start, by its events; None where they do not say it or cannot be read."""
        try:
            return problem_of_events(await read_pod_events(self._client, engine.namespace, action.pod))
        except ApiError as error:
            log.info("%s: events of its pod: %s", engine.key, error)
            return None

    async def delete_engine(self, engine: EngineView, action: DeleteEngine) -> None:
        """DELETE the ended engine's resource."""
        try:
            await self._client.delete(ENGINECONNS, engine.name, namespace=engine.namespace, uid=action.uid)
        except (NotFound, Conflict) as error:
            log.info("%s: not there to remove: %s", engine.key, error)


def _agent_host(engine: EngineView, address: str) -> str | None:
    """Where the token may be sent, None where the address is not an agent's."""
    try:
        return agent_host(address, AGENT_PORT)
    except ValueError as error:
        log.warning("%s: nothing is sent to the address %.60r: %s", engine.key, address, error)
        return None
