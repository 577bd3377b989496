"""What a scraper finds at a real process: every family that the process counts, whichever package counts it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from linkis_ecm.kube.resources import ENGINECONNS, PLUGINS
from linkis_ecm.store.migrate import upgrade
from tools import reference
from tools.cluster.pki import Authority
from tools.testkit.fakes.apiserver import FakeApiServer, write_kubeconfig
from tools.testkit.servers.ports import reserved

# The start of a process takes 2 s here, and ten times as long on a busy machine.
PATIENCE = 60.0
ENGINE = {
    "apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConn", "metadata": {"name": "e", "namespace": "engines"},
    "spec": {"engineType": "python", "user": "hadoop", "desiredState": "Stopped"},
}  # fmt: skip
# The command line, of a process that looks at its certificate's files more often than each 10 s.
LOOKS_OFTEN = (
    "-c",
    "import runpy; from linkis_ecm.gateway import tls; tls.CHECK_SECONDS = 0.05;"
    " runpy.run_module('linkis_ecm', run_name='__main__')",
)
# What the last step of each process's start counts.
STARTED = {
    "gateway": {f'ecm_reflector_lists_total{{resource="{kind.plural}"}}': 1.0 for kind in (ENGINECONNS, PLUGINS)},
    "operator": {"ecm_leading": 1.0},
}


@asynccontextmanager
async def process(
    part: str, folder: Path, start: tuple[str, ...] = ("-m", "linkis_ecm"), **environment: str
) -> AsyncIterator[None]:
    """`python -m linkis_ecm <part>`, ended by SIGTERM."""
    with (folder / f"{part}.log").open("wb") as log:
        started = await asyncio.create_subprocess_exec(
            sys.executable, *start, part, env={**os.environ, **environment}, stdout=log, stderr=log
        )
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                started.send_signal(signal.SIGTERM)
            await asyncio.wait_for(started.wait(), PATIENCE)


@asynccontextmanager
async def gateway(
    folder: Path, port: int, start: tuple[str, ...] = ("-m", "linkis_ecm"), **environment: str
) -> AsyncIterator[None]:
    """A gateway without a database at that port, over an API server without engines."""
    (folder / "key").write_bytes(b"k" * 32)
    async with (
        FakeApiServer().serve() as server,
        process(
            "gateway",
            folder,
            start,
            KUBECONFIG=str(write_kubeconfig(folder / "kubeconfig", server)),
            ECM_TOKEN_KEY_FILE=str(folder / "key"),
            ECM_NAMESPACE="engines",
            ECM_GATEWAY_HOST="127.0.0.1",
            ECM_GATEWAY_PORT=str(port),
            **environment,
        ),
    ):
        yield


async def scrape_until(url: str, wanted: dict[str, float], folder: Path, *, trust: ssl.SSLContext | bool = True) -> str:
    """The text at `url` once it has these samples with these values."""
    text = ""
    connector = aiohttp.TCPConnector(ssl=trust)
    try:
        async with asyncio.timeout(PATIENCE), aiohttp.ClientSession(connector=connector) as session:
            while True:
                with contextlib.suppress(aiohttp.ClientConnectionError):
                    async with session.get(url) as answer:
                        text = await answer.text()
                        assert answer.headers["Content-Type"].startswith("text/plain; version=")
                        if wanted.items() <= samples(text).items():
                            return text
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"{url} has not {wanted}; last:\n{text[:2000]}\n{logs(folder)}")


def logs(folder: Path) -> str:
    """What the process has logged."""
    return "\n".join(log.read_text()[-4000:] for log in folder.glob("*.log"))


def samples(text: str) -> dict[str, float]:
    """Name and labels of each sample, with its value."""
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def families(text: str) -> set[str]:
    """The names of our families, counters with their suffix."""
    found = list(text_string_to_metric_families(text))
    assert not [family.name for family in found if family.name.endswith("_created")]
    names = {f"{family.name}_total" if family.type == "counter" else family.name for family in found}
    return {name for name in names if name.startswith("ecm_")}


@pytest.mark.parametrize("part", ["gateway", "operator"])
async def test_a_process_serves_all_that_it_counts(part: str, tmp_path: Path) -> None:
    key, url = tmp_path / "key", f"sqlite:///{tmp_path}/ecm.sqlite3"
    key.write_bytes(b"k" * 32)
    upgrade(url)
    api = FakeApiServer()
    api.cluster.create(ENGINECONNS, ENGINE, namespace="engines")
    with reserved() as first, reserved() as second:
        port, other = first.getsockname()[1], second.getsockname()[1]
        async with (
            api.serve() as server,
            process(
                part,
                tmp_path,
                KUBECONFIG=str(write_kubeconfig(tmp_path / "kubeconfig", server)),
                ECM_DATABASE_URL=url,
                ECM_TOKEN_KEY_FILE=str(key),
                ECM_ARCHIVE_URL=f"file://{tmp_path}/archive",
                ECM_NAMESPACE="engines",
                ECM_GATEWAY_HOST="127.0.0.1",
                ECM_GATEWAY_PORT=str(port),
                ECM_INSTANCE="ecm:9102",
                ECM_REPORT_URL="http://127.0.0.1:9103",
                ECM_REPORT_PORT=str(other),
                ECM_HEALTH_PORT=str(port),
                ECM_POD_NAMESPACE="engines",
                ECM_CANARY="0",
            ),
        ):
            text = await scrape_until(f"http://127.0.0.1:{port}/metrics", STARTED[part], tmp_path)
    expected = {family.name for family in reference.families()[part]}
    assert families(text) == expected
    found = samples(text)
    for kind in (ENGINECONNS.plural, PLUGINS.plural):
        assert found[f'ecm_kube_requests_total{{code="200",resource="{kind}",verb="list"}}'] >= 1
    assert found["process_resident_memory_bytes"] > 0
    if part == "gateway":
        assert found["ecm_journal_depth"] == found["ecm_journal_dropped_total"] == 0
    else:
        assert found['ecm_reflector_lists_total{resource="pods"}'] == 1
        assert "ecm_sink_depth" in found
        assert 'ecm_queue_depth{controller="engine"}' in found
        assert found['ecm_lease_changes_total{change="gained"}'] == 1


async def test_a_gateway_with_a_certificate_is_scraped_over_https_and_takes_a_renewed_one(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    trust = ssl.create_default_context(cafile=str(authority.pair.certificate))

    def issue() -> dict[str, str]:
        pair = authority.issue("gateway", common_name="gateway", addresses=["127.0.0.1"])
        return {"ECM_TLS_CERT_FILE": str(pair.certificate), "ECM_TLS_KEY_FILE": str(pair.key)}

    with reserved() as first:
        port = first.getsockname()[1]
        async with gateway(tmp_path, port, LOOKS_OFTEN, **issue()):
            url = f"https://127.0.0.1:{port}/metrics"
            await scrape_until(url, STARTED["gateway"], tmp_path, trust=trust)
            issue()
            renewed = {'ecm_gateway_tls_reloads_total{result="success"}': 1.0}
            await scrape_until(url, renewed, tmp_path, trust=trust)


async def test_metrics_with_a_port_of_their_own_are_there_alone(tmp_path: Path) -> None:
    with reserved() as first, reserved() as second:
        port, scraped = first.getsockname()[1], second.getsockname()[1]
        async with (
            gateway(tmp_path, port, ECM_GATEWAY_METRICS_PORT=str(scraped)),
            aiohttp.ClientSession() as session,
        ):
            await scrape_until(f"http://127.0.0.1:{scraped}/metrics", STARTED["gateway"], tmp_path)
            for other, path in ((port, "/metrics"), (scraped, "/healthz"), (scraped, "/api/rest_j/v1/none")):
                async with session.get(f"http://127.0.0.1:{other}{path}") as answer:
                    assert answer.status == 404, (other, path)
            async with session.get(f"http://127.0.0.1:{port}/readyz") as answer:
                assert answer.status == 200


@pytest.mark.parametrize(
    ("certificate", "key", "says"),
    [
        (
            "tls.crt",
            "tls.key",
            "linkis-ecm: ECM_TLS_CERT_FILE tls.crt cannot be read (No such file or directory): mount",
        ),
        ("tls.crt", "", "linkis-ecm: ECM_TLS_KEY_FILE is empty: set it to the other file of the pair, or leave"),
    ],
)
def test_a_gateway_without_a_pair_that_it_can_use_ends_with_one_sentence(
    certificate: str, key: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "key").write_bytes(b"k" * 32)
    done = subprocess.run(
        [sys.executable, "-m", "linkis_ecm", "gateway"],
        env={
            **os.environ,
            "ECM_NAMESPACE": "engines",
            "ECM_TOKEN_KEY_FILE": str(tmp_path / "key"),
            "ECM_TLS_CERT_FILE": certificate,
            "ECM_TLS_KEY_FILE": key,
        },
        capture_output=True, text=True, check=False, timeout=PATIENCE, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(says)
    assert done.stderr.count("\n") == 1


def test_no_family_is_left_to_the_library_s_own_registry() -> None:
    """What is declared without a registry is scraped nowhere."""
    code = (
        "import linkis_ecm.gateway.main, linkis_ecm.controller.operator, prometheus_client;"
        "print([f.name for f in prometheus_client.REGISTRY.collect() if f.name.startswith('ecm')])"
    )
    assert _python(code) == "[]\n"


def _python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
