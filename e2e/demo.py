"""`make demo`: the main job on a real cluster, step by step, with the time of each.

Shows and does not assert: what it shows is held by the e2e tests.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from tools.cluster import tools
from tools.cluster.progress import ClusterError
from tools.testkit.cluster import kubectl
from tools.testkit.cluster.installation import RELEASE, engines_of, install, stopwatch
from tools.testkit.gateway.client import Gateway, texts

NAMESPACE = "linkis"
ENGINES = engines_of(NAMESPACE)
ENGINE = "first-light"
SAMPLES = Path(__file__).parents[1] / "manifests/samples"
console = Console(highlight=False, soft_wrap=True)


def title(text: str) -> None:
    console.print(f"\n[bold]{text}[/bold]")


def row(ticket: str) -> dict[str, Any]:
    """The engine's row, read inside the operator's pod."""
    command = ["exec", "-n", NAMESPACE, f"deployment/{RELEASE}-operator", "-c", "operator", "--"]
    loaded: dict[str, Any] = json.loads(kubectl.must(*command, "python", "-m", "linkis_ecm", "record", ticket))
    return loaded


def show_row(ticket: str, word: str, *, final: bool = False) -> None:
    """Waits for that state in the row, bounded, and prints the row's telling columns."""
    deadline = time.monotonic() + 20
    found = row(ticket)
    while (found["record"]["status"], found["final"]) != (word, final) and time.monotonic() < deadline:
        time.sleep(0.2)
        found = row(ticket)
    told = found["record"]
    names = ("status", "service_instance", "request_times", "used_times", "release_times", "used_resource")
    console.print("  row: " + ", ".join(f"{name}={told[name]}" for name in names), soft_wrap=True)


def follow(seen: list[tuple[float, str, str]], stop: threading.Event, begun: float) -> None:
    """Notes each state that `kubectl get --watch` shows."""
    columns = "custom-columns=S:.status.engineState,R:.status.reason"
    command = [str(tools.kubectl()), "--kubeconfig", str(tools.kubeconfig()), "get", "ec", ENGINE, "-n", ENGINES]
    with subprocess.Popen(
        [*command, "--watch", "--no-headers", "-o", columns], stdout=subprocess.PIPE, text=True
    ) as watch:
        assert watch.stdout is not None

        def end() -> None:
            stop.wait(300)
            watch.terminate()

        threading.Thread(target=end, daemon=True).start()
        for line in watch.stdout:
            state, _, reason = line.strip().partition(" ")
            if state != "<none>" and (not seen or seen[-1][1:] != (state, reason.strip())):
                seen.append((time.monotonic() - begun, state, reason.strip()))


def run_code(gateway: Gateway, ticket: str) -> None:
    code = (SAMPLES / "stocks.py").read_text()
    begun = time.monotonic()
    result = gateway.execute(ticket, code).data
    console.print(f"  {result['status']} in {time.monotonic() - begun:.2f} s; it printed: {texts(result).strip()}")
    for output in result["outputs"]:
        if output["type"] == "table":
            table = Table(*(column["name"] for column in output["columns"]))
            for line in output["rows"]:
                table.add_row(*map(str, line))
            console.print(table)
        if output["type"] == "picture":
            picture = Path("out/stocks.png")
            picture.parent.mkdir(exist_ok=True)
            picture.write_bytes(base64.b64decode(output["data"]))
            console.print(f"  a picture, {picture.stat().st_size} bytes: {picture}")
    failed = gateway.execute(ticket, "1/0").data
    error = next(output for output in failed["outputs"] if output["type"] == "error")
    console.print(f"  and 1/0 gives {failed['status']}: {error['name']}: {error['value']}")


def main() -> None:
    """Starts a cluster of one node, builds the images, installs the chart, and shows an engine's whole life."""
    took: dict[str, float] = {}
    title("1. A real Kubernetes cluster")
    with stopwatch(took, "builds"):
        tools.prepare()
    with stopwatch(took, "cluster"):
        tools.up()
    title("2. The images")
    with stopwatch(took, "images"):
        tags = tools.images()
    console.print(f"  {tags}", soft_wrap=True)
    title("3. helm upgrade --install")
    with stopwatch(took, "helm install"):
        release = install(NAMESPACE)
    console.print(kubectl.must("get", "pods,ecp", "-n", NAMESPACE))

    title("4. kubectl apply -f manifests/samples/engine.yaml")
    kubectl.run("delete", "ec", ENGINE, "-n", ENGINES, "--timeout=60s")
    seen: list[tuple[float, str, str]] = []
    stop, begun = threading.Event(), time.monotonic()
    with stopwatch(took, "apply to Ready"):
        kubectl.must("apply", "-n", ENGINES, "-f", str(SAMPLES / "engine.yaml"))
        watcher = threading.Thread(target=follow, args=(seen, stop, begun))
        watcher.start()
        kubectl.must("wait", "-n", ENGINES, f"ec/{ENGINE}", "--for=condition=Ready", "--timeout=120s")
    console.print(kubectl.must("get", "ec", "-n", ENGINES))
    status = kubectl.get("ec", ENGINE, "-n", ENGINES)["status"]
    ticket = status["ticketId"]
    console.print("  startup: " + ", ".join(f"{phase} {at[11:-1]}" for phase, at in status["startup"].items()))
    show_row(ticket, "Idle")

    title("5. Code in it, through the gateway, on a data set that a Python package ships")
    with release.forward() as port, Gateway("127.0.0.1", port, release.token) as gateway:
        with stopwatch(took, "code"):
            run_code(gateway, ticket)
        busy = threading.Thread(
            target=lambda: gateway.as_user("hadoop").execute(ticket, "import time; time.sleep(4); print('slept')")
        )
        busy.start()
        show_row(ticket, "Busy")
        busy.join(60)
        show_row(ticket, "Idle")
        title("6. Its log, downloaded as Linkis's console does")
        reply = gateway.download(
            emInstance=status["ecmInstance"], instance=status["serviceInstance"],
            logDirSuffix=status["logDirSuffix"], logType="stdout",
        )  # fmt: skip
        console.print(f"  {reply.headers['content-disposition']}, {len(reply.raw)} bytes; its last lines:")
        console.print("  " + "\n  ".join(reply.raw.decode().splitlines()[-5:]), markup=False)
        title("7. terminateEngine")
        with stopwatch(took, "stop"):
            gateway.terminate(ticket)
            show_row(ticket, "ShuttingDown", final=True)
        kubectl.must(
            "wait", "-n", ENGINES, f"ec/{ENGINE}", "--for=jsonpath={.status.engineState}=Success", "--timeout=30s"
        )
    stop.set()
    watcher.join(10)
    title("The states, as kubectl saw them (seconds since apply)")
    for at, state, reason in seen:
        console.print(f"  {at:7.2f}  {state:<14} {reason}")
    title("The states, as the database has them")
    for step in row(ticket)["transitions"]:
        console.print(f"  {step['at'][11:19]}  {step['state']:<14} {step['reason']}")
    title("What took how long")
    for name, seconds in took.items():
        console.print(f"  {name:<16} {seconds:7.2f} s")
    console.print(
        "\nThe cluster stays up: make cluster-down ends it. Its access:", str(tools.kubeconfig()), soft_wrap=True
    )


if __name__ == "__main__":
    try:
        typer.run(main)
    except ClusterError as error:
        error.show()
        sys.exit(1)
