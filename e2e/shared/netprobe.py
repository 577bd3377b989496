"""Connections tried from inside of pods, and pods to try them from. Must not decide what is allowed: tests do.

What an attempt gives: "open", a status for a GET, "silent" where nothing comes back in time, else the error's words. A
policy drops, so "silent" is a packet that was stopped, and a refusal one that arrived.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from tools.cluster.tools import images
from tools.testkit.cluster import kubectl
from tools.testkit.cluster.waiting import until_holds
from tools.testkit.gateway.client import Gateway, texts

# (kind, host, port). A kind is tcp, mapped (an IPv6 socket to an IPv4-mapped address), udp, udp-from-53 (its own port),
# name (resolved, not dialled) or `get /path`.
Target = tuple[str, str, int]
# A connection inside of one node takes a millisecond, and here some with every core busy.
SECONDS = 4.0
CODE = f"""
import errno, json, socket, threading, time, urllib.error, urllib.request

def attempt(kind, host, port, seconds={SECONDS}):
    try:
        if kind.startswith("udp"):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
                if "-from-" in kind:
                    out.bind(("", int(kind.rpartition("-")[2])))
                out.settimeout(seconds)
                out.sendto(b"ping", (host, port))
                out.recv(16)
        elif kind == "mapped":
            with socket.socket(socket.AF_INET6) as out:
                out.settimeout(seconds)
                out.connect(("::ffff:" + host, port))
        elif kind == "name":
            socket.getaddrinfo(host, port)
        elif kind.startswith("get"):
            url = "http://%s:%d%s" % (host, port, kind[4:])
            return str(urllib.request.urlopen(url, timeout=seconds).status)
        else:
            socket.create_connection((host, port), seconds).close()
        return "open"
    except urllib.error.HTTPError as error:
        return str(error.code)
    except OSError as error:
        reason = getattr(error, "reason", error)
        # No answer of a neighbour, and none of a name server.
        unanswered = getattr(reason, "errno", None) in (errno.EHOSTUNREACH, socket.EAI_AGAIN, socket.EAI_NONAME)
        return "silent" if isinstance(reason, TimeoutError) or unanswered else repr(reason)

def attempts(targets):
    found = ["silent"] * len(targets)
    def fill(number):
        found[number] = attempt(*targets[number])
    threads = [threading.Thread(target=fill, args=(n,), daemon=True) for n in range(len(targets))]
    for thread in threads:
        thread.start()
    # A resolver without an answer waits for longer than anything else.
    deadline = time.monotonic() + 3 * {SECONDS}
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    return found
"""
# Servers for the other end: TCP ports as (address, port), and an echo over UDP.
SERVE = """
import socket, sys, threading
def tcp(server):
    while True:
        peer, _ = server.accept()
        peer.close()
def udp(server):
    while True:
        said, peer = server.recvfrom(64)
        server.sendto(said, peer)
def bound(kind, address, port):
    if kind == "tcp":
        return tcp, socket.create_server((address, port))
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, port))
    return udp, server
for one in sys.argv[1:]:
    kind, address, port = one.split(",")
    serve, server = bound(kind, address, int(port))
    threading.Thread(target=serve, args=(server,)).start()
print("serving", flush=True)
"""


def program(targets: Sequence[Target]) -> str:
    """Python that prints what each attempt gave, as JSON."""
    return f"{CODE}\nprint(json.dumps(attempts({[list(target) for target in targets]!r})))"


def from_engine(gateway: Gateway, ticket: str, targets: Sequence[Target]) -> dict[Target, str]:
    """Tried by user code in an engine."""
    result = gateway.execute(ticket, program(targets)).data
    return dict(zip(targets, json.loads(texts(result)), strict=True))


def from_pod(namespace: str, pod: str, targets: Sequence[Target], container: str = "") -> dict[Target, str]:
    """Tried by a program in a pod that has Python."""
    where = ("-c", container) if container else ()
    said = kubectl.must("exec", "-n", namespace, pod, *where, "--", "python3", "-c", program(targets))
    return dict(zip(targets, json.loads(said), strict=True))


def pod(namespace: str, name: str, *command: str, labels: dict[str, str] | None = None) -> dict[str, Any]:
    """A pod of somebody else with the engines' image, as the profile `restricted` wants it."""
    container = {
        "name": "main", "image": images()["engine-python"], "imagePullPolicy": "IfNotPresent", "command": list(command),
        "resources": {"limits": {"cpu": "200m", "memory": "64Mi"}, "requests": {"cpu": "10m", "memory": "32Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }  # fmt: skip
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {}},
        "spec": {
            "automountServiceAccountToken": False, "terminationGracePeriodSeconds": 0, "containers": [container],
            "securityContext": {
                "runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"},
            },
        },
    }  # fmt: skip


def idle(namespace: str, name: str, labels: dict[str, str] | None = None) -> dict[str, Any]:
    """A pod that only waits for `kubectl exec`."""
    return pod(namespace, name, "sleep", "infinity", labels=labels)


def server(namespace: str, name: str, *ports: int, labels: dict[str, str] | None = None) -> dict[str, Any]:
    """A pod that listens on TCP ports."""
    return pod(namespace, name, "python3", "-c", SERVE, *(f"tcp,,{port}" for port in ports), labels=labels)


def start(*pods: dict[str, Any]) -> dict[tuple[str, str], str]:
    """Makes the pods; their addresses by namespace and name, once they run and those that serve do."""
    kubectl.must("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(pods)}))
    names = [(one["metadata"]["namespace"], one["metadata"]["name"]) for one in pods]
    found = {name: address(*name) for name in names}
    for one, name in zip(pods, names, strict=True):
        if SERVE in one["spec"]["containers"][0]["command"]:
            until_holds(f"{name} listens", partial(_log, *name), lambda said: "serving" in said)
    return found


def _log(namespace: str, name: str) -> str:
    return kubectl.run("logs", "-n", namespace, name).out


def address(namespace: str, name: str) -> str:
    """The address of a pod, once it is ready."""

    def look() -> dict[str, Any]:
        found: dict[str, Any] = kubectl.get("pod", name, "-n", namespace)["status"]
        return found

    def ready(found: dict[str, Any]) -> bool:
        return any(c["type"] == "Ready" and c["status"] == "True" for c in found.get("conditions", []))

    return str(until_holds(f"pod {namespace}/{name} is ready", look, ready)["podIP"])


def settled(look: Any, wanted: Any, seconds: float = 30) -> Any:
    """What `look` gives once it is `wanted`, else what it gave last: policies that were just changed take a moment."""
    deadline = time.monotonic() + seconds
    found = look()
    while found != wanted and time.monotonic() < deadline:
        found = look()
    return found
