"""The other machine of `tools.vm`: which modules its start needs, what it runs, and that it has no way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.vm import FIRST_MODULES, NODE_DIR, job, machine, needed

INDEX = """\
kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/netfs/netfs.ko
kernel/net/9p/9pnet.ko:
kernel/fs/netfs/netfs.ko: kernel/lib/deep.ko
kernel/lib/deep.ko:
kernel/fs/other/other.ko: kernel/lib/deep.ko
kernel/fs/overlayfs/overlay.ko.xz:
"""


def test_modules_come_with_all_that_they_need_and_nothing_else() -> None:
    assert needed(INDEX, ("9p", "overlay")) == {
        "kernel/fs/9p/9p.ko",
        "kernel/net/9p/9pnet.ko",
        "kernel/fs/netfs/netfs.ko",
        "kernel/lib/deep.ko",
        "kernel/fs/overlayfs/overlay.ko.xz",
    }


def test_a_module_that_is_built_into_the_kernel_is_not_missed() -> None:
    assert needed(INDEX, FIRST_MODULES) == needed(INDEX, ("9p", "overlay"))


def test_the_command_keeps_its_words_and_gets_a_node_folder_off_the_overlay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")
    script = job(["sh", "-c", "echo 'two words'; exit 3"])
    assert script.splitlines()[-1] == """exec sh -c 'echo '"'"'two words'"'"'; exit 3'"""
    assert f"export LINKIS_ECM_NODE_DIR={NODE_DIR}\n" in script
    assert "s3cret" not in script, "only what tells of tools goes along"


def test_the_machine_has_no_network_and_may_write_to_its_own_disk_alone() -> None:
    line = machine(Path("kernel"), Path("first"), Path("disk"), Path("modules/6.1"), memory=4, cores=2)
    assert line[line.index("-nic") + 1] == "none"
    shares = [line[at + 1] for at, word in enumerate(line) if word == "-virtfs"]
    assert len(shares) == 2
    assert all("readonly=on" in share for share in shares)
