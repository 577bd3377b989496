"""The folder in which the executor's process starts: the home, which is made writable, or the one that was asked for.

The agent enters it before it starts that process, which inherits it. Whatever is in the folder is the user's: it must
not be read or written here. Runs before anything else of the agent, so it imports nothing but what is loaded anyway.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, MutableMapping

from linkis_ecm.agent.executors.registry import ExecutorError
from linkis_ecm.agent.formats.names import DEFAULT_HOME, KERNEL_ENV_PREFIX

# The workingDir of the engine, or of its plugin (engine.pod.launch).
SETTING = "ECM_WORK_DIR"
# Of a folder's path in a sentence.
_SHOWN = 200
# Linux's PATH_MAX.
_PATH_BYTES = 4096


def enter(environment: MutableMapping[str, str], change: Callable[[str], None] = os.chdir) -> None:
    """Make HOME a folder that can be written, and go to the working directory.

    That is the one asked for, else the user's own HOME, else HOME. DEFAULT_HOME replaces an image's HOME that cannot be
    written. Raises ExecutorError for a working directory that cannot be entered.
    """
    home = environment.get("HOME", "")
    if not _writable(home):
        home = environment["HOME"] = DEFAULT_HOME
        _writable(home)  # or the working directory says why not
    asked = environment.get(SETTING)
    own = environment.get(f"{KERNEL_ENV_PREFIX}HOME", "")
    folder = asked or (own if _writable(own) else home)
    try:
        if asked:
            _make(asked)
        change(folder)
    except OSError as error:
        if asked:
            raise ExecutorError(
                f"workingDir {asked[:_SHOWN]}: {error.strerror}: take a folder of a volume that the engine may enter,"
                " or /tmp"
            ) from None
        change("/tmp")  # noqa: S108 - the container's own


def _writable(folder: str) -> bool:
    """Whether there is such a folder, made here if need be, and files can be made in it."""
    if not folder.startswith("/") or folder == "/":
        return False
    try:
        _make(folder)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _make(folder: str) -> None:
    """Raises OSError alone, also for what is in /proc: the executor's process, another one, might not be able to enter
    it."""
    if len(folder) >= _PATH_BYTES:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    try:
        os.makedirs(folder, exist_ok=True)
    except RecursionError:  # one call for each level that is missing
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG)) from None
    if f"{os.path.realpath(folder)}/".startswith("/proc/"):
        raise OSError(errno.EACCES, "it is in /proc")
