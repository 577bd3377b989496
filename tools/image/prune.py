"""Takes out of a Debian root folder what an image that ships does not need: `python3 prune.py ROOT`.

Kept are the packages named here and what they depend on; all others go, file by file, without their scripts. Package
managers, Perl and whatever could raise rights go with them. It runs in the image's build, so it imports the standard
library alone.
Must not be run on a machine's own root folder: it refuses a ROOT that is `/` outside of a build (see `main`).
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# What stays, with what it depends on. A shell and the usual commands stay: users of engines type `!ls`. The last two
# lines: what a Python links to that is no Debian package.
ROOTS = _words("""
    base-files base-passwd bash ca-certificates coreutils dash diffutils findutils grep gzip hostname libc-bin
    libstdc++6 mawk media-types ncurses-base netbase sed tar tzdata python3 python3-distutils
    libbz2-1.0 libcrypt1 libdb5.3 libexpat1 libffi8 libgdbm6 liblzma5 libncursesw6 libnsl2 libreadline8 libsqlite3-0
    libssl3 libtirpc3 libuuid1 zlib1g
""")
# Never followed as a dependency: needed by scripts that run at a package's installation alone.
CUT = frozenset(
    _words("""
    adduser apt debconf debconf-2.0 dpkg init-system-helpers install-info login openssl passwd perl perl-base
    sysvinit-utils usrmerge util-linux
""")
)
# Files of package managers, of removed packages' scripts, and of services that a container does not start.
LEFTOVERS = _words("""
    etc/apt etc/cron.daily etc/dpkg etc/init.d etc/logrotate.d etc/pam.d etc/perl etc/rc0.d etc/rc1.d etc/rc2.d
    etc/rc3.d etc/rc4.d etc/rc5.d etc/rc6.d etc/rcS.d etc/security etc/systemd usr/lib/apt usr/share/info
    usr/share/lintian usr/share/man usr/share/perl usr/share/perl5 usr/share/python-wheels var/cache/apt
    var/cache/debconf var/lib/apt var/lib/dpkg/status-old var/lib/pam var/lib/systemd var/log/alternatives.log
    var/log/apt var/log/bootstrap.log var/log/dpkg.log
""")
# Installers of Python packages that belong to no Debian package, and commands without their modules.
INSTALLERS = re.compile(
    r"(ensurepip|pip|setuptools|wheel|pkg_resources|_distutils_hack)(-.*)?|distutils-precedence\.pth"
)
COMMANDS = re.compile(r"(pip|wheel|idle|2to3)-?[0-9.]*|python[0-9.]*-config")

# Where OpenSSL looks for certificates. The links are the package openssl's, which is cut for its program; without them
# Python trusts nobody.
CERTIFICATES = {"certs": "etc/ssl/certs", "cert.pem": "etc/ssl/certs/ca-certificates.crt"}

Stanza = dict[str, str]


def stanzas(text: str) -> dict[str, Stanza]:
    """The installed packages of a dpkg status file by name; a field's continued lines keep their line ends."""
    found: dict[str, Stanza] = {}
    for block in text.split("\n\n"):
        fields: Stanza = {}
        name = ""
        for line in block.splitlines():
            if line[:1].isspace():
                fields[name] += "\n" + line
            elif ":" in line:
                name, value = line.split(":", 1)
                fields[name] = value.strip()
        if fields.get("Status", "").endswith(" installed"):
            found[fields["Package"]] = fields
    return found


def _names(field: str) -> Iterator[list[str]]:
    """The alternatives of each dependency, without versions and architectures."""
    for dependency in field.split(","):
        names = [re.split(r"[\s(:\[]", one.strip(), maxsplit=1)[0] for one in dependency.split("|")]
        if any(names):
            yield names


