"""Where `pip install` of a session puts packages: a virtual environment in the home, on top of the image's.

The image's packages are read-only. The kernel has loaded those that it needs when it enters the environment, so nothing
that a session installs keeps a kernel from starting. Runs in the kernel; must not import what the user's code may want
first, and must not fail or wait: what cannot be used there is left out, and a line in stderr names it.
"""

from __future__ import annotations

import importlib
import os
import shlex
import shutil
import signal
import site
import stat
import sys
import time
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from linkis_ecm.agent.kernel.children import run_in_terminal

# Below the home. It stays when the kernel is restarted, and longer where the home is a claim.
FOLDER = ".linkis/venv"
# In the image: what matplotlib would spend a second on at its first import (tools/image/fonts.py makes it).
FONT_LIST = "share/linkis-ecm/matplotlib"
# pip's own variables, where neither image, plugin nor engine says otherwise. No cache: it would be on the same volume
# and end with it. Two tries instead of six: an index outside of the engines' egress is told within a minute.
PIP = {
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_CACHE_DIR": "1",
    "PIP_NO_INPUT": "1",
    "PIP_RETRIES": "1",
}
# A .pth file has a few lines, and a line of code in it takes milliseconds. Seconds for one, and for all of them: the
# shortest startTimeout that anyone sets is longer.
PTH_BYTES = 1 << 20
PTH_SECONDS, ALL_PTH_SECONDS = 5.0, 15.0
_PYTHON = "python{}.{}".format(*sys.version_info)
# The hint names no address: one may hold a password.
_COMMAND = """\
#!/bin/sh
{python} -m pip "$@"
code=$?
case "$code $* " in
  0\\ *|*\\ --no-index*) ;;
  *\\ install\\ *|*\\ download\\ *) cat >&2 <<END
pip ended with exit code $code. If this engine cannot reach pip's index: set PIP_INDEX_URL or PIP_PROXY in the engine's
env, or ask the platform for a mirror (engines.python.pip of the chart) and for egress to it.
END
  ;;
esac
exit $code
"""


class _OverTimeError(BaseException):
    """Code of a .pth file goes on for too long. No Exception: `site` prints those and says nothing of the remedy."""


class PipError(Exception):
    """pip ended with an error, which it has printed itself."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of frames that say nothing."""
        return [f"PipError: {self}"]


class Prepared(NamedTuple):
    """An environment that was made before it is known whether it is the one to enter."""

    folder: str
    # What of sys.path is its.
    paths: list[str]
    changed: int  # its packages' folder, in ns


def prepare(environment: Mapping[str, str]) -> Prepared | None:
    """Make the environment in HOME and let imports find what is there, so that `enter` has little to do; None where
    there is none."""
    folder = _folder_in(environment)
    if not folder:
        return None
    before = list(sys.path)
    with _left_out(folder):
        packages, image = _packages_in(folder), _of_image()
        _make(folder, packages, image)
        _put_before(packages, image)
        return Prepared(folder, [path for path in sys.path if path not in before], os.stat(packages).st_mtime_ns)
    return None


def enter(environment: MutableMapping[str, str], prepared: Prepared | None = None) -> None:
    """Make the environment in HOME and go into it: what is imported from now on may come from there. `prepared` is what
    was made before, maybe in another home."""
    for name, value in PIP.items():
        environment.setdefault(name, value)
    folder = _folder_in(environment)
    if prepared is not None and not _is_as_prepared(folder, prepared):
        sys.path[:] = [path for path in sys.path if path not in prepared.paths]
        prepared = None
    if not folder:
        return
    with _left_out(folder):
        if prepared is None:
            packages, image = _packages_in(folder), _of_image()
            _make(folder, packages, image)
            _put_before(packages, image)
        sys.prefix = sys.exec_prefix = environment["VIRTUAL_ENV"] = folder
        sys.executable = f"{folder}/bin/python"
        # --user means the same folder: elsewhere, pip in a virtual environment installs and does not uninstall.
        environment.setdefault("PYTHONUSERBASE", folder)
        environment["PATH"] = f"{folder}/bin:{environment.get('PATH') or os.defpath}"


def _folder_in(environment: Mapping[str, str]) -> str:
    """The environment's folder; "" where there is no home."""
    home = environment.get("HOME", "")
    return f"{home}/{FOLDER}" if home.startswith("/") else ""


def _is_as_prepared(folder: str, prepared: Prepared) -> bool:
    with suppress(OSError):
        return folder == prepared.folder and os.stat(_packages_in(folder)).st_mtime_ns == prepared.changed
    return False


def _packages_in(folder: str) -> str:
    return f"{folder}/lib/{_PYTHON}/site-packages"


def _of_image() -> list[str]:
    """The folders of the image's packages."""
    return [path for path in sys.path if path.startswith(f"{sys.prefix}/") and path.endswith("-packages")]


def see_working_directory(environment: Mapping[str, str]) -> None:
    """Let the code import what it has written beside itself: after Python's own modules, as IPython does.

    IPython leaves it out here, because the kernel was started with -P.
    """
    if "" in sys.path or environment.get("PYTHONSAFEPATH"):
        return
    places = (at for at, path in enumerate(sys.path) if path.endswith("-packages"))
    sys.path.insert(next(places, 0), "")


