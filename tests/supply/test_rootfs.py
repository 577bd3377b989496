"""The files of an image, read from its archive, and which of them must not ship."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.supply import rootfs
from tools.supply.rootfs import Entry

Layer = list[tarfile.TarInfo]


def member(
    path: str, mode: int = 0o644, kind: bytes = tarfile.REGTYPE, size: int = 0, **more: object
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.mode, info.type, info.size = mode, kind, size
    for name, value in more.items():
        setattr(info, name, value)
    return info


def layer(members: Layer, *, packed: bool = True) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for one in members:
            archive.addfile(one, io.BytesIO(b"x" * one.size))
    return gzip.compress(out.getvalue()) if packed else out.getvalue()


Make = Callable[..., Path]


@pytest.fixture
def image(tmp_path: Path) -> Make:
    """Makes an OCI archive of layers."""

    def make(*layers: Layer, packed: bool = True, images: int = 1) -> Path:
        path = tmp_path / "image.oci.tar"
        with tarfile.open(path, "w") as archive:

            def add(name: str, data: bytes) -> None:
                archive.addfile(member(name, size=len(data)), io.BytesIO(data))

            def blob(data: bytes) -> str:
                digest = hashlib.sha256(data).hexdigest()
                add(f"blobs/sha256/{digest}", data)
                return f"sha256:{digest}"

            described = [{"digest": blob(layer(one, packed=packed))} for one in layers]
            digest = blob(json.dumps({"layers": described}).encode())
            add("index.json", json.dumps({"manifests": [{"digest": digest}] * images}).encode())
        return path

    return make


@pytest.mark.parametrize("packed", [True, False])
def test_later_layers_lie_on_earlier_ones(image: Make, packed: bool) -> None:
    path = image(
        [member("./a", size=1), member("dir/old"), member("dir/gone"), member("whole/one")],
        [member("a", 0o755, size=2), member("dir/.wh.gone"), member("whole/.wh..wh..opq"), member("whole/two")],
        packed=packed,
    )
    found = rootfs.entries(path)
    assert set(found) == {"a", "dir/old", "whole/two"}
    assert found["a"] == Entry("a", 0o755, "file", 2)


def test_content_is_the_topmost(image: Make) -> None:
    path = image([member("etc/a", size=3), member("etc/b", size=1)], [member("etc/a", size=5), member("etc/.wh.b")])
    assert rootfs.read(path, re.compile("etc/.")) == {"etc/a": b"xxxxx"}
    with pytest.raises(ValueError, match="more than 4"):
        rootfs.read(path, re.compile("etc/."), most=4)


def test_two_images_in_one_archive_are_refused(image: Make) -> None:
    with pytest.raises(ValueError, match="2 images"):
        rootfs.entries(image([], images=2))


FINE = [
    member("bin", 0o777, tarfile.SYMTYPE, linkname="usr/bin"),
    member("tmp", 0o1777, tarfile.DIRTYPE),
    member("usr/bin/bash", 0o755),
    member("usr/bin/ld.so", 0o777, tarfile.SYMTYPE, linkname="/lib64/ld-linux-x86-64.so.2"),
    member("opt/venv/bin/python3.11", 0o755),
    member("opt/venv/lib/python3.11/site-packages/pipeline/x.py"),
    member("usr/share/doc/perl", 0o755, tarfile.DIRTYPE),
    member("etc/pip.conf"),
    member("dev/null", 0o666, tarfile.CHRTYPE),
    member("var/mail", 0o2775, tarfile.DIRTYPE),
]


def test_nothing_is_said_about_what_may_ship(image: Make) -> None:
    assert rootfs.faults(rootfs.entries(image(FINE))) == []


BAD = [
    (member("usr/bin/x", 0o4755), "/usr/bin/x: its mode 4755 raises the rights of whoever runs it"),
    (member("home/x", 0o2755), "/home/x: its mode 2755 raises the rights of whoever runs it"),
    (member("usr/bin/ping", 0o755, pax_headers={"SCHILY.xattr.security.capability": "x"}), "it has file capabilities"),
    (member("usr/bin/apt-get", 0o755), "it is a package manager"),
    (member("usr/bin/dpkg", 0o755), "it is a package manager"),
    (member("opt/venv/bin/pip3.11", 0o755), "it is a package manager"),
    (member("usr/bin/x86_64-linux-gnu-gcc", 0o755), "it is a compiler"),
    (member("usr/bin/gcc-12", 0o777, tarfile.SYMTYPE, linkname="x"), "it is a compiler"),
    (member("usr/bin/perl5.36.0", 0o755), "it is Perl"),
    (member("bin/su", 0o755), "it is a way to other rights"),
    (member("usr/local/bin/curl", 0o755), "it is a downloader"),
    (member("opt/venv/lib/python3.11/site-packages/pip/__init__.py"), "it installs packages"),
    (member("opt/venv/lib/python3.11/site-packages/setuptools-65.dist-info/METADATA"), "it installs packages"),
    (member("usr/lib/python3.11/ensurepip/_bundled/pip-24.whl"), "it installs packages"),
    (member("opt/venv/x", 0o666), "everybody may write it (mode 666)"),
    (member("srv", 0o777, tarfile.DIRTYPE), "everybody may write it (mode 777)"),
    (member("opt/venv/x", 0o644, uid=10001), "it belongs to user 10001, not to root"),
    (member("etc/pip.conf", size=9), "it holds settings of the machine that built the image"),
]


@pytest.mark.parametrize(("one", "fault"), BAD)
def test_what_must_not_ship_is_named(image: Make, one: tarfile.TarInfo, fault: str) -> None:
    found = rootfs.faults(rootfs.entries(image(FINE, [one])))
    assert len(found) == 1
    assert found[0].startswith(f"/{one.name}: ")
    assert found[0].endswith(fault)


def test_where_users_install_packages_pips_modules_may_be_and_its_command_not(image: Make) -> None:
    site = "opt/venv/lib/python3.11/site-packages"
    users = [member(f"{site}/pip/__init__.py"), member(f"{site}/setuptools-84.2.1.dist-info/METADATA")]
    others = [
        member("opt/venv/bin/pip3", 0o755), member(f"{site}/wheel/__init__.py"), member("usr/site-packages/pip/x.py"),
    ]  # fmt: skip
    files = rootfs.entries(image(FINE, [*users, *others]))
    assert [one.split(":")[0] for one in rootfs.faults(files, installs=True)] == [f"/{one.name}" for one in others]
    assert len(rootfs.faults(files)) == 5


def test_the_other_name_of_a_setuid_file_is_named_too(image: Make) -> None:
    found = rootfs.faults(
        rootfs.entries(
            image(
                [
                    member("usr/bin/a", 0o4755, size=7),
                    member("usr/bin/b", 0o4755, tarfile.LNKTYPE, linkname="usr/bin/a"),
                ]
            )
        )
    )
    assert [one.split(":")[0] for one in found] == ["/usr/bin/a", "/usr/bin/b"]
