"""Reads a kernel's messages: checks their signature and their shape. No sockets, no clocks.

What a kernel sends is not to be trusted: whatever cannot be used is a BadMessageError and nothing else.
"""

from __future__ import annotations

import hmac
import json
import re
from typing import Any

from linkis_ecm.agent.lean import lean_package

lean_package("jupyter_client")
lean_package("dateutil.parser", {"isoparse": "dateutil.parser.isoparser"})
from jupyter_client.adapter import adapt  # noqa: E402
from jupyter_client.session import DELIM, Session  # noqa: E402

# The largest whole number that every reader of JSON keeps exactly.
MAX_COUNT = 1 << 53
# Where a message may hold half of a surrogate pair: in JSON's bytes only an escape can (so does kernel.output.bounds).
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class BadMessageError(Exception):
    """A message cannot be used; the text says why, in a few words."""


class CheckedSession(Session):  # type: ignore[misc]
    """Session, that reads of a message only what the agent uses: a call of `1+1` has five messages."""

    def read(self, frames: list[bytes]) -> dict[str, Any]:
        """The message in all that came by a socket, with its signature checked before anything else is read.

        As `deserialize`, without metadata and buffers, and with dates as texts: to make times of them takes as long as
        all the rest. Raises ValueError and whatever a broken part makes the parser raise.
        """
        signature, *parts = frames[frames.index(DELIM) + 1 :][:5]
        if signature in self.digest_history:
            raise ValueError("its signature has come before")
        self._add_digest(signature)
        if len(parts) < 4 or not hmac.compare_digest(signature, self.sign(parts)):
            raise ValueError("its signature is not the kernel's")
        header = self.unpack(parts[0])
        message: dict[str, Any] = {
            "header": header,
            "msg_id": header["msg_id"],
            "msg_type": header["msg_type"],
            "parent_header": self.unpack(parts[1]),
            "metadata": {},
            "content": self.unpack(parts[3]),
        }
        if not str(header.get("version", "")).startswith("5."):
            message = adapt(message)  # of an older kernel
        return message


def session(key: str) -> CheckedSession:
    """What signs and checks the messages of one kernel. Raises ValueError where `key` is empty."""
    if not key:
        raise ValueError("a kernel's channels need a key: without one, nothing is signed or checked")
    # Python's own JSON: another that is installed beside it makes a float of a whole number beyond 64 bits.
    return CheckedSession(key=key.encode(), username="", packer="json", unpacker="json")


def read_message(checks: CheckedSession, frames: list[bytes]) -> dict[str, Any]:
    """One message; its `content` and its `parent_header` are objects, its `msg_type` is a text.

    Raises BadMessageError.
    """
    try:
        message = checks.read(frames)
        if any(map(_SURROGATE.search, frames)):
            message["content"] = _bounded_content(message["content"])
    except Exception as error:  # the library raises what it comes across
        raise BadMessageError(f"{type(error).__name__}: {error}"[:200]) from None
    if message["parent_header"] is None:
        # As some kernels write that there is none; others write {}.
        message["parent_header"] = {}
    for name, kind in (("msg_type", str), ("parent_header", dict), ("content", dict)):
        if not isinstance(message[name], kind):
            raise BadMessageError(f"its {name} is {type(message[name]).__name__}")
    return message


def read_reply(content: dict[str, Any]) -> dict[str, Any]:
    """An execute_reply's content: what of it is used (`Executor.execute`), and only in the form that it is used in."""
    reply: dict[str, Any] = {"status": str(content.get("status"))}
    count = content.get("execution_count")
    if isinstance(count, int) and not isinstance(count, bool) and abs(count) <= MAX_COUNT:
        reply["execution_count"] = count
    if reply["status"] != "ok":
        reply |= {name: str(content[name]) for name in ("ename", "evalue") if name in content}
        if isinstance(lines := content.get("traceback"), list):
            reply["traceback"] = [str(line) for line in lines]
    if isinstance(payload := content.get("payload"), list):
        reply["payload"] = [part for part in payload if isinstance(part, dict)]
    return reply


def exit_code(reply: dict[str, Any]) -> int | None:
    """The exit code, 0 to 255, of code that ended by exit() or sys.exit(); None where it ended otherwise.

    Our kernel says it itself (kernel.exits). Another IPython puts what exit() was given into keepkernel, whose default
    is False.
    """
    for part in reply.get("payload", []):
        if part.get("source") not in ("ask_exit", "exit"):
            continue
        code = part.get("exitCode", part.get("keepkernel"))
        if code is None or code is False:
            return 0
        return code & 0xFF if isinstance(code, int) else 1
    return None


def asks_to_end(reply: dict[str, Any]) -> bool:
    """Whether the code called exit(), which ends the engine, too."""
    return any(part.get("source") == "ask_exit" for part in reply.get("payload", []))


def read_streams(content: dict[str, Any]) -> list[tuple[str, str]]:
    """The (stream, text) that a message of texts holds, in order: Jupyter's own has one, the IPython kernel's more."""
    parts = content.get("parts")
    if not isinstance(parts, list):
        parts = [(content.get("name"), content.get("text", ""))]
    return [("stderr" if name == "stderr" else "stdout", str(text)) for name, text in parts]


def _bounded_content(content: dict[str, Any]) -> dict[str, Any]:
    """A message's content with a question mark for each character that UTF-8 cannot hold."""
    whole: dict[str, Any] = json.loads(json.dumps(content, ensure_ascii=False).encode(errors="replace"))
    return whole
