"""Whom the API server's reviews let in, as whom, and that nobody gets in when it does not answer."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linkis_ecm.gateway.auth import kubernetes as kubernetes_auth
from linkis_ecm.gateway.auth import suspects
from linkis_ecm.gateway.auth.base import Caller
from linkis_ecm.gateway.auth.bearer import MAX_TOKEN
from linkis_ecm.gateway.auth.kubernetes import (
    ADMITTED_SECONDS,
    CACHE_ENTRIES,
    REFUSED_SECONDS,
    KubernetesAuthenticator,
)
from linkis_ecm.gateway.http.errors import Refused
from linkis_ecm.kube.errors import ApiError, Forbidden, ServerError, Throttled, Unauthorized, Unreachable
from linkis_ecm.model import formats
from linkis_ecm.model.users import user_name
from linkis_ecm.process.ports.ratelimit import TokenBuckets
from tools.testkit.clocks import LoopClock
from tools.testkit.gateway.callers import Clock, Sent
from tools.testkit.gateway.harness import PATIENCE

TOKEN = "kube-token-secret-0123456789"
ROBOT = "system:serviceaccount:team-a:note-book"


class FakeReviews:
    """The API server's part of reviews: users by token, rights by (user, verb)."""

    def __init__(self) -> None:
        self.users: dict[str, dict[str, Any]] = {TOKEN: {"username": "alice", "groups": ["dev"]}}
        self.rights = {("alice", "create")}
        self.token_audiences: list[str] | None = None
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.fail: ApiError | None = None
        self.held: asyncio.Event | None = None
        # Somebody waits for an answer that is held.
        self.waiting = asyncio.Event()
        self.at_once = self.most_at_once = 0
        self.answer: Callable[[str], Any] | None = None

    async def create(self, resource: Any, body: dict[str, Any], *, namespace: str | None = None) -> dict[str, Any]:
        assert namespace is None
        assert body["apiVersion"] == resource.api_version
        assert body["kind"] == resource.kind
        spec = body["spec"]
        self.asked.append((resource.path(), spec))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.held is not None:
                self.waiting.set()
                await self.held.wait()
            await asyncio.sleep(0)
        finally:
            self.at_once -= 1
        if self.fail is not None:
            raise self.fail
        if self.answer is not None:
            return self.answer(resource.kind)
        if resource.kind == "TokenReview":
            user = self.users.get(spec["token"])
            if user is None:
                return body | {"status": {"authenticated": False, "error": f"no such token {spec['token']}"}}
            status = {"authenticated": True, "user": user}
            if self.token_audiences is not None:
                status["audiences"] = self.token_audiences
            return body | {"status": status}
        return body | {"status": {"allowed": (spec["user"], spec["resourceAttributes"]["verb"]) in self.rights}}

    def count(self, kind: str) -> int:
        return sum(path.endswith(kind) for path, _ in self.asked)


def sent(token: str = TOKEN) -> Sent:
    return Sent({"Authorization": f"Bearer {token}"})


def new(client: FakeReviews, clock: Clock | None = None, **options: Any) -> KubernetesAuthenticator:
    options = {"namespaces": ("linkis",)} | options
    return KubernetesAuthenticator(client, clock=clock or Clock(1000.0), **options)


async def refused(authenticator: KubernetesAuthenticator, request: Sent) -> Refused:
    with pytest.raises(Refused) as caught:
        await authenticator.authenticate(request)
    return caught.value


async def test_rbac_to_create_engines_admits_a_user_and_impersonation_makes_an_admin() -> None:
    client = FakeReviews()
    assert await new(client).authenticate(sent()) == Caller("alice")
    client.rights.add(("alice", "impersonate"))
    assert await new(client).authenticate(sent()) == Caller("alice", is_admin=True)


async def test_rbac_to_list_engines_admits_a_user_who_may_only_look() -> None:
    client = FakeReviews()
    client.rights = {("alice", "list")}
    assert await new(client).authenticate(sent()) == Caller("alice", read_only=True)
    verbs = [spec["resourceAttributes"]["verb"] for path, spec in client.asked if path.endswith("accessreviews")]
    assert verbs == ["create", "list", "impersonate"]
    # Everybody's engines, and still no change of any.
    client.rights.add(("alice", "impersonate"))
    assert await new(client).authenticate(sent()) == Caller("alice", is_admin=True, read_only=True)
    client.rights.add(("alice", "create"))
    assert (await new(client).authenticate(sent())).read_only is False


