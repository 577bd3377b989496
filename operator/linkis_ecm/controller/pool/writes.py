"""The writes of a warm pool: members made, marked as ready and deleted, and the plugin's status. Each is idempotent.

Whatever was sent and not answered is kept by its name and sent again under the same name. A member is deleted only in
the version that was looked at: an engine may have claimed it meanwhile, and then the pod is the engine's. The API
server's answers go into the cache at once. Must not decide anything.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from linkis_ecm.controller.pods import refusals
from linkis_ecm.controller.pool.agents import MemberReport
from linkis_ecm.controller.pool.templates import Templates
from linkis_ecm.controller.state.cache import Cache
from linkis_ecm.controller.state.kept import KeptFields
from linkis_ecm.engine.names import READY_ANNOTATION
from linkis_ecm.engine.pod_view import PodView, pod_view
from linkis_ecm.engine.view import PluginView
from linkis_ecm.engine.warm import fit, problems, setbacks
from linkis_ecm.engine.warm.problems import Problem
from linkis_ecm.kube.client import AlreadyExists, ApiError, Conflict, Forbidden, KubeClient, NotFound
from linkis_ecm.kube.resources import PLUGINS, PODS

log = logging.getLogger(__name__)

# Seconds for one write, tries included: the pool's other writes wait for it.
WRITE_SECONDS = 10.0
# Seconds between SIGTERM and SIGKILL: nobody has anything in a member.
GRACE = 5
# Of a member's name, from the plugin's.
_STEM = 40


@dataclass(frozen=True, slots=True)
class Made:
    """The outcome of a create: `made`, or `refused` with the problem; None of both: with an `error` nothing is
    known of it, and without one the name is another pod's, or may be."""

    made: bool = False
    refused: Problem | None = None
    error: ApiError | None = None


def member_name(pool: str, rng: random.Random) -> str:
    """Of a new member: its pod's name and host name, never given again."""
    stem = "".join(one if one.isalnum() else "-" for one in pool[:_STEM].lower()).strip("-") or "engine"
    return f"{stem}-warm-{rng.getrandbits(48):012x}"


async def all_sent(calls: Iterable[Coroutine[Any, Any, None]]) -> list[Exception]:
    """Sends all at once. Returns what was not answered."""
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for one in answers:
        if isinstance(one, BaseException) and not isinstance(one, Exception):
            raise one
    return [one for one in answers if isinstance(one, Exception)]


