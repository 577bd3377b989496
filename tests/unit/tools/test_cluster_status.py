"""The node's status: a part that has ended is no cluster that is up, though kubelet and the node's condition say so."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from tools.cluster import node
from tools.cluster.processes import Note, snapshot

PARTS = ("forwarder", "etcd", "containerd", "kube-apiserver", "netpol", *node.NODE_PARTS)


@pytest.mark.parametrize("ended", [None, "kube-proxy", "coredns", "netpol"])
def test_each_part_must_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ended: str | None) -> None:
    def find(name: str) -> Note | None:
        return snapshot(os.getpid(), name) if name in PARTS and name != ended else None

    monkeypatch.setattr(node, "ledger", lambda: SimpleNamespace(find=find))
    monkeypatch.setattr(node, "layout", lambda: SimpleNamespace(kubeconfig=tmp_path))
    monkeypatch.setattr(node, "_node_ready", lambda _: True)
    assert node.not_running() == ([] if ended is None else [ended])
    assert node.is_up() is (ended is None)