async def test_the_reviews_ask_for_the_whole_user_in_the_gateways_namespace() -> None:
    client = FakeReviews()
    client.users[TOKEN] = {"username": "alice", "uid": "u-1", "groups": ["dev"], "extra": {"scopes": ["a"]}}
    await new(client, audiences=()).authenticate(sent())
    attributes = {"namespace": "linkis", "group": "linkis.apache.org", "resource": "engineconns"}
    user = {"user": "alice", "uid": "u-1", "groups": ["dev"], "extra": {"scopes": ["a"]}}
    access = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    assert client.asked == [
        ("/apis/authentication.k8s.io/v1/tokenreviews", {"token": TOKEN}),
        (access, user | {"resourceAttributes": attributes | {"verb": "create"}}),
        (access, user | {"resourceAttributes": attributes | {"verb": "impersonate"}}),
    ]


async def test_impersonation_rights_alone_do_not_admit_a_user() -> None:
    client = FakeReviews()
    client.rights = {("alice", "impersonate")}
    refusal = await refused(new(client), sent())
    assert refusal.status == 3
    assert "create on engineconns.linkis.apache.org" in refusal.sentence


async def test_an_access_review_with_denied_and_allowed_is_denied() -> None:
    client = FakeReviews()
    client.answer = lambda kind: {
        "status": {"authenticated": True, "user": {"username": "alice"}}
        if kind == "TokenReview"
        else {"allowed": True, "denied": True}
    }
    assert (await refused(new(client), sent())).status == 3


async def test_an_unknown_token_is_refused_without_a_word_of_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    refusal = await refused(new(FakeReviews()), sent("unknown-secret"))
    assert refusal.status == -1
    assert "not accepted by Kubernetes" in refusal.sentence
    assert "unknown-secret" not in refusal.sentence + caplog.text


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({}, "has no Bearer token"),
        ({"Authorization": "Basic YTpi"}, "has no Bearer token"),
        ({"Authorization": "Bearer"}, "has no Bearer token"),
        ({"Authorization": "Bearer   "}, "has no Bearer token"),
        ({"Authorization": "Bearer two words"}, "characters that no token has"),
        ({"Authorization": "Bearer \udcff\udcfe"}, "characters that no token has"),
        ({"Authorization": "Bearer a\n"}, "characters that no token has"),
        ({"Authorization": "Bearer " + "a" * (MAX_TOKEN + 1)}, f"more than {MAX_TOKEN}"),
    ],
)
async def test_a_malformed_token_is_refused_without_a_token_review(headers: dict[str, str], says: str) -> None:
    client = FakeReviews()
    refusal = await refused(new(client), Sent(headers))
    assert refusal.status == -1
    assert says in refusal.sentence
    assert len(refusal.sentence) < 200
    assert not client.asked


async def test_a_token_at_the_bound_is_asked_for_and_the_scheme_has_no_case() -> None:
    client = FakeReviews()
    client.users["a" * MAX_TOKEN] = {"username": "alice"}
    assert await new(client).authenticate(Sent({"Authorization": "bearer " + "a" * MAX_TOKEN})) == Caller("alice")


async def test_a_token_has_to_be_meant_for_one_of_the_audiences() -> None:
    client = FakeReviews()
    for audiences in (None, [], ["https://kubernetes"]):
        client.token_audiences = audiences
        refusal = await refused(new(client, audiences=["linkis-ecm"]), sent())
        assert refusal.status == -1
        assert "audience linkis-ecm" in refusal.sentence
    client.token_audiences = ["other", "linkis-ecm"]
    assert await new(client, audiences=["linkis-ecm"]).authenticate(sent()) == Caller("alice")
    assert client.asked[0][1]["audiences"] == ["linkis-ecm"]


