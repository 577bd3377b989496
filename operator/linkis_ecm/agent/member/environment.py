"""What a claim may carry: the environment that the engine's own pod would have had, within what Linux allows a process.

A value may be a user's secret: no error here has one in its text. Pure.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from linkis_ecm.agent.executors.spawn import kernel_environment
from linkis_ecm.agent.formats.names import KERNEL_ENV_PREFIX, PRIVATE_PREFIX
from linkis_ecm.agent.formats.startup import ZONE, read_at_start
from linkis_ecm.agent.formats.variables import STRING_BYTES, is_name, problem_of, string_bytes

# What all may take (Linux: a quarter of the stack's limit), less one argument of the largest size for what the code
# starts, and 8 bytes for the pointer to each.
TOTAL_BYTES = os.sysconf("SC_ARG_MAX") - STRING_BYTES
_POINTER_BYTES = 8
# The agent's variables that are the engine's, not the pod's.
_OF_ENGINE = frozenset(
    {
        "ECM_NAMESPACE", "ECM_NAME", "ECM_UID", "ECM_ATTEMPT", "ECM_TICKET_ID", "ECM_STOP_GRACE", "ECM_START_TIMEOUT",
        "ECM_WORK_DIR",
    }
)  # fmt: skip
# Those of the member alone; an engine has none of them.
_OF_MEMBER = frozenset({"ECM_MEMBER", "ECM_PRELOAD"})
# The pod's own, whatever the claim says: the operator need not know it to write the rest.
_OF_POD = frozenset({"ECM_POD_UID"})
# Of a variable's name in a sentence.
_NAME_CHARS = 200


class UnusableError(ValueError):
    """The claim cannot be used; the text says why and names the variable, without its value."""


class TooLargeError(UnusableError):
    """It is beyond what Linux lets a process have."""


def claimed_environment(
    own: Mapping[str, str], claimed: Mapping[str, object], takes: tuple[str, ...]
) -> dict[str, str]:
    """The container's environment as it would be in the engine's own pod: the member's `own` and over it the claim's.

    `takes` is what the executor can be given (`Capabilities.takes`). Raises UnusableError, TooLargeError.
    """
    found = {
        name: value
        for name, value in own.items()
        if name not in _OF_ENGINE | _OF_MEMBER and not name.startswith(KERNEL_ENV_PREFIX)
    }
    for name, value in claimed.items():
        shown = name[:_NAME_CHARS].encode("ascii", "backslashreplace").decode()
        if not isinstance(value, str):
            raise UnusableError(f"environment: {shown} is not a string: send its value as JSON text")
        if name in _OF_POD:
            continue
        if not is_name(name):
            raise UnusableError(f"environment: {shown!r} is no variable's name: leave out = and NUL")
        if problem := problem_of(value) or problem_of(name):
            raise UnusableError(f"environment: {shown} {problem}")
        if string_bytes(name, value) > STRING_BYTES:
            raise TooLargeError(f"environment: {shown} takes more than {STRING_BYTES} bytes, the most of one variable")
        _require_engines(name, value, own, shown)
        found[name] = value
    if sum(string_bytes(name, value) + _POINTER_BYTES for name, value in found.items()) > TOTAL_BYTES:
        raise TooLargeError(f"environment: all variables together take more than {TOTAL_BYTES} bytes")
    _require_taken(own, found, takes)
    return found


def _require_engines(name: str, value: str, own: Mapping[str, str], shown: str) -> None:
    """Raises UnusableError for a setting of the agent that was fixed when its process started."""
    private = name.startswith(PRIVATE_PREFIX) and not name.startswith(KERNEL_ENV_PREFIX)
    if private and name not in _OF_ENGINE and own.get(name) != value:
        raise UnusableError(
            f"environment: {shown} differs from the member's, and a claim cannot change it: start this engine cold"
        )


def _require_taken(own: Mapping[str, str], found: Mapping[str, str], takes: tuple[str, ...]) -> None:
    """Raises UnusableError where the kernel would have to be another one."""
    before, after = kernel_environment(own, ""), kernel_environment(found, "")
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed and "env" not in takes:
        first = changed[0][:_NAME_CHARS]
        raise UnusableError(f"environment: this kernel takes no variables, such as {first}: start this engine cold")
    preload = own.get("ECM_PRELOAD", "").split(",")
    fixed = next((name for name in changed if read_at_start(name, filter(None, preload), after.get(name, ""))), "")
    if fixed == ZONE:
        raise UnusableError(
            f"environment: {ZONE} is a path: name a zone, such as Europe/Berlin, or start this engine cold"
        )
    if fixed:
        raise UnusableError(
            f"environment: {fixed[:_NAME_CHARS]} is read when the kernel's process starts or a module of the preload is"
            " imported: start this engine cold"
        )
    folder = "ECM_WORK_DIR"
    if own.get(folder) != found.get(folder) and "workingDir" not in takes:
        raise UnusableError(f"{folder}: this kernel takes no other working directory: start this engine cold")
