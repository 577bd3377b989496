"""Keeps the post-mortem of each attempt: collects the evidence of its pod before the pod is deleted; deletes it later.

The agent uploads its own log files. If it could not, the kubelet's log of the container is kept instead. The bundle
names what could not be collected. Must not decide when to collect: that is `engine.decide`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Protocol

import orjson

from linkis_ecm.agent.formats.result_files import FILE as RESULT_FILE
from linkis_ecm.archive.bundles import BUNDLE, CONTAINER_LOG
from linkis_ecm.controller.metrics import Metrics
from linkis_ecm.controller.pods.events import read_pod_events
from linkis_ecm.engine.causes.start_problems import eviction_of_events, problem_of_events
from linkis_ecm.engine.causes.verdicts import with_evidence
from linkis_ecm.engine.decision import CollectEvidence, Evidence
from linkis_ecm.engine.facts import ticket_id
from linkis_ecm.engine.pod import launch
from linkis_ecm.engine.times import format_time
from linkis_ecm.engine.view import EngineView, Report
from linkis_ecm.kube.client import ApiError, KubeClient, NotFound
from linkis_ecm.kube.resources import NAMESPACES, PODS
from linkis_ecm.model import reasons
from linkis_ecm.model.record import PostMortemRecord

log = logging.getLogger(__name__)

# Seconds for a whole collection, since the engine's end waits for it. A working kubelet answers within 1 s.
COLLECT_SECONDS = 10.0
# Bytes of the kubelet's log, which by default holds 10 MiB in its current file.
CONTAINER_LOG_BYTES = 10 << 20
# Bytes of the log of another container of the pod, which an end is about.
OTHER_LOG_BYTES = 64 << 10
# Entries of both lists in an engine's status (model.engineconn.PostMortem).
FILES_MAX = 16
# Spilled results of one engine: their number, and their bytes together (a sixteenth of what the archive keeps by
# default, so that one user's results replace few logs of others); the oldest are deleted first. One result has at most
# what an engine's kernel writes (agent/kernel/tables/spill.py) and a batch.
RESULTS_MAX = 64
RESULTS_BYTES = 512 << 20
RESULT_BYTES = 300 << 20
# The largest number of remembered uids of deleted engines, whose pods may still upload their logs.
DELETED_MAX = 10_000
# Seconds between two deletions of expired bundles.
EXPIRY_CHECK_SECONDS = 600.0
# Seconds between two looks at least: refused uploads ask for one.
MIN_PAUSE_SECONDS = 5.0
# Rows of one transaction of a purge: others' writes wait for it.
PURGE_ROWS = 1000
# It is looked sooner after a sixteenth of the archive was written. A quarter over its bound it takes nothing until room
# is made: the chart's volume (10 GiB) has that much more than the bound (8 GiB).
CHECK_PART, OVER_PART = 16, 4
# Batches of expired bundles (100 each) that are deleted before the next look.
BATCHES_MAX = 100


class UploadRefusedError(Exception):
    """A file is not taken: a sentence, and which bound: engine, file, total, or written (it is kept already)."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


class PostMortemIndex(Protocol):
    """The store's part. All calls but the first block and run in threads."""

    def offer_post_mortem(self, entry: PostMortemRecord) -> None: ...
    def expired_post_mortems(self, now: datetime, total: int, per_user: int, limit: int = 100) -> list[str]: ...
    def archived_bytes(self) -> int: ...
    def first_expiry(self) -> datetime | None: ...
    def delete_post_mortems(self, uid: str) -> None: ...
    def purge_transitions(self, before: datetime, limit: int = 1000) -> int: ...


class BundleStore(Protocol):
    """The archive's part (`archive.bundles.Archive`)."""

    async def save(
        self, uid: str, attempt: int, name: str, chunks: AsyncIterator[bytes], *, limit: int, whole: bool = False
    ) -> tuple[int, str]: ...
    async def put(self, uid: str, attempt: int, name: str, data: bytes) -> None: ...
    async def get(self, uid: str, attempt: int, name: str) -> bytes | None: ...
    async def files(self, uid: str, attempt: int) -> dict[str, int]: ...
    async def attempts(self, uid: str) -> list[int]: ...
    async def discard(self, uid: str, attempt: int, name: str) -> None: ...
    async def remove(self, uid: str) -> None: ...


