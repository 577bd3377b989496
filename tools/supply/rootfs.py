"""What is in an image: the files of an OCI archive's layers, and which of them must not ship.

Reads the archive alone; nothing is unpacked and nothing of it runs. Must not know how images are built.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
import stat
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any

# A manifest has some kilobytes; what is larger is no manifest.
MANIFEST_MAX_BYTES = 4 << 20

_BIN = re.compile(r"(usr/)?(local/)?s?bin|opt/venv/bin|usr/lib|usr/libexec(/.*)?")
# Patterns of names, as in a shell.
_COMMANDS = {
    "a package manager": "apt apt-* aptitude dpkg dpkg-* rpm yum dnf apk pip pip[0-9]* pipx uv easy_install* conda npm",
    "a compiler": "*-linux-gnu-* cc c++* g++* gcc* cpp cpp-* clang* tcc as ld ld.[bgl]* make go rustc javac",
    "Perl": "perl*",
    "a way to other rights": "su sudo* doas pkexec mount umount newgrp chsh chfn passwd nsenter unshare setpriv",
    "a downloader": "curl wget nc ncat socat ssh scp ftp telnet",
}
_MODULES = re.compile(
    r"(site|dist)-packages/(pip|setuptools|pkg_resources|wheel)(-[^/]*\.dist-info)?/|/ensurepip/.*\.whl$"
)

# Of an image whose users may install packages.
_SESSION_MODULES = re.compile(r"opt/venv/lib/python3\.\d+/site-packages/(pip|setuptools)(-[^/]*\.dist-info)?/")


@dataclass(frozen=True)
class Entry:
    """A file, folder or link of an image. `mode` has permissions and the bits above them, not the kind."""

    path: str
    mode: int
    kind: str  # file, folder, link, other
    size: int = 0
    uid: int = 0
    capabilities: bool = False


def _blob(archive: tarfile.TarFile, digest: str) -> IO[bytes]:
    found = archive.extractfile("blobs/" + digest.replace(":", "/"))
    if found is None:
        raise ValueError(f"{digest} is no file of the archive")
    return found


def _json(stream: IO[bytes]) -> Any:
    data = stream.read(MANIFEST_MAX_BYTES + 1)
    if len(data) > MANIFEST_MAX_BYTES:
        raise ValueError(f"a manifest of more than {MANIFEST_MAX_BYTES} bytes")
    return json.loads(data)


def manifest(path: Path) -> tuple[str, dict[str, Any]]:
    """Digest and manifest of the archive's one image; the digest is the one that a registry shows."""
    with tarfile.open(path) as archive:
        index = archive.extractfile("index.json")
        if index is None:
            raise ValueError("index.json is no file")
        images = _json(index)["manifests"]
        if len(images) != 1:
            raise ValueError(f"the archive has {len(images)} images, not one")
        digest: str = images[0]["digest"]
        return digest, _json(_blob(archive, digest))


def broken_blobs(path: Path) -> list[str]:
    """Digests of the image's parts that do not have this digest."""
    digest, described = manifest(path)
    broken: list[str] = []
    with tarfile.open(path) as archive:
        for one in (digest, *(part["digest"] for part in [described["config"], *described["layers"]])):
            algorithm, _, value = one.partition(":")
            if hashlib.file_digest(_blob(archive, one), algorithm).hexdigest() != value:  # type: ignore[arg-type]
                broken.append(one)
    return broken


def _kind(member: tarfile.TarInfo) -> str:
    if member.isdir():
        return "folder"
    if member.issym():
        return "link"
    return "file" if member.isfile() or member.islnk() else "other"


def _layers(path: Path) -> Iterator[tarfile.TarFile]:
    layers = manifest(path)[1]["layers"]
    with tarfile.open(path) as archive:
        for layer in layers:
            # A layer is packed by gzip or not at all; tarfile finds out.
            with tarfile.open(fileobj=_blob(archive, layer["digest"]), mode="r:*") as files:
                yield files


def entries(path: Path) -> dict[str, Entry]:
    """What the image's root folder holds once its layers lie on each other, by path without a leading slash."""
    found: dict[str, Entry] = {}
    for layer in _layers(path):
        own: dict[str, Entry] = {}
        for member in layer:
            name = posixpath.normpath(member.name).lstrip("/")
            folder, base = posixpath.split(name)
            if base == ".wh..wh..opq":
                _forget(found, folder, itself=False)
            elif base.startswith(".wh."):
                _forget(found, posixpath.join(folder, base[4:]), itself=True)
            else:
                # A hard link has the mode of what it links to, in the same layer and before it.
                size = own[_target(member)].size if member.islnk() and _target(member) in own else member.size
                capable = "SCHILY.xattr.security.capability" in member.pax_headers
                own[name] = Entry(name, stat.S_IMODE(member.mode), _kind(member), size, member.uid, capable)
        found |= own
    return found


def _target(member: tarfile.TarInfo) -> str:
    return posixpath.normpath(member.linkname).lstrip("/")


def _forget(found: dict[str, Entry], path: str, *, itself: bool) -> None:
    prefix = f"{path}/" if path else ""
    for name in [one for one in found if one.startswith(prefix) or (itself and one == path)]:
        del found[name]


def read(path: Path, wanted: re.Pattern[str], most: int = 16 << 20) -> dict[str, bytes]:
    """The content of files whose whole path matches, as the topmost layer has them; none above `most` bytes."""
    there, found = entries(path), dict[str, bytes]()
    for layer in _layers(path):
        for member in layer:
            name = posixpath.normpath(member.name).lstrip("/")
            if name in there and member.isfile() and wanted.fullmatch(name):
                stream = layer.extractfile(member)
                if member.size > most or stream is None:
                    raise ValueError(f"{name} has {member.size} bytes, more than {most}")
                found[name] = stream.read()
    return found


def faults(files: Mapping[str, Entry], *, installs: bool = False) -> list[str]:
    """One sentence for each file that must not ship. `installs`: the modules of pip and setuptools may, for what users
    install into a session; their commands may not."""
    return [f"/{path}: {fault}" for path, entry in sorted(files.items()) for fault in _faults(entry, installs)]


def _faults(entry: Entry, installs: bool) -> Iterator[str]:
    if entry.kind == "file" and entry.mode & (stat.S_ISUID | stat.S_ISGID):
        yield f"its mode {entry.mode:o} raises the rights of whoever runs it"
    if entry.capabilities:
        yield "it has file capabilities"
    if entry.mode & stat.S_IWOTH and entry.kind in ("file", "folder") and not entry.mode & stat.S_ISVTX:
        yield f"everybody may write it (mode {entry.mode:o})"
    if entry.kind == "file" and entry.uid != 0 and not entry.path.startswith(("tmp/", "var/")):
        yield f"it belongs to user {entry.uid}, not to root"
    folder, name = posixpath.split(entry.path)
    if entry.kind in ("file", "link") and _BIN.fullmatch(folder):
        yield from (
            f"it is {what}" for what, names in _COMMANDS.items() if any(fnmatchcase(name, one) for one in names.split())
        )
    if _MODULES.search(entry.path) and not (installs and _SESSION_MODULES.match(entry.path)):
        yield "it installs packages"
    # The build mounts the machine's settings over an empty file.
    if entry.path in ("etc/pip.conf", "root/.pip/pip.conf", "root/.netrc") and entry.size:
        yield "it holds settings of the machine that built the image"
