"""What the kernel's process makes of its environment and its working directory. Runs in the kernel.

At a cold start both are there when Python starts. A kernel of a warm pool gets its engine's later (`move`), and is then
as if it had been started with them. Must not import what the user's code may want first.
"""

from __future__ import annotations

import os
import site
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from linkis_ecm.agent.kernel import packages
from linkis_ecm.agent.kernel.shell import ask_for_no_colours


def settle(asked_for: Mapping[str, str]) -> None:
    """All but the session's own packages (`packages.enter`), once ipykernel has changed the process's environment;
    `asked_for` is the one before that."""
    ask_for_no_colours(os.environ, asked_for)
    packages.see_working_directory(os.environ)
    packages.give_font_list(os.environ, sys.prefix)


def move(shell: Any, asked_for: Mapping[str, str], folder: str, prepared: packages.Prepared | None) -> None:
    """Take another environment, go to another folder, and enter the session's packages, which may be `prepared`.

    Variables that Python or a library reads at its start alone (`formats.startup`) must not differ. Raises OSError
    where the folder cannot be entered.
    """
    for name in set(os.environ) - set(asked_for):
        del os.environ[name]
    os.environ.update(asked_for)
    os.chdir(folder)
    # What Python and IPython have derived from the former ones.
    time.tzset()
    if "tempfile" in sys.modules:
        sys.modules["tempfile"].tempdir = None  # type: ignore[attr-defined]
    site.USER_BASE = site.USER_SITE = None
    site.getusersitepackages()
    shell.init_environment()
    shell.starting_dir = folder
    shell.home_dir = asked_for.get("HOME", "")
    shell.history_manager.dir_hist[:] = [Path(folder)]
    settle(asked_for)
    packages.enter(os.environ, prepared)