class EvidenceKeeper:
    """`collect` when an attempt ends, `add_file` what agents send, `delete_expired` later.

    `total` is the largest number of bytes of all bundles; beyond it the user who has most loses the oldest first.
    `engine_max` and `user_max` are those of one engine, all attempts together, and of one user. `history` is how long
    the database keeps each state of an engine.
    """

    def __init__(
        self,
        *,
        client: KubeClient,
        archive: BundleStore,
        index: PostMortemIndex,
        clock: Callable[[], datetime],
        retention: timedelta,
        total: int,
        engine_max: int,
        user_max: int,
        metrics: Metrics,
        history: timedelta = timedelta(days=90),
    ) -> None:
        self._client = client
        self._archive = archive
        self._index = index
        self._clock = clock
        self._retention = retention
        self._total = total
        self._history = history
        self._engine_max = engine_max
        self._user_max = user_max
        # Bytes that uploads under way may still write, by engine.
        self._reserved: Counter[str] = Counter()
        # Bytes of all bundles when it was last looked, None before; and what was written since.
        self._held: int | None = None
        self._written = 0
        self._look_now = asyncio.Event()
        # Of the bundle that expires first, None without one.
        self._first_expiry: datetime | None = None
        self._outcomes = metrics.post_mortems
        self._deleted_engines: OrderedDict[str, str] = OrderedDict()

    async def collect(self, engine: EngineView, action: CollectEvidence, report: Report | None) -> Evidence:
        """Write the bundle of an attempt. Never raises. What could not be collected is listed as missing."""
        missing: list[str] = []
        facts: dict[str, Any] = {}
        terminating, verdict, tail = False, action.verdict, ""
        start_problem = eviction = None
        try:
            async with asyncio.timeout(COLLECT_SECONDS):
                if action.verdict.reason is reasons.POD_DELETED:
                    terminating = await self._is_namespace_terminating(engine.namespace)
                facts["pod"] = await self._pod(engine, action.pod, missing)
                facts["events"] = await self._events(engine, action.pod, missing)
                start_problem = problem_of_events(facts["events"])
                eviction = eviction_of_events(facts["events"])
                tail = await self._log(engine, action, missing)
        except TimeoutError:
            missing.append(f"the rest: the API server did not give it within {COLLECT_SECONDS:g} s")
        except Exception as error:
            log.exception("%s: evidence", engine.key)
            missing.append(f"the rest: {type(error).__name__}")
        # The decision that follows comes to the same verdict, from this evidence.
        verdict = with_evidence(verdict, start_problem=start_problem, eviction=eviction, tail=tail)
        now = self._clock()
        body: dict[str, Any] = {
            "ticketId": ticket_id(engine), "uid": engine.uid, "namespace": engine.namespace, "name": engine.name,
            "attempt": action.attempt, "podName": action.pod, "reason": verdict.reason.name,
            "message": verdict.message, "collectedAt": format_time(now),
            "user": engine.spec.user if engine.spec is not None else "", "startup": engine.status.get("startup"),
        } | facts  # fmt: skip
        if report is not None:
            body |= {
                "lastReport": format_time(report.changed), "usage": dict(report.usage), "metrics": dict(report.metrics),
                "execution": dict(report.task) or None, "agentMessage": report.message,
            }  # fmt: skip
        files: dict[str, int] = {}
        try:
            async with asyncio.timeout(COLLECT_SECONDS):
                await self._archive.put(
                    engine.uid, action.attempt, BUNDLE, orjson.dumps(body | {"missing": missing}, default=str)
                )
                files = await self._archive.files(engine.uid, action.attempt)
        except (OSError, TimeoutError) as error:
            self._outcomes.labels("failed").inc()
            log.warning("%s: the archive takes no bundle: %s", engine.key, error)
            missing.append(f"everything: the archive takes nothing ({type(error).__name__})")
        else:
            self._outcomes.labels("complete" if not missing else "partial").inc()
        expires = now + self._retention
        self._index.offer_post_mortem(
            PostMortemRecord(
                ticket_id=ticket_id(engine), uid=engine.uid, attempt=action.attempt, at=now,
                reason=verdict.reason.name, message=verdict.message, files=files,
                missing=tuple(missing), expires=expires,
            )
        )  # fmt: skip
        summary: dict[str, Any] = {
            # Of spilled results there may be RESULTS_MAX, the CRD takes FILES_MAX names: the archive lists them all.
            "files": sorted(name for name in files if RESULT_FILE.fullmatch(name) is None)[:FILES_MAX],
            "sizeBytes": sum(files.values()), "expires": format_time(expires),
        }  # fmt: skip
        if missing:
            summary["missing"] = missing[:FILES_MAX]
        return Evidence(
            action.attempt, summary, namespace_terminating=terminating, start_problem=start_problem, eviction=eviction,
            log_tail=tail,
        )  # fmt: skip

    async def _is_namespace_terminating(self, name: str) -> bool:
        """Whether the namespace is being deleted or does not exist any more."""
        try:
            found = await self._client.get(NAMESPACES, name, timeout=5.0)
        except NotFound:
            return True
        except ApiError as error:
            log.info("namespace %s: %s", name, error)
            return False
        return bool((found.get("metadata") or {}).get("deletionTimestamp"))

    async def _pod(self, engine: EngineView, name: str, missing: list[str]) -> dict[str, Any] | None:
        """The pod's last status from the API server; None if the pod is deleted or cannot be read."""
        try:
            pod = await self._client.get(PODS, name, namespace=engine.namespace, timeout=5.0)
        except NotFound:
            missing.append("the container's last state: the pod was gone before it could be read")
            return None
        except ApiError as error:
            missing.append(f"the container's last state: {error.reason}")
            return None
        status = dict(pod.get("status") or {})
        metadata = pod.get("metadata") or {}
        return {
            "uid": metadata.get("uid"), "node": (pod.get("spec") or {}).get("nodeName"),
            "deletionTimestamp": metadata.get("deletionTimestamp"), "phase": status.get("phase"),
            "reason": status.get("reason"), "message": status.get("message"), "conditions": status.get("conditions"),
            "containers": status.get("containerStatuses"), "initContainers": status.get("initContainerStatuses"),
        }  # fmt: skip

    async def _events(self, engine: EngineView, name: str, missing: list[str]) -> list[dict[str, Any]]:
        try:
            return await read_pod_events(self._client, engine.namespace, name)
        except ApiError as error:
            missing.append(f"the pod's events: {error.reason}")
            return []

    async def _log(self, engine: EngineView, action: CollectEvidence, missing: list[str]) -> str:
        """Save the kubelet's log of the container that the end is about, unless an agent has uploaded its files.

        Returns the end of the log of a container that is not the engine's, else an empty text.
        """
        if action.verdict.container:
            return await self._other_log(engine, action, missing)
        await self._engine_log(engine, action, missing)
        return ""

    async def _other_log(self, engine: EngineView, action: CollectEvidence, missing: list[str]) -> str:
        name = action.verdict.container
        try:
            data = await self._client.pod_log(
                action.pod, namespace=engine.namespace, container=name, tail_bytes=OTHER_LOG_BYTES, timeout=5.0
            )
        except ApiError as error:
            missing.append(f"the log of the container {name}: {error.message[:200]}")
            return ""
        if data:
            await self._archive.put(engine.uid, action.attempt, CONTAINER_LOG, data)
        return data.decode(errors="replace")

    async def _engine_log(self, engine: EngineView, action: CollectEvidence, missing: list[str]) -> None:
        if "stdout" in await self._archive.files(engine.uid, action.attempt):
            return
        agent = launch.has_agent(launch.of(engine, None))
        why = "the agent could not send its files" if agent else "a process writes no log files"
        try:
            data = await self._client.pod_log(
                action.pod, namespace=engine.namespace, container="engine", tail_bytes=CONTAINER_LOG_BYTES, timeout=5.0
            )
        except ApiError as error:
            what = "the pod is gone" if isinstance(error, NotFound) else error.message[:200]
            missing.append(f"stdout and stderr: {why}, and the kubelet gives no log ({what})")
            return
        if data:
            await self._archive.put(engine.uid, action.attempt, CONTAINER_LOG, data)
        kept = (
            f"{CONTAINER_LOG} has the end of both as the kubelet kept them" if data else "the container wrote nothing"
        )
        missing.append(f"stdout and stderr as files: {why}; {kept}")

    def engine_deleted(self, engine: EngineView) -> None:
        """The engine's resource was deleted. Its pod may still upload its logs while it ends."""
        self._deleted_engines[engine.uid] = ticket_id(engine)
        while len(self._deleted_engines) > DELETED_MAX:
            self._deleted_engines.popitem(last=False)

    async def add_result(
        self,
        uid: str,
        attempt: int,
        name: str,
        chunks: AsyncIterator[bytes],
        *,
        limit: int,
        ticket: str,
        announced: int | None,
    ) -> tuple[int, str]:
        """Add a spilled result, as `add_file`, after older results were deleted to make room for its announced bytes.

        An incomplete result is not kept. Of a result that is too long nothing is read.
        """
        limit = min(limit, RESULT_BYTES)
        room = limit if announced is None else announced
        if room > limit:
            return 0, f"it has {room} bytes, and the archive's bound for a result is {limit}"
        kept = [
            (earlier, file, size)
            for earlier in await self._archive.attempts(uid)
            for file, size in (await self._archive.files(uid, earlier)).items()
            if RESULT_FILE.fullmatch(file) and (earlier, file) != (attempt, name)
        ]  # in the order in which they were made: attempt, then the time in the name
        total = sum(size for _, _, size in kept)
        while kept and (len(kept) >= RESULTS_MAX or total > RESULTS_BYTES - room):
            earlier, file, size = kept.pop(0)
            await self._archive.discard(uid, earlier, file)
            total -= size
        return await self.add_file(
            uid, attempt, name, chunks, limit=limit, ticket=ticket, announced=announced, whole=True
        )

    async def add_file(
        self,
        uid: str,
        attempt: int,
        name: str,
        chunks: AsyncIterator[bytes],
        *,
        limit: int,
        ticket: str,
        announced: int | None = None,
        whole: bool = False,
    ) -> tuple[int, str]:
        """Add a file that an agent uploads. Returns its bytes and why it is cut, or "".

        Raises UploadRefusedError, before anything is read where it can be known; OSError if the archive fails.
        """
        files = await self._archive.files(uid, attempt)
        if BUNDLE in files and name in files:
            raise _kept_already(name)
        wanted = limit if announced is None else min(limit, announced)
        self._require_space(wanted)
        others = self._reserved[uid]
        self._reserved[uid] += wanted
        try:
            room = self._engine_max - others - await self._engine_bytes(uid, but=(attempt, name))
            if room <= 0 < wanted or (whole and room < wanted):
                raise UploadRefusedError(
                    "engine", f"{name}: one engine may have {self._engine_max} bytes in the archive, and it has no more"
                )
            try:
                size, cut = await self._archive.save(uid, attempt, name, chunks, limit=min(limit, room), whole=whole)
            except FileExistsError:
                raise _kept_already(name) from None
        finally:
            self._reserved[uid] -= wanted
            if not self._reserved[uid]:
                del self._reserved[uid]
        self._count_written(size)
        await self._reindex(uid, attempt, self._deleted_engines.get(uid) or ticket, f"{name}: {cut}" if cut else "")
        return size, cut

    async def _engine_bytes(self, uid: str, *, but: tuple[int, str]) -> int:
        """Bytes of all its files, without the one that is written anew."""
        found = {
            (attempt, name): size
            for attempt in await self._archive.attempts(uid)
            for name, size in (await self._archive.files(uid, attempt)).items()
        }
        return sum(size for file, size in found.items() if file != but)

    def _require_space(self, wanted: int) -> None:
        if self._held is None or self._held + self._written + wanted <= self._total + self._total // OVER_PART:
            return
        self._look_now.set()
        raise UploadRefusedError("total", f"the archive has its {self._total} bytes: room is being made, send it again")

    def _count_written(self, size: int) -> None:
        self._written += size
        if self._written > self._total // CHECK_PART:
            self._look_now.set()

    async def _reindex(self, uid: str, attempt: int, ticket: str, problem: str) -> None:
        """Update the index for a file that came after a collection, or without one."""
        known = await self._archive.get(uid, attempt, BUNDLE)
        bundle = orjson.loads(known) if known else {}
        missing = [*bundle.get("missing", ()), *([problem] if problem else ())]
        files = await self._archive.files(uid, attempt)
        if {"stdout", "stderr"} <= files.keys():
            missing = [line for line in missing if not line.startswith("stdout and stderr")]
        now = self._clock()
        self._index.offer_post_mortem(
            PostMortemRecord(
                ticket_id=ticket, uid=uid, attempt=attempt, at=now, reason=str(bundle.get("reason") or ""),
                message=str(bundle.get("message") or ""), files=files, missing=tuple(missing),
                expires=now + self._retention,
            )
        )  # fmt: skip

    async def delete_expired(self) -> int:
        """Delete bundles that are expired, or more than a user or all together may have. Returns the number of their
        engines."""
        removed = 0
        self._look_now.clear()
        for _ in range(BATCHES_MAX):
            found = await asyncio.to_thread(
                self._index.expired_post_mortems, self._clock(), self._total, self._user_max
            )
            for uid in found:
                await self._archive.remove(uid)
                await asyncio.to_thread(self._index.delete_post_mortems, uid)
            removed += len(found)
            if not found:
                break
        await self._measure()
        return removed

    async def _measure(self) -> None:
        """How much is in the archive, of all shards together, and when the first of it expires."""
        self._first_expiry = await asyncio.to_thread(self._index.first_expiry)
        self._held, self._written = await asyncio.to_thread(self._index.archived_bytes), 0

    def archive_size(self) -> tuple[int, float] | None:
        """Bytes in the archive, and the age in seconds of the oldest bundle, 0 without one; None before the first look.

        A bundle expires one retention after its last file came.
        """
        if self._held is None:
            return None
        first = self._first_expiry
        age = (self._clock() + self._retention - first).total_seconds() if first is not None else 0.0
        return self._held + self._written, max(0.0, age)

    async def purge_history(self) -> int:
        """Deletes engines' transitions that are over `history`; how many."""
        before, removed = self._clock() - self._history, 0
        while count := await asyncio.to_thread(self._index.purge_transitions, before, PURGE_ROWS):
            removed += count
            if count < PURGE_ROWS:
                break
        return removed

    async def run(self, leading: asyncio.Event, deletes: Callable[[], bool] = lambda: True) -> None:
        """Delete expired bundles repeatedly while leading, until cancelled.

        Of several shards over one archive one deletes: `deletes()`. The others look how much there is.
        """
        while True:
            await leading.wait()
            try:
                if not deletes():
                    self._look_now.clear()
                    await self._measure()
                else:
                    if removed := await self.delete_expired():
                        log.info("the bundles of %d engines were over and are removed", removed)
                    await self.purge_history()
            except Exception:
                log.exception("expired bundles could not be removed; tried again")
            await asyncio.sleep(MIN_PAUSE_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(EXPIRY_CHECK_SECONDS):
                    await self._look_now.wait()


def _kept_already(name: str) -> UploadRefusedError:
    return UploadRefusedError(
        "written", f"{name} is kept already: the attempt has ended, and its files stay as they are"
    )