@pytest.mark.parametrize(
    "fault",
    [
        Unreachable(f"POST with {TOKEN} reset"),
        ServerError(503, f"reason {TOKEN}", f"a proxy's page with {TOKEN}"),
        Throttled(429, "TooManyRequests", TOKEN),
        Unauthorized(401, "Unauthorized", TOKEN),
        Forbidden(403, "Forbidden", TOKEN),
        ApiError(400, "BadRequest", TOKEN),
    ],
)
async def test_an_api_server_that_does_not_review_lets_nobody_in_and_is_asked_again(
    fault: ApiError, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = FakeReviews()
    client.fail = fault
    authenticator = new(client)
    refusal = await refused(authenticator, sent())
    assert refusal.http == 503
    assert refusal.headers["Retry-After"]
    assert TOKEN not in refusal.sentence + caplog.text
    assert "did not review" in caplog.text
    client.fail = None
    assert await authenticator.authenticate(sent()) == Caller("alice")


@pytest.mark.parametrize("status", [401, 403])
async def test_a_gateway_that_may_not_ask_says_what_it_lacks(status: int) -> None:
    client = FakeReviews()
    client.fail = ApiError(status, "x", "y")
    assert "system:auth-delegator" in (await refused(new(client), sent())).sentence


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {"status": None},
        {"status": "Success"},
        {"status": {"authenticated": True}},
        {"status": {"authenticated": True, "user": "alice"}},
        {"status": {"authenticated": True, "user": {"username": ""}}},
        {"status": {"authenticated": True, "user": {"username": 7}}},
        {"status": {"authenticated": True, "user": {"username": "alice", "groups": "dev"}}},
    ],
)
async def test_an_answer_that_is_no_review_lets_nobody_in(answer: Any) -> None:
    client = FakeReviews()
    client.answer = lambda _: answer
    assert (await refused(new(client), sent())).http == 503


@pytest.mark.parametrize("value", ["true", 1, None])
async def test_only_the_boolean_true_counts_as_authenticated(value: Any) -> None:
    client = FakeReviews()
    client.answer = lambda _: {"status": {"authenticated": value, "user": {"username": "alice"}, "allowed": True}}
    assert (await refused(new(client), sent())).status == -1
    client.answer = lambda _: {"status": {"authenticated": True, "user": {"username": "alice"}, "allowed": value}}
    assert (await refused(new(client), sent())).status == 3


async def test_an_api_server_that_hangs_is_waited_for_no_longer_than_allowed(clock: LoopClock) -> None:
    client = FakeReviews()
    client.held = asyncio.Event()
    authenticator = new(client, seconds=PATIENCE)
    call = asyncio.create_task(refused(authenticator, sent()))
    await client.waiting.wait()
    clock.forward(PATIENCE)
    refusal = await call
    assert refusal.http == 503
    assert "in time" in refusal.sentence
    client.held = None
    assert await authenticator.authenticate(sent()) == Caller("alice")


async def test_an_answer_counts_for_its_time_and_no_longer() -> None:
    client, clock = FakeReviews(), Clock(1000.0)
    authenticator = new(client, clock)
    await authenticator.authenticate(sent())
    client.users.clear()
    clock.now += ADMITTED_SECONDS - 0.1
    assert await authenticator.authenticate(sent()) == Caller("alice")
    clock.now += 0.1
    await refused(authenticator, sent())
    client.users[TOKEN] = {"username": "alice"}
    clock.now += REFUSED_SECONDS - 0.1
    await refused(authenticator, sent())
    assert client.count("tokenreviews") == 2
    clock.now += 0.1
    assert await authenticator.authenticate(sent()) == Caller("alice")


async def test_many_calls_with_one_token_ask_once() -> None:
    client = FakeReviews()
    authenticator = new(client)
    callers = await asyncio.gather(*(authenticator.authenticate(sent()) for _ in range(50)))
    assert set(callers) == {Caller("alice")}
    assert len(client.asked) == 3


async def test_a_cancelled_call_does_not_cancel_the_review_for_others() -> None:
    client = FakeReviews()
    client.held = asyncio.Event()
    authenticator = new(client)
    first, second = (asyncio.create_task(authenticator.authenticate(sent())) for _ in range(2))
    await client.waiting.wait()
    first.cancel()
    await asyncio.sleep(0)
    client.held.set()
    assert await second == Caller("alice")
    assert client.count("tokenreviews") == 1