class PoolWrites:
    """Over the client, the cache and the templates."""

    def __init__(self, *, client: KubeClient, cache: Cache, templates: Templates, kept: KeptFields) -> None:
        self._client = client
        self._kept = kept
        self._cache = cache
        self._templates = templates
        # Uids of members whose deletion was asked for, until they are gone: nobody else took them away.
        self._going: set[str] = set()

    def others_did(self, before: PodView, after: PodView | None, *, asked: bool) -> str:
        """What somebody else did to a member that no engine took, in the words of `setbacks.taken_away`; "" where it is
        nothing, or this operator's own. `asked`: its create is not answered yet, so it is known by its name alone."""
        known = self._templates.is_known(before)
        if before.uid in self._going or not (known or asked):
            return ""
        strange = known and after is not None and not self._templates.is_known(after)
        return setbacks.taken_away(before, after, strange=strange)

    def forget(self, pod: PodView) -> None:
        """The pod is gone, or is no member any more."""
        self._going.discard(pod.uid)

    async def create(self, template: Mapping[str, Any], name: str) -> Made:
        """POSTs a member of that name, also where that may have happened already.

        A pod that is there already is not known to be the one that was asked for: whoever saw its name may have put
        one of their own in its place. It goes into the cache, and the pool deletes it as of unknown origin.
        """
        pod = fit.member_pod(template, name)
        namespace = pod["metadata"]["namespace"]
        try:
            answer = await self._client.create(PODS, pod, timeout=WRITE_SECONDS)
        except AlreadyExists:
            found = await self.look(namespace, name)
            return replace(found, made=False)
        except Forbidden as error:
            return Made(refused=problems.of_verdict(refusals.of_forbidden(error, ())))
        except NotFound as error:
            return Made(refused=Problem(problems.REFUSED, error.message))
        except ApiError as error:
            if error.is_malformed:
                return Made(refused=problems.of_verdict(refusals.of_malformed(error, ())))
            if refusals.is_webhook_outage(error):
                return Made(refused=problems.of_verdict(refusals.of_outage(error)))
            return Made(error=error)
        view = pod_view(answer)
        self._templates.record_made(view)
        self._cache.apply_pod(view)
        return Made(made=True)

    async def look(self, namespace: str, name: str) -> Made:
        """Whether a create that was not answered was executed. Its image is not known as it was made then."""
        try:
            found = pod_view(await self._client.get(PODS, name, namespace=namespace, timeout=WRITE_SECONDS))
        except NotFound:
            return Made(refused=Problem(problems.NO_ANSWER, f"The pod {name} is gone again"))
        except ApiError as error:
            return Made(error=error)
        self._cache.apply_pod(found)
        return Made(made=True)

    async def mark_ready(self, pod: PodView, report: MemberReport) -> None:
        """PATCH the annotation by which the pod may be claimed, also by a successor of this one. Raises ApiError."""
        said = {
            "enrolment": report.key.nonce, "keyId": report.key.key_id, "takes": list(report.takes),
            "seal": self._templates.seals.seal(pod, report.key),
        }  # fmt: skip
        body = {"metadata": {"uid": pod.uid, "annotations": {READY_ANNOTATION: json.dumps(said)}}}
        try:
            answer = await self._client.patch(PODS, pod.name, body, namespace=pod.namespace, timeout=WRITE_SECONDS)
        except (NotFound, Conflict) as error:
            log.info("%s/%s: it is no member to mark any more: %s", pod.namespace, pod.name, error)
            return
        self._cache.apply_pod(pod_view(answer))

    async def delete(self, pod: PodView) -> bool:
        """DELETE the member as it was looked at; False where it was changed since, or was gone. Raises ApiError."""
        # Before it is sent: the watch may be faster than the answer.
        self._going.add(pod.uid)
        try:
            answer = await self._client.delete(
                PODS, pod.name, namespace=pod.namespace, uid=pod.uid, resource_version=str(pod.version),
                grace_seconds=GRACE, timeout=WRITE_SECONDS,
            )  # fmt: skip
        except NotFound:
            self._cache.drop_pod(pod)
            self._going.discard(pod.uid)
            return False
        except Conflict:
            self._going.discard(pod.uid)
            await self.look(pod.namespace, pod.name)
            return False
        if answer.get("kind") == "Pod" and answer["metadata"].get("deletionTimestamp") is not None:
            self._cache.apply_pod(pod_view(answer))
        else:
            self._cache.drop_pod(pod)
        return True

    def worth_writing(self, plugin: PluginView, patch: dict[str, Any]) -> dict[str, Any]:
        """The patch of its status, empty where the API server is known to drop all that it would change."""
        return self._kept.worth_writing(plugin.status, patch)

    async def write_status(self, plugin: PluginView, patch: dict[str, Any]) -> bool:
        """PATCH the status of exactly this version of the plugin; False where it was not taken.

        What fails is tried again later. Another installation may have written meanwhile: then the view is read again.
        """
        body = {"metadata": {"uid": plugin.uid, "resourceVersion": str(plugin.version)}, "status": patch}
        try:
            answer = await self._client.patch(
                PLUGINS, plugin.name, body, subresource="status", timeout=WRITE_SECONDS
            )  # fmt: skip
            self._kept.note(plugin.name, plugin.uid, patch, answer)
            self._take(plugin, answer)
        except Conflict:
            await self._read_again(plugin)
        except ApiError as error:
            log.warning("plugin %s: its warm pool's status is not written: %s", plugin.name, error)
            return False
        return True

    async def _read_again(self, plugin: PluginView) -> None:
        try:
            self._take(plugin, await self._client.get(PLUGINS, plugin.name, timeout=WRITE_SECONDS))
        except ApiError as error:
            log.info("plugin %s: %s", plugin.name, error)

    def _take(self, plugin: PluginView, answer: dict[str, Any]) -> None:
        """The status alone. Where the spec has changed, too, the watch brings it to everybody."""
        metadata = answer["metadata"]
        if (metadata.get("uid"), metadata.get("generation", 0)) == (plugin.uid, plugin.generation):
            self._cache.apply_plugin(answer)