def give_font_list(environment: Mapping[str, str], prefix: str) -> None:
    """Put the image's list of fonts where matplotlib looks for its own; what is there stays."""
    source = f"{prefix}/{FONT_LIST}"
    cache = environment.get("XDG_CACHE_HOME") or f"{environment.get('HOME', '')}/.cache"
    target = environment.get("MPLCONFIGDIR") or f"{cache}/matplotlib"
    # RecursionError: a path of very many levels.
    with suppress(OSError, RecursionError):
        for name in os.listdir(source):
            if not os.path.exists(f"{target}/{name}"):
                os.makedirs(target, exist_ok=True)
                # Whole or not at all: a home may be shared.
                partial = f"{target}/.{name}.{os.getpid()}"
                shutil.copyfile(f"{source}/{name}", partial)
                os.replace(partial, f"{target}/{name}")


def register_pip(shell: Any) -> None:
    """`%pip`, which fails where pip does."""

    def pip(line: str) -> None:
        """Run pip for this session: %pip install PACKAGE"""
        script = f"{sys.prefix}/bin/pip"
        command = shlex.quote(script) if os.path.exists(script) else f"{shlex.quote(sys.executable)} -m pip"
        code = shell.user_ns["_exit_code"] = run_in_terminal(f"{command} {line}")
        if code:
            raise PipError(f"pip ended with exit code {code}: what it said stands above")
        importlib.invalidate_caches()
        if line.split()[:1] in (["install"], ["uninstall"]):
            print("A package that is imported already stays as it is until restartKernel.")  # noqa: T201 - its output

    shell.register_magic_function(pip, magic_kind="line", magic_name="pip")


def _make(folder: str, packages: str, image: list[str]) -> None:
    """As `python -m venv` would, without pip's copy: the image's is found by the .pth file."""
    os.makedirs(packages, exist_ok=True)
    os.makedirs(f"{folder}/bin", exist_ok=True)
    base = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    # include-system-site-packages: without it pip refuses --user.
    version = ".".join(map(str, sys.version_info[:3]))
    _write(
        f"{folder}/pyvenv.cfg",
        f"home = {os.path.dirname(base)}\ninclude-system-site-packages = true\nversion = {version}\n",
    )
    # A line of a .pth file that begins with import is run. So the .pth files of the image's folder are read, too.
    _write(f"{packages}/_image.pth", f"import site{''.join(f'; site.addsitedir({path!r})' for path in image)}\n")
    for name in ("python", "python3", _PYTHON):
        path = f"{folder}/bin/{name}"
        with _left_out(path):
            if not os.path.islink(path) or os.readlink(path) != base:
                with suppress(FileNotFoundError):
                    os.unlink(path)
                os.symlink(base, path)
    command = _COMMAND.format(python=shlex.quote(f"{folder}/bin/python"))
    for name in ("pip", "pip3"):
        _write(f"{folder}/bin/{name}", command, 0o755)


def _write(path: str, text: str, mode: int = 0o644) -> None:
    """Only where it is not there yet: a home may be shared, and its engines start at the same time."""
    data = text.encode()
    with _left_out(path):
        if _holds(path, data):
            return
        partial = f"{path}.{os.getpid()}"
        with suppress(FileNotFoundError):  # of a kernel that was ended here, in a home that was kept
            os.unlink(partial)
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
        os.replace(partial, path)


def _holds(path: str, data: bytes) -> bool:
    """Whether this is a file with these bytes. Never waits, whatever else has the name."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            return stat.S_ISREG(os.fstat(file.fileno()).st_mode) and file.read(len(data) + 1) == data
    except OSError:
        return False


def _put_before(packages: str, image: list[str]) -> None:
    """The session's packages, and what their .pth files name, before the image's, so that an upgrade wins."""
    known = len(sys.path)
    _add(packages)
    added = sys.path[known:]
    del sys.path[known:]
    where = min((sys.path.index(path) for path in image if path in sys.path), default=len(sys.path))
    sys.path[where:where] = added


def _add(packages: str) -> None:
    """As site.addsitedir, but that one .pth file which cannot be used costs itself alone."""
    if packages not in sys.path:
        sys.path.append(packages)
    deadline = time.monotonic() + ALL_PTH_SECONDS
    for name in sorted(os.listdir(packages)):
        if not name.endswith(".pth"):
            continue
        path = f"{packages}/{name}"
        with _left_out(path):
            found = os.stat(path)
            if not stat.S_ISREG(found.st_mode):
                raise OSError("it is no file")
            if found.st_size > PTH_BYTES:
                raise OSError(f"it has more than {PTH_BYTES} bytes")
            with _at_most(min(PTH_SECONDS, deadline - time.monotonic())):
                site.addpackage(packages, name, None)


@contextmanager
def _left_out(path: str) -> Iterator[None]:
    """Whatever happens with this file or folder is told in a line of stderr, with the remedy, and goes no further."""
    try:
        yield
    except BaseException as error:  # a SystemExit or KeyboardInterrupt of a .pth file, too
        why = " ".join(f"{type(error).__name__.strip('_')}: {error}".split())[:300]
        remedy = f"remove it, or ~/{FOLDER} as a whole, and then restartKernel"
        with suppress(OSError):
            os.write(2, f"[{path} is left out ({why}): {remedy}]\n".encode(errors="replace"))


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """End what runs in the main thread with an _OverTimeError after so many seconds, once; not inside of C code."""

    def ring(*_: object) -> None:
        raise _OverTimeError(f"it ran for more than {seconds:.0f} s")

    if seconds <= 0:
        raise _OverTimeError(f"the .pth files before it took {ALL_PTH_SECONDS:.0f} s")
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if signal.getsignal(signal.SIGALRM) is ring:  # not where the code has set its own
            signal.signal(signal.SIGALRM, before)
