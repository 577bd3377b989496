"""Parts of the test node's cluster and their death. Only on the node built from source: elsewhere none is seen."""

from __future__ import annotations

import os
import signal

from tools.cluster import node
from tools.testkit.cluster.waiting import until


def kill_component(name: str) -> None:
    """kill -9 of a part of the cluster, by the note that the cluster tool made of it; returns when it is dead."""
    note = node.ledger().find(name)
    assert note is not None
    os.kill(note.pid, signal.SIGKILL)
    until(f"{name} is dead", lambda: not note.alive(), 30)
