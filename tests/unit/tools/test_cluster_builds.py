"""What the node is built of: binaries and images side by side, and CoreDNS with the plugins that its file names."""

from __future__ import annotations

import re
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from tools.cluster import binaries, layout, tools
from tools.cluster.paths import GO
from tools.cluster.progress import ClusterError

PATIENCE = 60.0


def test_coredns_has_the_plugins_that_its_file_names_and_no_other(tmp_path: Path) -> None:
    # Its directives, one at the begin of a line of a block; those of a plugin's own block are further in.
    named = set(re.findall(r"^    (\w+)", layout.corefile(layout.Layout(tmp_path)), re.MULTILINE))
    built = re.findall(r'_ "github.com/coredns/coredns/plugin/(\w+)"', (GO / "coredns/main.go").read_text())
    assert named == set(built)
    assert built == sorted(built)


def test_what_several_binaries_of_the_node_are_built_of_has_one_version() -> None:
    """Go compiles a package once for all of them then: a third of the time of those beside Kubernetes."""
    versions: dict[str, dict[str, set[str]]] = {}
    modules = {binaries.BINARIES[name].module for name in (*binaries.NODE, "helm")}
    assert len(modules) > 3
    for module in modules:
        text = (GO / module / "go.mod").read_text()
        for name, version in re.findall(r"^(?:require |\t)(\S+) (v\S+)(?: // indirect)?$", text, re.MULTILINE):
            versions.setdefault(name, {}).setdefault(version, set()).add(module)
    assert len(versions) > 200
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_images_and_binaries_are_built_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    installed: list[str] = []
    images, built = threading.Event(), threading.Event()

    def build_images() -> None:
        images.set()
        assert built.wait(PATIENCE)

    def build_binaries(names: list[str]) -> None:
        assert names == [*binaries.NODE, "helm"]
        # Neither would end if one waited for the other's end.
        assert images.wait(PATIENCE)
        built.set()

    monkeypatch.setattr(tools, "backend", lambda: "node")
    monkeypatch.setattr(tools, "node", SimpleNamespace(require_root=lambda: None))
    monkeypatch.setattr(tools.packages, "install", installed.extend)
    monkeypatch.setattr(tools.product, "build", build_images)
    monkeypatch.setattr(tools.binaries, "build_all", build_binaries)
    monkeypatch.setattr(tools.shutil, "which", lambda name: None)
    tools.prepare()
    assert {"runc", "buildah"} <= set(installed)


def test_images_that_fail_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ClusterError("no base image", remedy="look")

    monkeypatch.setattr(tools, "backend", lambda: "node")
    monkeypatch.setattr(tools, "node", SimpleNamespace(require_root=lambda: None))
    monkeypatch.setattr(tools.packages, "install", lambda names: None)
    monkeypatch.setattr(tools.product, "build", fail)
    monkeypatch.setattr(tools.binaries, "build_all", lambda names: {})
    with pytest.raises(ClusterError, match="no base image"):
        tools.prepare()


def test_modules_of_the_next_binaries_are_fetched_while_one_is_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fetched: list[str] = []
    second = threading.Event()

    def build(name: str) -> Path:
        # Of the first nothing is fetched: its build does that itself.
        assert name == "kube" or second.wait(PATIENCE)
        return tmp_path / name

    def go(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[:2] == ["go", "list"]
        fetched.append(command[-1])
        second.set()
        return subprocess.CompletedProcess(command, 1)  # a failure is the build's to tell

    (tmp_path / "etcd").touch()
    monkeypatch.setattr(binaries, "build", build)
    monkeypatch.setattr(binaries, "cached", lambda name: tmp_path / name)
    monkeypatch.setattr(binaries, "go", lambda: "go")
    monkeypatch.setattr(subprocess, "run", go)
    names = ("kube", "etcd", "ctr")
    assert binaries.build_all(names) == {name: tmp_path / name for name in names}
    assert fetched == [binaries.BINARIES["ctr"].package]
