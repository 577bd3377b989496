"""The executors there are, by name: import strings, so that nothing of one is loaded before it is chosen.

`ECM_EXECUTOR` chooses. An executor has two parts. The first starts its process, before the agent has imported anything
heavy: the agent's own imports take as long as a kernel's boot, and both run side by side. The second talks to it. Must
not import anything at its top but what the interpreter has loaded anyway.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from linkis_ecm.agent.executors.base import Executor
    from linkis_ecm.agent.executors.spawn import SpawnedKernel

SETTING = "ECM_EXECUTOR"
DEFAULT = "ipython"
# name: (starts the process, talks to it)
EXECUTORS = {
    "ipython": (
        "linkis_ecm.agent.executors.spawn:spawn_kernel",
        "linkis_ecm.agent.executors.ipython:IPythonKernel",
    ),
    "kernelspec": (
        "linkis_ecm.agent.executors.kernelspec_spawn:spawn_kernel",
        "linkis_ecm.agent.executors.kernelspec:KernelspecKernel",
    ),
}


class ExecutorError(Exception):
    """The executor cannot be had: one sentence that names the setting and the remedy."""


def spawn(environment: Mapping[str, str]) -> SpawnedKernel:
    """Start the chosen executor's process. Raises ExecutorError."""
    made: SpawnedKernel = _load(_entry(environment)[0])(environment)  # type: ignore[assignment]
    return made


def connect(
    environment: Mapping[str, str], spawned: SpawnedKernel, on_output: Callable[[str, bytes], None]
) -> Executor:
    """The executor of a process that `spawn` has started. `on_output` gets every byte that it prints."""
    made: Executor = _load(_entry(environment)[1])(spawned, on_output)  # type: ignore[assignment]
    return made


def _entry(environment: Mapping[str, str]) -> tuple[str, str]:
    name = environment.get(SETTING) or DEFAULT
    if name not in EXECUTORS:
        raise ExecutorError(f"{SETTING} is {name!r}: write one of {', '.join(EXECUTORS)}")
    return EXECUTORS[name]


def _load(where: str) -> Callable[..., object]:
    module, _, name = where.partition(":")
    __import__(module)
    found: Callable[..., object] = getattr(sys.modules[module], name)
    return found
