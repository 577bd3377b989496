"""OpenID Connect with an issuer that nobody here wrote: the cluster's API server, which signs service accounts' tokens.

The gateway runs on this machine as a process of its own, over the same cluster: a gateway of the release takes the API
server's tokens by TokenReview, and one issuer goes one way.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from linkis_ecm.gateway.auth.base import Caller
from linkis_ecm.gateway.auth.oidc import LEEWAY_SECONDS, OidcAuthenticator
from linkis_ecm.gateway.http.errors import Refused
from linkis_ecm.model.users import user_name
from tools.cluster.tools import kubeconfig
from tools.testkit.cluster import kubectl
from tools.testkit.cluster.waiting import until
from tools.testkit.gateway.client import BASE

# The release of the run brings the CRDs, the catalogue and the operator.
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300), pytest.mark.usefixtures("installation")]
NAMESPACE = "ecm-oidc"
AUDIENCE = "linkis-ecm-gateway"
# The least that the API server issues a token for.
TOKEN_SECONDS = 600


def user(account: str) -> str:
    """The Linkis user of a service account of the namespace."""
    return user_name(f"system:serviceaccount:{NAMESPACE}:{account}")


def token(account: str, audience: str = AUDIENCE) -> str:
    """A token by the TokenRequest API."""
    made = kubectl.must(
        "create", "token", account, "-n", NAMESPACE, f"--audience={audience}", f"--duration={TOKEN_SECONDS}s"
    )
    return made.strip()


@dataclass(frozen=True)
class Issuer:
    """The API server as an OpenID Connect issuer; `jwks_url` is where this machine reaches it."""

    issuer: str
    jwks_url: str
    ca_file: Path
    token_file: Path


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuer]:
    folder = tmp_path_factory.mktemp("issuer")
    kubectl.must("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=150s", seconds=180)
    kubectl.must("create", "namespace", NAMESPACE)
    for account in ("ana", "ben", "gateway"):
        kubectl.must("create", "serviceaccount", account, "-n", NAMESPACE)
    discovery = json.loads(kubectl.must("get", "--raw", "/.well-known/openid-configuration"))
    config = yaml.safe_load(kubectl.must("config", "view", "--raw", "--minify", "--flatten"))
    cluster = config["clusters"][0]["cluster"]
    found = Issuer(
        discovery["issuer"], f"{cluster['server']}/openid/v1/jwks", folder / "ca.crt", folder / "gateway.token"
    )
    found.ca_file.write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
    # Every service account may read the issuer's keys, and nobody without a login.
    found.token_file.write_text(kubectl.must("create", "token", "gateway", "-n", NAMESPACE))
    yield found
    kubectl.must("delete", "ec", "--all", "-n", NAMESPACE, "--timeout=90s")
    kubectl.must("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture(scope="module")
def port(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A gateway that takes the API server's JWTs and nothing else."""
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "key").write_text(secrets.token_hex(32))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        local: int = probe.getsockname()[1]
    settings = {
        "KUBECONFIG": str(kubeconfig()), "ECM_NAMESPACE": NAMESPACE, "ECM_WATCH_NAMESPACES": NAMESPACE,
        "ECM_GATEWAY_HOST": "127.0.0.1", "ECM_GATEWAY_PORT": str(local), "ECM_TOKEN_KEY_FILE": str(folder / "key"),
        "ECM_ADMINS": user("boss"), "ECM_OIDC_ISSUER": issuer.issuer, "ECM_OIDC_AUDIENCE": AUDIENCE,
        "ECM_OIDC_JWKS_URL": issuer.jwks_url, "ECM_OIDC_USER_CLAIM": "sub", "ECM_OIDC_CA_FILE": str(issuer.ca_file),
        "ECM_OIDC_TOKEN_FILE": str(issuer.token_file),
    }  # fmt: skip
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "linkis_ecm", "gateway"], env=os.environ | settings, stdout=log, stderr=log
        )

    def ready() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        try:
            return ask(local, "GET", "/readyz", None)[0] == 200
        except OSError:
            return False

    try:
        until("the gateway listens and has read the cluster", ready)
        yield local
        told = (folder / "log").read_text()
        assert "Traceback" not in told, told
        assert f"keys of {issuer.issuer}" in told
    finally:
        process.terminate()
        process.wait(30)


