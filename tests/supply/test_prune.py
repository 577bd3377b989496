"""What the images' build takes out of the base: packages nobody needs, installers, bits that raise rights."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tools.image import prune


def stanza(name: str, depends: str = "", more: str = "") -> str:
    return f"Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nDepends: {depends}\n{more}"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small root folder: bash and what it needs, apt and perl that nothing needs."""
    info = tmp_path / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/sbin").mkdir()
    (tmp_path / "usr/local/bin").mkdir(parents=True)
    (tmp_path / "bin").symlink_to("usr/bin")
    packages = {
        "bash": ("libtinfo6 (>= 6), debconf (>= 1) | debconf-2.0", ["/bin/bash", "/usr/share/doc/shared"]),
        "libtinfo6": ("", ["/usr/lib/libtinfo.so.6"]),
        "debconf": ("perl-base", ["/usr/bin/debconf"]),
        "perl-base": ("", ["/usr/bin/perl", "/usr/lib/perl", "/usr/lib/perl/only.pm"]),
        "apt": ("libtinfo6", ["/usr/bin/apt", "/usr/share/doc/shared", "/etc/apt/sources.list"]),
    }
    status = [stanza(name, depends, "Description: one\n line two\n") for name, (depends, _) in packages.items()]
    (tmp_path / "var/lib/dpkg/status").write_text("\n".join(status))
    for name, (_, files) in packages.items():
        listed = "libtinfo6:amd64" if name == "libtinfo6" else name
        (info / f"{listed}.list").write_text("/.\n/usr\n/usr/bin\n" + "\n".join(files) + "\n")
        (info / f"{listed}.postinst").write_text("#!/usr/bin/perl\n")
        for path in files:
            file = tmp_path / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            if path != "/usr/lib/perl":
                file.write_text("x")
    return tmp_path


def names(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_what_is_named_and_what_it_needs_stays(root: Path) -> None:
    prune.main(root)
    assert names(root) == {
        "usr/bin/bash",
        "usr/lib/libtinfo.so.6",
        "usr/share/doc/shared",
        "var/lib/dpkg/status",
        "var/lib/dpkg/info/bash.list",
        "var/lib/dpkg/info/libtinfo6:amd64.list",
    }
    assert not (root / "usr/lib/perl").exists()
    assert (root / "bin").is_symlink()


def test_the_zone_database_stays() -> None:
    """Warm pools' schedules need it in the operator, and users' code in an engine."""
    assert "tzdata" in prune.ROOTS


def test_the_status_file_lists_what_is_there(root: Path) -> None:
    prune.main(root)
    left = prune.stanzas((root / "var/lib/dpkg/status").read_text())
    assert set(left) == {"bash", "libtinfo6"}
    assert left["bash"]["Description"] == "one\n line two"


def test_bits_that_raise_rights_go(root: Path) -> None:
    for name, mode in {"su": 0o4755, "wall": 0o2755, "plain": 0o755}.items():
        (root / "usr/bin" / name).write_text("x")
        (root / "usr/bin" / name).chmod(mode)
    prune.main(root)
    assert {name: (root / "usr/bin" / name).stat().st_mode & 0o7777 for name in ("su", "wall", "plain")} == {
        "su": 0o755,
        "wall": 0o755,
        "plain": 0o755,
    }


def test_installers_of_a_python_that_is_no_package_go(root: Path) -> None:
    packages = root / "usr/local/lib/python3.11/site-packages"
    for folder in ("pip", "pip-24.0.dist-info", "setuptools", "wheel-0.4.dist-info", "pipeline", "numpy"):
        (packages / folder).mkdir(parents=True)
    (root / "usr/local/lib/python3.11/ensurepip").mkdir()
    for name in ("pip", "pip3.11", "python3.11", "python3.11-config"):
        (root / "usr/local/bin" / name).write_text("x")
    prune.main(root)
    assert {path.name for path in packages.iterdir()} == {"pipeline", "numpy"}
    assert not (root / "usr/local/lib/python3.11/ensurepip").exists()
    assert {path.name for path in (root / "usr/local/bin").iterdir()} == {"python3.11"}


def test_commands_that_link_to_nothing_go(root: Path) -> None:
    (root / "usr/bin/awk").symlink_to("/etc/alternatives/awk")
    (root / "usr/bin/sh").symlink_to("bash")
    prune.main(root)
    assert {path.name for path in (root / "usr/bin").iterdir()} == {"bash", "sh"}


def test_a_cut_dependency_is_not_followed_but_a_root_may_be_one() -> None:
    packages = prune.stanzas(
        stanza("a", "b | c, d") + "\n" + stanza("b") + "\n" + stanza("d", "e") + "\n" + stanza("e")
    )
    assert prune.closure(packages, ["a"], frozenset({"d"})) == {"a", "b"}
    assert prune.closure(packages, ["a", "d"], frozenset({"d"})) == {"a", "b", "d", "e"}


def test_an_installed_alternative_or_a_provider_is_taken() -> None:
    packages = prune.stanzas(
        stanza("a", "x | mta") + "\n" + stanza("exim", more="Provides: mta (= 1), other\n") + "\n" + stanza("y")
    )
    assert prune.closure(packages, ["a"], frozenset()) == {"a", "exim"}


def test_this_machines_own_root_is_refused() -> None:
    assert "PRUNE_ROOT" not in os.environ
    with pytest.raises(SystemExit, match="own root folder"):
        prune.main(Path("/"))


def test_openssl_finds_the_certificates_though_its_package_is_cut(root: Path) -> None:
    prune.main(root)
    assert not (root / "usr/lib/ssl").exists()
    (root / "etc/ssl/certs").mkdir(parents=True)
    (root / "etc/ssl/certs/ca-certificates.crt").write_text("x")
    for _ in range(2):
        prune.link_certificates(root)
    assert os.readlink(root / "usr/lib/ssl/certs") == "/etc/ssl/certs"
    assert os.readlink(root / "usr/lib/ssl/cert.pem") == "/etc/ssl/certs/ca-certificates.crt"
