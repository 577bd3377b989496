"""Engines outlive a reinstall and a lost token key, on a real cluster."""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from e2e.shared.engines import Engines
from e2e.shared.release import upgrade
from tools.cluster.tools import helm, kubeconfig
from tools.cluster.tools import kubectl as kubectl_binary
from tools.testkit.cluster import kubectl
from tools.testkit.cluster.installation import RELEASE, Installation, guards, helm_uninstall
from tools.testkit.cluster.waiting import NAMESPACE, RELEASE_NAMESPACE, Gate, status, until_holds, until_state
from tools.testkit.gateway.client import Gateway, texts

pytestmark = [pytest.mark.cluster, pytest.mark.release, pytest.mark.timeout(600)]
# Over the 70 s after which a silent engine is lost.
LONG = 90.0


@pytest.fixture
def engine(engines: Engines) -> str:
    return engines.ready()[0]


def secret_data() -> dict[str, str]:
    data: dict[str, str] = kubectl.get("secret", f"{RELEASE}-auth", "-n", RELEASE_NAMESPACE)["data"]
    return data


def set_key(encoded: str) -> None:
    """The token key as it is in the Secret, and both parts anew."""
    patch = json.dumps({"data": {"token-key": encoded}})
    kubectl.must("patch", "secret", f"{RELEASE}-auth", "-n", RELEASE_NAMESPACE, "--type", "merge", "-p", patch)
    selector = f"app.kubernetes.io/instance={RELEASE}"
    kubectl.must("rollout", "restart", "deployment", "-n", RELEASE_NAMESPACE, "-l", selector)
    for name in ("operator", "gateway"):
        kubectl.must("rollout", "status", f"deployment/{RELEASE}-{name}", "-n", RELEASE_NAMESPACE, "--timeout=120s")


def always(what: str, holds: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert holds(), what
        time.sleep(1)


def works_and_reports(gateway: Gateway, name: str) -> None:
    """The gateway reaches the agent, and the operator takes the agent's reports: it sees the engine at work."""
    gate = Gate()
    with ThreadPoolExecutor(1) as background:
        task = background.submit(gateway.execute, status(name)["ticketId"], f"{gate.code}print(6 * 7)")
        try:
            # While the operator was away, the agent tried ever more seldom.
            until_state(name, "Busy", seconds=120)
        finally:
            gate.open(name)
        assert texts(task.result(60).data) == "42\n"
    assert until_state(name, "Idle")["reason"] == "KernelReady"


def test_a_reinstall_reaches_the_engines_that_ran_on(installation: Installation, engine: str) -> None:
    before, guarded = secret_data(), guards(NAMESPACE)
    assert guarded
    done = helm_uninstall(RELEASE_NAMESPACE)
    assert done.returncode == 0, done.stderr
    kept, guard = secret_data(), guards(NAMESPACE)
    # Before anything is judged: the tests that follow want the release.
    again = upgrade()
    assert kept == secret_data() == before
    assert guard == guards(NAMESPACE) == guarded, "what guards the engine stays, and the new release takes it over"
    manifest = subprocess.run(
        [str(helm()), "get", "manifest", RELEASE, "-n", RELEASE_NAMESPACE, "--kubeconfig", str(kubeconfig())],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    assert before["token-key"] not in manifest
    with again.forward() as port, Gateway("127.0.0.1", port, again.token) as gateway:
        works_and_reports(gateway, engine)


def test_an_engine_whose_key_is_lost_lives_until_it_is_back(installation: Installation, engine: str) -> None:
    key = secret_data()["token-key"]
    try:
        set_key(base64.b64encode(secrets.token_hex(24).encode()).decode())
        seen = until_holds(
            "the mismatch is told", lambda: status(engine), lambda s: s.get("reason") == "KeyMismatch", 60
        )
        (ready,) = [one for one in seen["conditions"] if one["type"] == "Ready"]
        assert (seen["engineState"], ready["status"]) == ("Idle", "False")
        always("it is not ended", lambda: status(engine).get("reason") == "KeyMismatch", LONG)
    finally:
        set_key(key)
    until_holds("it is ready again", lambda: status(engine), lambda s: s.get("reason") == "KernelReady", 60)


# --- the rotation, as the documentation has it

HARDENING = Path(__file__).parents[2] / "docs/security/hardening.md"
LATER = "# when no live engine has the old keyId any more:\n"


def documented() -> tuple[str, str]:
    """The commands of the rotation before and after the wait for old engines, for this release."""
    section = HARDENING.read_text().partition("### Rotate the token key")[2].partition("\n## ")[0]
    block = section.split("```")[1]
    # Names alone: of the Secret, the release, its namespace.
    for written, meant in (
        ("ecm-auth", f"{RELEASE}-auth"), ("upgrade linkis-ecm ", f"upgrade {RELEASE} "),
        ("linkis-ecm-operator", f"{RELEASE}-operator"), ("linkis-ecm-gateway", f"{RELEASE}-gateway"),
        ("RELEASE", RELEASE_NAMESPACE),
    ):  # fmt: skip
        assert written in block
        block = block.replace(written, meant)
    before, later, after = block.partition(LATER)
    assert later, "the documentation says when the second part is for"
    return before, after


def shell(commands: str) -> str:
    path = f"{helm().parent}:{kubectl_binary().parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands], cwd=HARDENING.parents[2],
        env=os.environ | {"KUBECONFIG": str(kubeconfig()), "PATH": path},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_documented_rotation_cuts_no_engine_off(installation: Installation, engine: str) -> None:
    rotate, finish = documented()
    before, enrolled = secret_data(), status(engine)["agentKey"]
    try:
        listed = shell(rotate)
        assert f"{enrolled['keyId']} Idle" in listed
        assert f", the one before {enrolled['keyId']}" in listed
        assert secret_data()["previous-token-key"] == before["token-key"] != secret_data()["token-key"]
        assert secret_data()["tokens.json"] == before["tokens.json"]
        with installation.forward() as port, Gateway("127.0.0.1", port, installation.token) as gateway:
            works_and_reports(gateway, engine)
            assert status(engine)["agentKey"] == enrolled
            made = gateway.create().data
            assert status(made["name"])["agentKey"]["keyId"] != enrolled["keyId"]
            kubectl.must("delete", "ec", engine, "-n", NAMESPACE, "--timeout=60s")
        shell(finish)
        assert set(secret_data()) == set(before)
        rotated = secret_data()
        first = json.loads(shell(f"helm history {RELEASE} -n {RELEASE_NAMESPACE} -o json"))[0]["revision"]
        shell(f"helm rollback {RELEASE} {first} -n {RELEASE_NAMESPACE} --wait")
        assert secret_data() == rotated
        with installation.forward() as port, Gateway("127.0.0.1", port, installation.token) as gateway:
            works_and_reports(gateway, made["name"])
            assert gateway.terminate(made["ticketId"]).ok
    finally:
        # Of a step that failed: the tests that follow want one key, and the values of the release.
        upgrade()
        if "previous-token-key" in secret_data():
            shell(finish)
