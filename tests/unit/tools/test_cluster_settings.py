"""A node that runs is not harmed by a second `up`: kube-proxy ends when its settings are written."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from tools.cluster import layout

BINARIES = defaultdict[str, Path](lambda: Path("/bin/true"))
MACHINE = layout.Machine(cgroup_v2=False, may_lower_oom_score=False)


def versions(folder: Path) -> dict[str, int]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in files}


def test_settings_that_are_the_same_are_not_written_again(tmp_path: Path) -> None:
    node = layout.Layout(tmp_path)
    layout.write_settings(node, MACHINE, BINARIES)
    before = versions(node.settings)
    assert {"kube-proxy.yaml", "kubelet.yaml", "containerd.toml", "Corefile", "cni/10-ecm.conflist"} <= before.keys()
    layout.write_settings(node, MACHINE, BINARIES)
    assert versions(node.settings) == before


def test_settings_that_would_be_others_are_written(tmp_path: Path) -> None:
    node = layout.Layout(tmp_path)
    layout.write_settings(node, MACHINE, BINARIES)
    right = (node.settings / "Corefile").read_text()
    before = versions(node.settings)
    (node.settings / "Corefile").write_text("edited by hand")
    layout.write_settings(node, MACHINE, BINARIES)
    assert (node.settings / "Corefile").read_text() == right
    assert {name for name, at in versions(node.settings).items() if at != before[name]} == {"Corefile"}
