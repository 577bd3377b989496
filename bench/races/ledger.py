"""What a watch of pods and engines saw while engines raced for a pool's members, and what of it breaks a promise.

The promises: a pod has at most one engine in its whole life, an engine that is Idle has one pod and names it, no engine
is lost, and `warm` is said of those alone whose pod was a member. Pure. Must not read a cluster.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

POOL_LABEL = "linkis.apache.org/warm-pool"


@dataclass
class _Pod:
    name: str
    was_member: bool = False
    # Uids of all EngineConns that it was ever owned by.
    owners: set[str] = field(default_factory=set)
    is_there: bool = True


@dataclass
class _Engine:
    name: str
    status: dict[str, Any] = field(default_factory=dict)


class Ledger:
    """Fed with each event of two watches, as the API server sends them."""

    def __init__(self) -> None:
        self._pods: dict[str, _Pod] = {}
        self._engines: dict[str, _Engine] = {}

    def pod(self, kind: str, body: dict[str, Any]) -> None:
        """An event of a pod: ADDED, MODIFIED or DELETED."""
        meta = body["metadata"]
        found = self._pods.setdefault(meta["uid"], _Pod(meta["name"]))
        found.was_member |= POOL_LABEL in (meta.get("labels") or {})
        found.owners |= {one["uid"] for one in meta.get("ownerReferences") or () if one["kind"] == "EngineConn"}
        found.is_there = kind != "DELETED" and "deletionTimestamp" not in meta

    def engine(self, kind: str, body: dict[str, Any]) -> None:
        """An event of an EngineConn. What it said last is kept when it is deleted."""
        if kind == "DELETED":
            return
        meta = body["metadata"]
        found = self._engines.setdefault(meta["uid"], _Engine(meta["name"]))
        found.status = body.get("status") or {}

    @property
    def claimed(self) -> int:
        """Members that an engine has taken so far."""
        return sum(pod.was_member and bool(pod.owners) for pod in self._pods.values())

    def idle(self) -> dict[str, str]:
        """The ticket of each engine that is Idle, by its name."""
        return {
            engine.name: str(engine.status.get("ticketId", ""))
            for engine in self._engines.values()
            if engine.status.get("engineState") == "Idle"
        }

    def pod_of(self, name: str) -> str:
        """The name of the pod that the engine names."""
        found = next(one for one in self._engines.values() if one.name == name)
        return str(found.status.get("podName", ""))

    def starts(self, names: list[str]) -> tuple[Counter[str], Counter[str]]:
        """How these engines started, `warm` or `cold`, and why the cold ones did."""
        startups = [one.status.get("startup") or {} for one in self._engines.values() if one.name in names]
        kinds = Counter(str(one.get("kind", "unknown")) for one in startups)
        return kinds, Counter(str(one.get("coldBecause", "")) for one in startups if one.get("kind") == "cold")

    def double_claims(self) -> list[str]:
        """Each pod that more than one engine has owned, in a sentence."""
        return [
            f"Pod {pod.name} was given to {len(pod.owners)} engines: {', '.join(sorted(map(self._name, pod.owners)))}."
            for pod in self._pods.values()
            if len(pod.owners) > 1
        ]

    def faults(self, names: list[str]) -> list[str]:
        """What is wrong with these engines, which must all be Idle now, each in a sentence. Empty: nothing."""
        found = []
        by_name = {one.name: (uid, one) for uid, one in self._engines.items()}
        for name in names:
            if name not in by_name:
                found.append(f"Engine {name} was never seen.")
                continue
            uid, engine = by_name[name]
            state, startup = engine.status.get("engineState"), engine.status.get("startup") or {}
            if state != "Idle":
                found.append(f"Engine {name} is {state}: {engine.status.get('reason')}.")
                continue
            pods = [pod for pod in self._pods.values() if uid in pod.owners and pod.is_there]
            if len(pods) != 1:
                found.append(f"Engine {name} has {len(pods)} pods: {', '.join(sorted(pod.name for pod in pods))}.")
                continue
            if pods[0].name != engine.status.get("podName"):
                found.append(f"Engine {name} names pod {engine.status.get('podName')} and has {pods[0].name}.")
            if (startup.get("kind") == "warm") != pods[0].was_member:
                found.append(f"Engine {name} says {startup.get('kind')}; its pod was a member: {pods[0].was_member}.")
            if engine.status.get("attempt"):
                found.append(f"Engine {name} needed attempt {engine.status['attempt']}.")
        return found

    def _name(self, uid: str) -> str:
        return self._engines[uid].name if uid in self._engines else uid
