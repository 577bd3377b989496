"""Engines made by kubectl, as a user makes them, and taken away again. Must not judge them: tests do."""

from __future__ import annotations

import json
import uuid
from typing import Any

from tools.testkit.cluster import kubectl
from tools.testkit.cluster.waiting import NAMESPACE, until_state


class Engines:
    """Makes EngineConns of one namespace; their names begin with `prefix`."""

    def __init__(self, prefix: str, namespace: str = NAMESPACE) -> None:
        self._prefix, self._namespace = prefix, namespace
        self._names: list[str] = []

    def create(self, **spec: Any) -> str:
        """An engine that is not waited for; its name. By default one of Python, of the user hadoop."""
        name = f"{self._prefix}-{uuid.uuid4().hex[:6]}"
        kind = {} if "plugin" in spec else {"engineType": "python"}
        body = {
            "apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConn", "metadata": {"name": name},
            "spec": {"user": "hadoop"} | kind | spec,
        }  # fmt: skip
        kubectl.must("create", "-n", self._namespace, "-f", "-", stdin=json.dumps(body))
        self._names.append(name)
        return name

    def ready(self, **spec: Any) -> tuple[str, str]:
        """An engine that is Idle: its name and ticket."""
        name = self.create(**spec)
        return name, str(until_state(name, "Idle", namespace=self._namespace)["ticketId"])

    def add(self, name: str) -> None:
        """Take away this one, too, which was made by another way."""
        self._names.append(name)

    def change(self, name: str, **spec: Any) -> None:
        """Give fields of an engine's spec other values."""
        body = json.dumps({"spec": spec})
        kubectl.must("patch", "ec", name, "-n", self._namespace, "--type=merge", "-p", body)

    def delete(self, *, wait: bool = False) -> None:
        """Take away all that were made; with `wait` they are gone after it, for a minute at most."""
        how = ("--timeout=60s",) if wait else ("--wait=false",)
        if self._names:
            kubectl.run("delete", "ec", *self._names, "-n", self._namespace, "--ignore-not-found", *how)
