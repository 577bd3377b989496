"""Which functions are stamped in which process, and how: the hops of a call, and of an
engine's life in the operator.

`install_*` replaces functions of modules and classes by wrappers that stamp a ring, before or after the function.
Must not change what a function does.
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable
from typing import Any

from bench.trace.ring import Ring

# A stamp's name, or what makes it of the arguments.
Name = str | Callable[..., str]


def wrap(ring: Ring, owner: Any, attribute: str, *, before: Name = "", after: Name = "") -> None:
    """Stamp before and after each call of `owner.attribute`, a function, a method or a coroutine function."""
    function = getattr(owner, attribute)

    def stamp(name: Name, args: tuple[Any, ...]) -> None:
        if name:
            ring.stamp(name if isinstance(name, str) else name(*args))

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def wrapped_coroutine(*args: Any, **kwargs: Any) -> Any:
            stamp(before, args)
            try:
                return await function(*args, **kwargs)
            finally:
                stamp(after, args)

        setattr(owner, attribute, wrapped_coroutine)
        return

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        stamp(before, args)
        try:
            return function(*args, **kwargs)
        finally:
            stamp(after, args)

    setattr(owner, attribute, wrapped)


def install_gateway(ring: Ring) -> None:
    """In a gateway's process, before it is built."""
    from aiohttp import ClientRequest, web  # noqa: PLC0415 - what a process does not have it need not import

    from linkis_ecm.agent_client.client import AgentClient  # noqa: PLC0415
    from linkis_ecm.gateway import app  # noqa: PLC0415
    from linkis_ecm.gateway.agents.client import Agents  # noqa: PLC0415
    from linkis_ecm.gateway.http.responses import Responder  # noqa: PLC0415
    from linkis_ecm.gateway.journal import ExecutionJournal  # noqa: PLC0415

    wrap(ring, app, "_middleware", before="gateway: the request's head is parsed")
    wrap(ring, app, "_login", after="gateway: the caller is known")
    wrap(ring, app, "arguments", after="gateway: the body is read and valid")
    wrap(ring, ExecutionJournal, "accepted", after="gateway: the journal has the request")
    wrap(ring, AgentClient, "send", before="gateway: the call to the agent begins")
    wrap(ring, ClientRequest, "send", after="gateway: the call to the agent is written")
    wrap(ring, AgentClient, "send", after="gateway: the agent's head is parsed")
    wrap(ring, Agents, "_result", after="gateway: the agent's result is read")
    wrap(ring, Responder, "send", before="gateway: the journal has the end")
    wrap(ring, app, "_middleware", after="gateway: the answer is encoded and counted")
    wrap(ring, web.Response, "write_eof", before="gateway: the answer's bytes are given to the socket")


def install_agent(ring: Ring) -> None:
    """In an agent's process, once its kernel was spawned."""
    from linkis_ecm.agent.engine import Engine  # noqa: PLC0415
    from linkis_ecm.agent.executors import jupyter  # noqa: PLC0415
    from linkis_ecm.agent.http import server, tasks  # noqa: PLC0415

    kernel, connection = jupyter.JupyterKernel, server._Connection
    wrap(ring, connection, "_answer", before="agent: the request's head is parsed")
    wrap(ring, tasks, "json_body", after="agent: the body is read")
    wrap(ring, Engine, "submit", after="agent: the task is queued")
    wrap(ring, kernel, "execute", before="agent: the task begins")
    wrap(ring, kernel, "_send", after=lambda _, kind, *__: f"agent: {kind} is sent")
    wrap(ring, kernel, "_on_iopub", after=lambda _, message: f"agent: {_kind(message)} is read")
    wrap(ring, kernel, "_on_shell", before=lambda _, message: f"agent: {message['msg_type']} is read")
    wrap(ring, kernel, "_finish", after="agent: the execution is over")
    wrap(ring, Engine, "_finish_task", after="agent: the task has ended")
    wrap(ring, Engine, "_enter", before=lambda _, state, *__: f"agent: state {state}")
    wrap(ring, tasks.TaskApi, "execute", after="agent: the result is encoded")
    wrap(ring, connection, "_send", after="agent: the answer is written")


def _kind(message: dict[str, Any]) -> str:
    state = message["content"].get("execution_state") if message["msg_type"] == "status" else None
    return state or str(message["msg_type"])


def install_kernel(ring: Ring) -> None:
    """In a kernel's process, ours or a bare ipykernel's."""
    from ipykernel.ipkernel import IPythonKernel  # noqa: PLC0415
    from ipykernel.kernelbase import Kernel  # noqa: PLC0415

    wrap(ring, Kernel, "dispatch_shell", before="kernel: the request is in the main thread")
    wrap(ring, Kernel, "execute_request", before="kernel: it begins with the request")
    wrap(ring, IPythonKernel, "do_execute", before="kernel: the code begins", after="kernel: the code has ended")
    wrap(ring, Kernel, "execute_request", after="kernel: the reply is sent")
    wrap(ring, Kernel, "dispatch_shell", after="kernel: idle is sent")


def install_operator(ring: Ring) -> None:
    """In an operator's process, before it is built. Passes over one engine are numbered."""
    from linkis_ecm.controller import reconciler  # noqa: PLC0415 - see above
    from linkis_ecm.controller.agents.reports import Reports  # noqa: PLC0415
    from linkis_ecm.controller.pods.executor import Executor  # noqa: PLC0415
    from linkis_ecm.controller.state.cache import Cache  # noqa: PLC0415
    from linkis_ecm.store.sink import Sink  # noqa: PLC0415

    passes: Counter[str] = Counter()

    def key_of(metadata: dict[str, Any]) -> str:
        return f"{metadata['namespace']}/{metadata['name']}"

    def seen(_: Any, body: dict[str, Any]) -> str:
        if "status" not in body:
            passes[key_of(body["metadata"])] = 0
            return "operator: the engine is seen"
        return f"operator: the engine is seen {body['status'].get('engineState')}"

    def begun(_: Any, key: tuple[str, str]) -> str:
        passes["/".join(key)] += 1
        return f"operator: pass {passes['/'.join(key)]} begins"

    def ended(_: Any, key: tuple[str, str]) -> str:
        return f"operator: pass {passes['/'.join(key)]} ends"

    def written(_: Any, __: Any, patch: dict[str, Any]) -> str:
        return f"operator: status {patch.get('engineState', 'without a new state')} is written"

    wrap(ring, Cache, "apply_engine", before=seen)
    wrap(ring, Cache, "apply_pod", before=lambda _, pod: f"operator: the pod is seen {pod.phase}")
    wrap(ring, reconciler.Reconciler, "process", before=begun, after=ended)
    wrap(ring, reconciler, "decide", after=lambda s, *_: f"operator: pass {passes['/'.join(s.engine.key)]} has decided")
    wrap(ring, Executor, "create_pod", after="operator: the pod is made")
    wrap(ring, Executor, "patch_status", after=written)
    wrap(ring, Reports, "answer", before="operator: a report is read", after="operator: the report is taken")
    wrap(ring, Sink, "offer", before=lambda _, record: f"operator: the row {record.status} is queued")
    wrap(ring, Sink, "_write", before="operator: rows are being written", after="operator: rows are written")
