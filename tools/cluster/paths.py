"""Where the cluster tool keeps things. Must not create anything on import: asking for a path changes nothing."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
GO = Path(__file__).parent / "go"


def cache() -> Path:
    """What takes long to make and depends on pins alone: binaries, base images. Outlives the checkout."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "linkis-ecm"


def run_folder() -> Path:
    """What belongs to the running node: its state, sockets, logs, certificates. `down` removes it."""
    return Path(os.environ.get("LINKIS_ECM_NODE_DIR") or "/var/lib/linkis-ecm-node")


def namespace() -> str:
    """The network namespace of the node."""
    return os.environ.get("LINKIS_ECM_NODE_NETNS") or "ecmnode"
