"""The node, the chart and an engine on another machine: `python -m tools.elsewhere`.

Builds the images for the cluster here, boots the machine of `tools.vm` (cgroup v2, every capability, its kernel's parts
as modules) and asks there for what depends on the machine: the node itself, a pod that reaches Services, an engine's
limit, its resize in place, and its end when its memory runs out. Must not repeat what e2e tests hold on any machine.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import typer

from tools.cluster import node, tools
from tools.cluster.layout import Machine
from tools.cluster.paths import cache
from tools.cluster.progress import ClusterError
from tools.testkit.cluster import kubectl
from tools.testkit.cluster.installation import Installation, engines_of, install
from tools.testkit.cluster.waiting import until_state
from tools.testkit.gateway.client import BASE, Gateway, texts
from tools.vm import boot

NAMESPACE = "ecm-elsewhere"
# An emulated processor takes 10 to 20 times as long.
PATIENCE = 1500.0
MIB = 1 << 20
LIMIT = "print(open('/sys/fs/cgroup/memory.max').read())"
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)
_begun = time.monotonic()


def say(text: str) -> None:
    print(f"[{time.monotonic() - _begun:5.0f} s] {text}", flush=True)


def checks(installation: Installation) -> None:
    """What has to be so there; raises AssertionError with what was seen."""
    with installation.forward() as port, Gateway("127.0.0.1", port, installation.token, seconds=PATIENCE) as gateway:
        made = gateway.create(timeoutSeconds=600, resources={"memory": "512Mi"}).data
        say(f"an engine is ready: its agent reached the operator's Service; {made['serviceInstance']}")
        ticket = made["ticketId"]
        assert texts(gateway.execute(ticket, "6*7").data) == "42"
        assert texts(gateway.execute(ticket, LIMIT).data).strip() == str(512 * MIB)
        resized = gateway.request(
            "POST", f"{BASE}/updateResource", {"engineId": ticket, "resources": {"memory": "768Mi"}}
        )  # fmt: skip
        assert resized.ok, resized.message
        assert texts(gateway.execute(ticket, LIMIT).data).strip() == str(768 * MIB)
        say("its memory was raised from 512Mi to 768Mi in place, and its cgroup says so")
        assert gateway.terminate(ticket).ok
        _out_of_memory(gateway)


def _out_of_memory(gateway: Gateway) -> None:
    made = gateway.create(timeoutSeconds=600, resources={"memory": "256Mi"}).data
    ticket = made["ticketId"]
    gateway.execute(ticket, "print('about to grow')")
    gateway.execute(ticket, "x = bytearray(400 << 20); x[::4096] = b'1' * len(x[::4096])")
    found = until_state(made["name"], "Failed", seconds=PATIENCE, namespace=engines_of(NAMESPACE))
    assert found["reason"] == "OOMKilled", found
    assert "The limit is 256Mi" in found["message"], found
    say(f"one whose memory ran out: {found['message']}")
    say(f"what is kept of it: {found['postMortem']}")
    kubectl.must("delete", "ec", made["name"], "-n", engines_of(NAMESPACE), "--timeout=300s", seconds=400)
    lines = gateway.logs(ticket, logType="stdout", fromLine=1, lines=500).data["logs"]
    assert any("about to grow" in line for line in lines), lines
    say("its log can be read after pod and resource are gone")


@app.command()
def there(images: Path) -> None:
    """On the other machine: the node with these images, the chart, the checks, and nothing left behind."""
    found = Machine.detect()
    say(f"{found}; br_netfilter {'was there' if node.BRIDGED.exists() else 'is to be loaded'}")
    assert found.cgroup_v2
    assert found.may_lower_oom_score
    node.PART_SECONDS = PATIENCE
    node.up()
    say("the node is up")
    node.load(images, seconds=PATIENCE)
    installation = install(NAMESPACE, seconds=PATIENCE)
    say("the images are in, the chart is installed")
    checks(installation)
    node.down()
    root = node.layout().root
    assert not root.exists()
    assert node.mounts_under(Path("/proc/self/mountinfo").read_text(), str(root)) == []
    assert not [group for group in Path("/sys/fs/cgroup").iterdir() if group.name in ("kubepods", "k8s.io")]
    assert subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True, timeout=30).stdout == ""
    say("it is down, and left no mount, cgroup, namespace or file")


@app.command()
def here() -> None:
    """Here: builds the images, boots the machine, runs `there` in it."""
    archive = cache() / "vm/images.tar"
    archive.parent.mkdir(parents=True, exist_ok=True)
    try:
        if tools.backend() != "node":
            raise ClusterError("this needs the node built from source", remedy="set CLUSTER=node")
        was_up = tools.is_up()
        tools.up()
        tags = tools.images()
        subprocess.run(node.ctr("images", "export", str(archive), *tags.values()), check=True, timeout=300)
        if not was_up:
            tools.down()
        command = [sys.executable, "-m", "tools.elsewhere", "there", str(archive)]
        code = boot(command, memory=8, cores=2, seconds=3600)
    except ClusterError as error:
        error.show()
        raise typer.Exit(1) from error
    finally:
        archive.unlink(missing_ok=True)
    raise typer.Exit(code)


if __name__ == "__main__":
    app()
