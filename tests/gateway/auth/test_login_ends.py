"""Each way to log in says when the login ends by itself, so that long answers end with it."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import pytest

from linkis_ecm.gateway.auth.oidc import LEEWAY_SECONDS
from linkis_ecm.gateway.auth.tokens import TokenFile
from linkis_ecm.process.jwt import end_of
from tests.gateway.auth.issuer import NOW, Issuer, Setup, ask
from tests.gateway.auth.test_kubeauth import FakeReviews, new
from tools.testkit.gateway.callers import Sent
from tools.testkit.gateway.harness import BOB_TOKEN, TOKEN


async def test_of_linkis_tokens(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    ends = {TOKEN: {"users": ["*"], "expires": "2099-01-01T00:00:00Z"}, BOB_TOKEN: {"users": ["*"]}}
    path.write_text(json.dumps(ends))
    tokens = TokenFile(str(path))
    found = [await tokens.authenticate(Sent({"Token-Code": code, "Token-User": "bob"})) for code in ends]
    assert [caller.expires for caller in found] == [4_070_908_800.0, math.inf]


async def test_of_an_issuers_tokens(setup: Setup, issuer: Issuer) -> None:
    assert (await ask(setup.new(), issuer.token(exp=NOW + 300))).expires == NOW + 300 + LEEWAY_SECONDS


@pytest.mark.parametrize(("claims", "ends"), [({"exp": NOW + 300}, NOW + 300), ({}, math.inf), (None, math.inf)])
async def test_of_kubernetes_tokens(claims: dict[str, Any] | None, ends: float) -> None:
    part = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    token = "opaque-0123456789" if claims is None else f"e30.{part}.c2ln"
    client = FakeReviews()
    client.users[token] = {"username": "alice", "groups": []}
    caller = await new(client).authenticate(Sent({"Authorization": f"Bearer {token}"}))
    assert caller.expires == ends


@pytest.mark.parametrize("written", [None, "1", [], math.nan, math.inf, -math.inf, 1e300, 10**400])
def test_what_is_no_time_is_no_end(written: Any) -> None:
    assert end_of({"exp": written}) == math.inf