async def test_a_flood_of_garbage_is_bounded_and_does_not_push_out_the_users() -> None:
    client = FakeReviews()
    authenticator = new(client)
    await authenticator.authenticate(sent())
    for start in range(0, CACHE_ENTRIES + 500, 500):
        garbage = (authenticator.authenticate(sent(f"garbage-{start + i}")) for i in range(500))
        results = await asyncio.gather(*garbage, return_exceptions=True)
        assert all(isinstance(result, Refused) for result in results)
    assert client.most_at_once <= kubernetes_auth.CALLS_AT_ONCE
    assert len(authenticator._refused._entries) == CACHE_ENTRIES
    before = len(client.asked)
    assert await authenticator.authenticate(sent()) == Caller("alice")
    assert len(client.asked) == before


async def test_more_lookups_than_are_bearable_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_auth, "LOOKUPS_AT_ONCE", 1)
    client = FakeReviews()
    client.held = asyncio.Event()
    authenticator = new(client)
    first = asyncio.create_task(authenticator.authenticate(sent()))
    await client.waiting.wait()
    assert (await refused(authenticator, sent("other"))).http == 503
    client.held.set()
    assert await first == Caller("alice")


async def test_tokens_are_not_kept() -> None:
    authenticator = new(FakeReviews())
    await authenticator.authenticate(sent())
    assert list(authenticator._admitted._entries) == [hashlib.sha256(TOKEN.encode()).digest()]


@pytest.mark.parametrize("name", ["alice", "default.bot", "_x", "a" * 40])
def test_a_name_that_linkis_takes_stays_as_it_is(name: str) -> None:
    assert user_name(name) == name


@pytest.mark.parametrize(
    ("name", "begins", "digits"),
    [
        (ROBOT, "team_a.note_book_", 6),
        ("system:serviceaccount:default:a.b", "default.a.b_", 6),
        ("a" * 41, "a" * 19 + "_", 20),
        (f"system:serviceaccount:{'n' * 63}:{'s' * 253}", "n" * 19 + "_", 20),
    ],
)
def test_another_name_gets_a_hash_of_the_whole(name: str, begins: str, digits: int) -> None:
    assert user_name(name) == begins + hashlib.sha256(name.encode()).hexdigest()[:digits]


def test_nobody_can_take_the_name_that_another_is_mapped_to() -> None:
    for name in (ROBOT, "a" * 41):
        assert user_name(user_name(name)) != user_name(name)


@given(st.lists(st.text(min_size=1), unique=True, min_size=2, max_size=2))
def test_every_name_becomes_a_linkis_user_and_different_ones_differ(names: list[str]) -> None:
    first, second = map(user_name, names)
    assert first != second
    for name in (first, second):
        assert len(name) <= formats.USER_MAX
        assert re.fullmatch(formats.USER_PATTERN, name)


def stranger(number: int, remote: str = "10.0.0.9") -> Sent:
    return Sent({"Authorization": f"Bearer garbage-{number}"}, remote=remote)


async def test_one_peers_failed_logins_are_few_and_hurt_nobody_else() -> None:
    """Finding S23: 1100 garbage tokens were 1100 questions to the API server in 2.6 s."""
    client, clock = FakeReviews(), Clock(1000.0)
    authenticator = new(client, clock, failed_per_second=5, failed_burst=50)
    assert await authenticator.authenticate(sent()) == Caller("alice")
    client.asked.clear()
    refusals = [await refused(authenticator, stranger(number)) for number in range(50)]
    assert [refusal.status for refusal in refusals] == [-1] * 50
    # The next ones wait for each other; so many wait, and the rest is refused without a question.
    started = asyncio.get_running_loop().time()
    flood = [asyncio.create_task(refused(authenticator, stranger(number))) for number in range(50, 550)]
    done, waiting = await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
    assert len(client.asked) <= 50 + suspects.OF_A_PEER
    for task in flood[suspects.PEER_CALLS :]:
        refusal = await task
        assert (refusal.http, refusal.limit, refusal.headers["Retry-After"]) == (429, "logins", "1")
    # Who is logged in stays so, at the same address too; others log in.
    same = Sent({"Authorization": f"Bearer {TOKEN}"}, remote="10.0.0.9")
    assert await authenticator.authenticate(same) == Caller("alice")
    assert (await refused(authenticator, stranger(1000, "10.0.0.8"))).status == -1
    # The waiting ones are answered in their turn, 40 a second.
    for task in flood[: suspects.PEER_CALLS]:
        assert (await task).status == -1
    assert len(client.asked) == 50 + suspects.PEER_CALLS + 1
    turns = suspects.PEER_CALLS / suspects.OF_A_PEER - 1
    assert asyncio.get_running_loop().time() - started >= 0.8 * turns * suspects.PAUSE
    clock.now += 1.0
    again = [await refused(authenticator, stranger(number)) for number in range(2000, 2005)]
    assert [refusal.http for refusal in again] == [None] * 5
    del done, waiting


