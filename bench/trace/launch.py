"""Starts the product's processes with stamps: a gateway, an operator, an agent with its kernel, a bare
ipykernel.

`main` is what a process runs, by `command`: nothing here needs PYTHONPATH. Must not measure.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bench.trace import points
from bench.trace.ring import Ring

# The folder for the rings' files. No ECM_ variable reaches a kernel, so it is not one.
FOLDER = "BENCH_TRACE_FOLDER"
ROOT = Path(__file__).parents[2]


def command(part: str) -> tuple[str, ...]:
    """What Python is started with to be that part, in any working directory."""
    return ("-c", _code(f"main({part!r})"))


def _code(call: str, what: str = "") -> str:
    return f"import sys; sys.path.append({str(ROOT)!r}); from bench.trace import launch; launch.{call}  # {what}"


def new_ring(part: str) -> Ring:
    """This process's ring in the folder that the environment names."""
    return Ring(Path(os.environ[FOLDER]) / f"{part}-{os.getpid()}.ring")


def main(part: str) -> None:
    """Be a gateway, an operator, an agent, its kernel or a bare kernel, as their own entry points do."""
    {"gateway": _gateway, "agent": _agent, "kernel": _kernel, "bare": _bare_kernel, "operator": _operator}[part]()


def _gateway() -> None:
    import asyncio  # noqa: PLC0415 - each part imports what it needs and no more: an agent's start is short
    import json  # noqa: PLC0415

    from bench.processes.loopback import serve  # noqa: PLC0415

    points.install_gateway(new_ring("gateway"))
    asyncio.run(serve(json.loads(sys.argv[1])))


def _agent() -> None:
    from linkis_ecm.agent import __main__ as agent  # noqa: PLC0415
    from linkis_ecm.agent.executors import spawn  # noqa: PLC0415

    start = spawn.start_process

    def start_traced(program: str, argv: list[str], environment: dict[str, str]) -> tuple[int, int, int]:
        at = argv.index("-c") + 1
        return start(program, [*argv[:at], _code("main('kernel')", "agent.kernel.main"), *argv[at + 1 :]], environment)

    spawn.start_process = start_traced
    ring = new_ring("agent")
    # The last thing that it does before it starts its kernel.
    guard = vars(agent)["guard_process"]

    def guard_and_install() -> None:
        guard()
        points.install_agent(ring)

    vars(agent)["guard_process"] = guard_and_install
    os._exit(agent.main())


def _kernel() -> None:
    # What ipykernel's import leaves out (agent.kernel.main) must not be loaded before it.
    from linkis_ecm.agent.kernel import main as kernel  # noqa: PLC0415

    imported = kernel._import_ipykernel

    def import_and_install() -> object:
        application = imported()
        points.install_kernel(new_ring("kernel"))
        return application

    kernel._import_ipykernel = import_and_install
    kernel.main()


def _bare_kernel() -> None:
    from ipykernel.kernelapp import launch_new_instance  # noqa: PLC0415

    points.install_kernel(new_ring("bare"))
    launch_new_instance()


def _operator() -> None:
    from tools.loopback import part  # noqa: PLC0415 - see above

    points.install_operator(new_ring("operator"))
    part.main("operator")