def ask(port: int, verb: str, path: str, bearer: str | None, body: Any = None) -> tuple[int, dict[str, Any]]:
    """One call: the HTTP status, and the Message where it is one."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {bearer}"} if bearer else {})
    try:
        connection.request(verb, path, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        raw = answer.read()
    finally:
        connection.close()
    return answer.status, json.loads(raw) if raw.startswith(b"{") else {}


def test_a_token_for_our_audience_logs_in_and_no_other_does(port: int) -> None:
    listed = f"{BASE}/listEngines"
    good = token("ana")
    assert ask(port, "GET", listed, good)[0] == 200
    head, claims, signature = good.split(".")
    other = token("ben").split(".")
    forged = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    for what, bearer, says in (
        ("another audience", token("ana", "somebody-else"), "audience linkis-ecm-gateway"),
        ("another's claims", f"{head}.{other[1]}.{signature}", "wrong signature"),
        ("half a signature", f"{head}.{claims}.{signature[:20]}", "signature"),
        ("no signature", f"{forged}.{claims}.", "algorithm"),
        ("no claims", f"{head}..{signature}", "is not one that this gateway takes"),
        ("nothing", None, "does not say who is calling"),
    ):
        http_status, message = ask(port, "GET", listed, bearer)
        assert (http_status, message["status"]) == (401, -1), what
        assert says in message["message"], what
        assert not bearer or signature not in message["message"]


def test_an_engine_is_its_service_accounts_and_an_admins(port: int) -> None:
    ana, ben = token("ana"), token("ben")
    http_status, message = ask(
        port, "POST", f"{BASE}/createEngineConnection", ana, {"engineType": "python", "wait": False}
    )
    assert http_status == 200, message
    ticket, name = message["data"]["ticketId"], message["data"]["name"]
    spec = kubectl.get("ec", name, "-n", NAMESPACE)["spec"]
    assert spec["user"] == user("ana")
    assert spec["user"].startswith("ecm_oidc.ana_")
    status = f"{BASE}/getEngineStatus?engineId={ticket}"
    assert ask(port, "GET", status, ana)[0] == 200
    for verb, path, body in (
        ("GET", status, None),
        ("GET", f"{BASE}/getEngineLogs?engineId={ticket}", None),
        ("POST", f"{BASE}/executeCode", {"engineId": ticket, "code": "1+1", "runType": "python"}),
        ("POST", f"{BASE}/terminateEngine", {"engineId": ticket}),
    ):
        http_status, message = ask(port, verb, path, ben, body)
        assert (http_status, message["status"]) == (403, 3), (path, message)
    assert ask(port, "GET", f"{BASE}/listEngines", ben)[1]["data"]["engines"] == []
    kubectl.must("create", "serviceaccount", "boss", "-n", NAMESPACE)
    assert ask(port, "GET", status, token("boss"))[0] == 200, "ECM_ADMINS has its name"
    assert ask(port, "POST", f"{BASE}/terminateEngine", ana, {"engineId": ticket})[0] == 200


@dataclass(frozen=True)
class Sent:
    """A call, as far as an authenticator looks at it."""

    headers: dict[str, str]
    cookies: dict[str, str] = field(default_factory=dict)
    remote: str | None = "127.0.0.1"


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


async def test_a_real_token_counts_until_it_expires(session: aiohttp.ClientSession, issuer: Issuer) -> None:
    sent = Sent({"Authorization": f"Bearer {token('ana')}"})
    clock = [time.time()]
    authenticator = OidcAuthenticator(
        session, issuer=issuer.issuer, audience=AUDIENCE, jwks_url=issuer.jwks_url, user_claim="sub",
        ca_file=str(issuer.ca_file), token_file=str(issuer.token_file), clock=lambda: clock[0],
    )  # fmt: skip
    assert await authenticator.authenticate(sent) == Caller(user("ana"))
    clock[0] += TOKEN_SECONDS - 10
    assert await authenticator.authenticate(sent) == Caller(user("ana"))
    clock[0] += 20 + LEEWAY_SECONDS
    with pytest.raises(Refused, match="has expired") as refused:
        await authenticator.authenticate(sent)
    assert refused.value.status == -1


@pytest.mark.parametrize("missing", ["ca_file", "token_file"])
async def test_keys_cannot_be_fetched_without_the_authority_or_without_the_token(
    session: aiohttp.ClientSession, issuer: Issuer, missing: str
) -> None:
    files = {"ca_file": str(issuer.ca_file), "token_file": str(issuer.token_file)} | {missing: ""}
    authenticator = OidcAuthenticator(
        session, issuer=issuer.issuer, audience=AUDIENCE, jwks_url=issuer.jwks_url, user_claim="sub",
        ca_file=files["ca_file"], token_file=files["token_file"],
    )  # fmt: skip
    with pytest.raises(Refused, match="does not give its keys") as refused:
        await authenticator.authenticate(Sent({"Authorization": f"Bearer {token('ana')}"}))
    assert refused.value.http == 503