async def test_new_logins_get_in_behind_an_address_that_sends_25_wrong_tokens_a_second() -> None:
    """Finding S43: behind a proxy a stranger's wrong tokens locked everybody out: 6 of 6 right tokens got 429."""
    client = FakeReviews()
    authenticator = new(client, Clock(1000.0), failed_per_second=5, failed_burst=50)
    for number in range(60):  # the bucket is empty, and its clock stands still
        await refused(authenticator, stranger(number))
    loop = asyncio.get_running_loop()
    begin = loop.time()
    wrong, right = [], []
    for number in range(50):
        # At most 25 a second, as the clock says, however late this task runs.
        await asyncio.sleep(max(0.0, begin + number / 25 - loop.time()))
        wrong.append(asyncio.create_task(refused(authenticator, stranger(1000 + number))))
        if number % 5 == 0:
            token = f"right-{number}"
            client.users[token] = {"username": "alice", "groups": []}
            mine = Sent({"Authorization": f"Bearer {token}"}, remote="10.0.0.9")
            right.append(asyncio.create_task(authenticator.authenticate(mine)))
    assert await asyncio.gather(*right) == [Caller("alice")] * 10
    assert {refusal.status for refusal in await asyncio.gather(*wrong)} == {-1}


async def test_a_peer_that_hangs_up_has_its_place_until_its_lookup_ends_and_others_log_in() -> None:
    client = FakeReviews()
    authenticator = new(client, Clock(1000.0), failed_per_second=1, failed_burst=1)
    await refused(authenticator, stranger(0))
    client.held = asyncio.Event()
    calls = [asyncio.create_task(authenticator.authenticate(stranger(number))) for number in range(1, 30)]
    await client.waiting.wait()
    for _ in range(3):
        await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert client.at_once == suspects.OF_A_PEER
    other = asyncio.create_task(authenticator.authenticate(sent()))
    last = asyncio.create_task(refused(authenticator, stranger(99)))
    await asyncio.sleep(0.01)
    assert client.at_once == suspects.OF_A_PEER + 1
    client.held.set()
    assert await other == Caller("alice")
    assert (await last).status == -1
    assert authenticator._suspects._calls <= 1


async def test_logins_that_succeed_do_not_count() -> None:
    client = FakeReviews()
    authenticator = new(client, failed_per_second=1, failed_burst=2)
    for number in range(20):
        client.users[f"token-{number}"] = {"username": "alice", "groups": []}
        assert await authenticator.authenticate(Sent({"Authorization": f"Bearer token-{number}"})) == Caller("alice")
    client.fail = ServerError(500, "InternalError", "down")
    for number in range(20):
        assert (await refused(authenticator, stranger(number))).http == 503


def test_buckets_are_bounded_and_fill_again() -> None:
    clock = Clock()
    buckets = TokenBuckets[int](per_second=2, burst=3, keys=2, clock=clock)
    assert [buckets.take(1) for _ in range(4)] == [0, 0, 0, 0.5]
    clock.now = 0.5
    assert buckets.take(1) == 0
    clock.now = 100
    assert [buckets.take(1) for _ in range(4)] == [0, 0, 0, 0.5]
    for key in range(2, 10):
        buckets.take(key)
    assert len(buckets._buckets) == 2
    clock.now = 0  # a clock that goes back gives and takes nothing
    assert buckets.take(9) == 0