def closure(packages: Mapping[str, Stanza], roots: Iterable[str], cut: frozenset[str] = CUT) -> set[str]:
    """Installed packages that the roots need, directly or not; what is cut is never followed."""
    provided: dict[str, str] = {}
    for name, fields in packages.items():
        for names in _names(fields.get("Provides", "")):
            provided.setdefault(names[0], name)
    kept: set[str] = set()
    waiting = [name for name in roots if name in packages]
    while waiting:
        name = waiting.pop()
        if name in kept:
            continue
        kept.add(name)
        fields = packages[name]
        for alternatives in _names(f"{fields.get('Pre-Depends', '')},{fields.get('Depends', '')}"):
            real = [one if one in packages else provided.get(one, "") for one in alternatives if one not in cut]
            waiting += [one for one in real if one and one not in cut][:1]
    return kept


def _files(root: Path, fields: Stanza) -> Iterator[Path]:
    """A package's files, by the real folder they are in: /bin and /usr/bin are one."""
    info = root / "var/lib/dpkg/info"
    for listed in (info / f"{fields['Package']}.list", info / f"{fields['Package']}:{fields['Architecture']}.list"):
        if listed.exists():
            for line in listed.read_text().splitlines():
                path = root / line.lstrip("/")
                yield Path(os.path.realpath(path.parent)) / path.name


def remove_packages(root: Path, packages: Mapping[str, Stanza], kept: set[str]) -> None:
    """Removes the files of all other packages, and their entries; the status file then lists what is there."""
    stay = {path for name in kept for path in _files(root, packages[name])}
    folders: list[Path] = []
    for name in packages.keys() - kept:
        for path in set(_files(root, packages[name])) - stay:
            if path.is_dir() and not path.is_symlink():
                folders.append(path)
            # What is linked at the top of the root folder (bin, lib) is usrmerge's, and everything's.
            elif path.parent != root:
                path.unlink(missing_ok=True)
    for path in (root / "var/lib/dpkg/info").iterdir():
        if path.stem.split(":")[0] not in kept or path.suffix not in (".list", ".md5sums"):
            path.unlink()
    for path in sorted(folders, key=lambda one: -len(one.parts)):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    blocks = ["".join(f"{field}: {value}\n" for field, value in packages[name].items()) for name in sorted(kept)]
    (root / "var/lib/dpkg/status").write_text("\n".join(blocks))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_rest(root: Path) -> None:
    """Removes installers of no package, what is left of package managers, commands that link to nothing, and bits that
    raise rights."""
    for name in LEFTOVERS:
        _remove(root / name)
    for path in [*root.glob("usr/**/lib/python3.*/*"), *root.glob("usr/local/lib/python3.*/site-packages/*")]:
        if INSTALLERS.fullmatch(path.name):
            _remove(path)
    for folder in ("usr/bin", "usr/sbin", "usr/local/bin"):
        for path in (root / folder).iterdir():
            target = os.readlink(path) if path.is_symlink() else ""
            there = root / target.lstrip("/") if target.startswith("/") else path.parent / target
            if COMMANDS.fullmatch(path.name) or not os.path.lexists(there):
                path.unlink()
    for parent, _, names in os.walk(root / "usr"):
        for path in (Path(parent) / name for name in names):
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
                path.chmod(stat.S_IMODE(mode) & ~(stat.S_ISUID | stat.S_ISGID))


def link_certificates(root: Path) -> None:
    """Gives OpenSSL its links to the certificates that are there."""
    for name, target in CERTIFICATES.items():
        path = root / "usr/lib/ssl" / name
        if (root / target).exists() and not os.path.lexists(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(f"/{target}")


def main(root: Path) -> None:
    """Prunes the folder. `/` is taken only where PRUNE_ROOT=yes says that it is an image's."""
    if root.resolve() == Path("/") and os.environ.get("PRUNE_ROOT") != "yes":
        raise SystemExit("prune.py: ROOT is this machine's own root folder")
    packages = stanzas((root / "var/lib/dpkg/status").read_text())
    kept = closure(packages, ROOTS)
    remove_packages(root, packages, kept)
    remove_rest(root)
    link_certificates(root)
    print(f"kept {len(kept)} of {len(packages)} packages")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
