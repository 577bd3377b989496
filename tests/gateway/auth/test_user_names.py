"""People log in with the names that companies give them, and their engines are theirs under each form of the name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from linkis_ecm.gateway.auth.base import Caller
from linkis_ecm.gateway.auth.tokens import TokenFile
from linkis_ecm.gateway.http.errors import Refused
from tests.gateway.auth.issuer import Issuer, Setup, ask
from tests.gateway.engines.test_linkis import becomes_ready
from tools.testkit.gateway.callers import Sent
from tools.testkit.gateway.harness import TOKEN, Harness

NAMES = {"jane-doe": "jane_x2ddoe", "jane@corp.com": "jane_x40corp.com", "CORP\\bob": "CORP_x5cbob", "Alice": "Alice"}


@pytest.mark.parametrize("name", NAMES)
async def test_an_engine_is_its_users_by_either_form_of_the_name(gw: Harness, name: str) -> None:
    created = await gw.post("createEngineConnection", {"engineType": "python", "wait": False}, user=name)
    assert created.http == 200, created.body
    ((_, _, body),) = gw.cluster.writes
    assert body["spec"]["user"] == NAMES[name]
    for form in (name, NAMES[name]):
        (one,) = (await gw.get("listEngines", user=form)).data["engines"]
        assert (one["user"], one["labelValue"].split(",")[0]) == (NAMES[name], f"{NAMES[name]}-IDE")
    assert (await gw.get("listEngines", user="somebody")).data["engines"] == []
    by_admin = await gw.get("listEngines", {"user": name}, user="root")
    assert [one["user"] for one in by_admin.data["engines"]] == [NAMES[name]]


async def test_an_engine_that_kubectl_made_is_its_users(gw: Harness) -> None:
    engine = gw.engine(spec={"user": "jane@corp.com"})
    found = await gw.get("getEngineStatus", {"engineId": engine["metadata"]["uid"]}, user="jane@corp.com")
    assert found.http == 200, found.body
    stranger = await gw.get("getEngineStatus", {"engineId": engine["metadata"]["uid"]}, user="jane-corp.com")
    assert stranger.http != 200


async def test_linkis_label_of_a_user_with_a_hyphen_is_read(gw: Harness) -> None:
    labels = {"engineType": "python-3.11", "userCreator": "jane-doe-IDE"}
    becomes_ready(gw)
    body = {"labels": labels, "timeout": 5000, "properties": {}}
    answer = await gw.call("POST", "/api/rest_j/v1/linkisManager/createEngineConn", json=body, user="root")
    assert answer.http == 200, answer.body
    (written,) = [body for verb, _, body in gw.cluster.writes if verb == "create"]
    assert (written["spec"]["user"], written["spec"]["creator"]) == ("jane_x2ddoe", "IDE")


@pytest.mark.parametrize("field", ["creator", "engineVersion"])
async def test_a_hyphen_in_another_part_of_the_label_is_refused_with_linkis_reason(gw: Harness, field: str) -> None:
    refused = await gw.post("createEngineConnection", {"engineType": "python", field: "my-app"})
    assert refused.http == 400
    assert "Linkis writes it into a label and splits that at '-'" in refused.body["message"]


async def test_a_tokens_users_may_be_written_in_either_form(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(json.dumps({TOKEN: {"users": ["jane-doe", "bob_x40corp.com"]}}))
    authenticator = TokenFile(str(path), admins=frozenset({"jane_x2ddoe"}))
    for user, found in {
        "jane-doe": Caller("jane_x2ddoe", is_admin=True), "jane_x2ddoe": Caller("jane_x2ddoe", is_admin=True),
        "bob@corp.com": Caller("bob_x40corp.com"),
    }.items():  # fmt: skip
        assert await authenticator.authenticate(Sent({"Token-Code": TOKEN, "Token-User": user})) == found
    for user in ("jane_doe", "jane.doe", "bob@corp.org"):
        with pytest.raises(Refused, match="not accepted"):
            await authenticator.authenticate(Sent({"Token-Code": TOKEN, "Token-User": user}))


async def test_a_providers_name_is_never_taken_for_a_mapped_one(setup: Setup, issuer: Issuer) -> None:
    """Whoever may choose a name at the provider must not become another user by it."""
    for name, user in NAMES.items():
        assert (await ask(setup.new(), issuer.token(preferred_username=name))).user == user
        if user != name:
            other = await ask(setup.new(), issuer.token(preferred_username=user))
            assert other.user not in NAMES.values()
    admin = await ask(
        setup.new(user_claim="email", admins=frozenset({"jane_x40corp.com"})), issuer.token(email="jane@corp.com")
    )
    assert admin == Caller("jane_x40corp.com", is_admin=True)
