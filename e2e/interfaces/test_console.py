"""The console in a real browser before the gateway of the release: logins, an engine's life, a gateway that goes.

What needs no cluster is in tests/browser.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from e2e.shared.engines import Engines
from tools.testkit.browser.chromium import PATIENCE, Tab, chromium, opened
from tools.testkit.browser.console import go, live, log_in, picture
from tools.testkit.cluster import kubectl
from tools.testkit.cluster.installation import Installation
from tools.testkit.cluster.waiting import NAMESPACE, RELEASE_NAMESPACE, gateway_pods, is_ready, until_holds
from tools.testkit.servers.ports import reserved

pytestmark = [pytest.mark.cluster, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]
# A pod has to be scheduled and its kernel to answer, while other tests use the node.
SLOW = 90_000
expect.set_options(timeout=PATIENCE)
CODE = """import itertools, time
print("first line", flush=True)
for n in itertools.count():
    print("step", n, flush=True)
    time.sleep(0.2)
"""
TABLE = "import pandas as pd\nprint('printed')\npd.DataFrame({'city': ['Oslo', 'Rome'], 'people': [717710, 2748109]})"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def tab(browser: Browser, port: int) -> AsyncIterator[Tab]:
    async with opened(browser, f"http://127.0.0.1:{port}") as made:
        yield made


@pytest.fixture
def account() -> Iterator[str]:
    """A service account of the engines' namespace without any right."""
    name = f"console-{uuid.uuid4().hex[:6]}"
    kubectl.must("create", "serviceaccount", name, "-n", NAMESPACE)
    yield name
    kubectl.run("delete", f"serviceaccount/{name}", f"rolebinding/{name}", "-n", NAMESPACE, "--ignore-not-found")


def token_of(account: str, *more: str) -> str:
    """A new token of the account, by the TokenRequest API."""
    return kubectl.must("create", "token", account, "-n", NAMESPACE, *more).strip()


async def test_logins_are_let_in_as_far_as_rbac_goes_or_answered_by_a_sentence(tab: Tab, account: str) -> None:
    tab.seen.expected = "Failed to load resource"
    token = token_of(account)
    alert = tab.page.get_by_role("alert")

    async def send(secret: str) -> None:
        await tab.page.locator("#token").fill(secret)
        await tab.page.keyboard.press("Enter")

    await tab.page.goto(f"{tab.url}/console")
    await tab.page.get_by_label("User name").fill("hadoop")
    await send("LINKIS-WRONG-0123456789")
    await expect(alert).to_contain_text("“Token” is not accepted for this “User name”")
    await tab.page.get_by_label("a token of Kubernetes").check()
    await send(token)
    await expect(alert).to_contain_text("may not create engineconns in namespace")
    await send(f"{token[:-4]}AAAA")
    await expect(alert).to_contain_text("the Bearer token is not accepted by Kubernetes: its signature is wrong")
    # The role that the chart has for people who may only look.
    subject = f"--serviceaccount={NAMESPACE}:{account}"
    kubectl.must("create", "rolebinding", account, "-n", NAMESPACE, "--clusterrole=linkis-ecm-view", subject)
    asking = ("auth", "can-i", "list", "engineconns.linkis.apache.org", "-n", NAMESPACE)
    who = f"--as=system:serviceaccount:{NAMESPACE}:{account}"
    until_holds("the binding counts", lambda: kubectl.run(*asking, who).code, (0).__eq__)
    # Another token: the gateway keeps a refusal for 10 s.
    await send(token_of(account, "--duration=12m"))
    await expect(tab.page.locator(".who")).to_contain_text("(may only look)")
    await expect(tab.page.locator(".count")).to_have_text("0 engines")
    await go(tab, "catalogue")
    await tab.page.get_by_text("engines cannot be started with it").wait_for()
    await tab.page.get_by_role("button", name="Log out").click()
    # A token that was good and is so no more: its account is gone. None can be had that expires within ten minutes.
    late = token_of(account, "--duration=11m")
    await tab.page.get_by_label("a token of Kubernetes").check()
    kubectl.must("delete", "serviceaccount", account, "-n", NAMESPACE)
    await send(late)
    await expect(alert).to_contain_text("not accepted by Kubernetes: it may have expired, get a new one")


async def test_an_engine_is_made_used_and_ended(tab: Tab, browser: Browser, installation: Installation) -> None:
    main = tab.page.locator("main")
    await log_in(tab, "hadoop", token=installation.token, to="overview")
    await live(tab)
    await expect(main).to_contain_text("Engines that hadoop may use.")
    await expect(main).to_contain_text("live engines")

    await go(tab, "catalogue")
    await tab.page.get_by_role("button", name="Start python 3.11", exact=True).click()
    await tab.page.get_by_role("button", name="Start", exact=True).click()
    title = tab.page.locator("h1", has_text="python-hadoop-")
    await title.wait_for()
    name, engine = await title.inner_text(), tab.page.url.partition("#/engine/")[2]
    await expect(tab.page.locator(".title .state")).to_have_text("Idle", timeout=SLOW)
    await tab.page.get_by_text("kernel answered").wait_for()

    await tab.page.get_by_role("link", name="Run code").last.click()
    editor, cell = tab.page.get_by_label("Code", exact=True), tab.page.locator(".cell").first
    await editor.fill(CODE)
    await editor.press("Control+Enter")
    await expect(cell.locator(".out")).to_contain_text("step 3\n")
    await expect(cell.locator(".state")).to_have_text("Running")

    # Meanwhile somebody else sees nothing of it.
    async with opened(browser, tab.url) as other:
        await log_in(other, "eve", token=installation.token)
        await live(other)
        await expect(other.page.locator(".count")).to_have_text("0 engines")
        other.seen.expected = "Failed to load resource"
        await go(other, f"engine/{engine}")
        refusal = other.page.get_by_role("alert").first
        await expect(refusal).to_contain_text("no engine that is known here, or it belongs to another user than eve")
        # What eve asked for is repeated, and that alone.
        assert name not in (await other.page.inner_text("body")).replace(f"{NAMESPACE}/{name}", "")

    await go(tab, f"engine/{engine}?tab=log")
    await tab.page.get_by_label("follow").check()
    log = tab.page.get_by_role("log")
    await expect(log).to_contain_text("first line")
    await expect(log).to_contain_text(re.compile(r"step \d+\n"))
    await picture(tab.page, "log")
    newest = re.findall(r"step (\d+)\n", await log.inner_text())[-1]
    await expect(log).to_contain_text(f"step {int(newest) + 5}\n")

    await go(tab, f"run/{engine}")
    await cell.get_by_role("button", name="Interrupt").click()
    await expect(cell.locator(".state")).to_have_text("Cancelled")
    await editor.fill(TABLE)
    await editor.press("Control+Enter")
    await expect(cell.locator("pre.out")).to_have_text("printed\n")
    await expect(cell.locator("tbody tr").last).to_contain_text("Rome")
    await expect(tab.page.locator(".bar .state")).to_have_text("Idle")
    await picture(tab.page, "run")

    await tab.page.clock.install()
    await go(tab, f"engine/{engine}?tab=usage")
    await tab.page.get_by_text("the curve begins after 10 s").wait_for()
    for _ in range(2):
        async with tab.page.expect_response("**/getResourceUsage?*"):
            await tab.page.clock.fast_forward(5_000)
    await tab.page.get_by_role("heading", name="Cores in use").wait_for()
    await picture(tab.page, "usage")
    await tab.page.get_by_role("tab", name="Summary").click()
    await tab.page.get_by_role("heading", name="Start", exact=True).wait_for()
    await picture(tab.page, "engine")
    await tab.page.get_by_role("button", name="Stop").click()
    await tab.page.get_by_role("button", name="Stop the engine").click()
    await expect(tab.page.locator(".title .state")).to_have_text("Success", timeout=SLOW)
    await tab.page.get_by_role("tab", name="Post-mortem").click()
    await tab.page.get_by_role("cell", name="stdout", exact=True).wait_for()
    await expect(main).to_contain_text("StoppedByUser")
    # Kubernetes's own, which the operator has read.
    events = tab.page.get_by_role("table", name="Events of the pod")
    for reason in ("Scheduled", "Created", "Started"):
        await events.get_by_role("cell", name=reason, exact=True).wait_for()
    await picture(tab.page, "post-mortem")
    await tab.page.get_by_role("tab", name="Log").click()
    await expect(log).to_contain_text("the engine has stopped")


@pytest.mark.release
async def test_a_gateway_that_goes_is_told_and_the_page_recovers_by_itself(
    browser: Browser, installation: Installation, engines: Engines
) -> None:
    with reserved() as held, ExitStack() as way:
        local = way.enter_context(installation.forward(local=held.getsockname()[1]))
        async with opened(browser, f"http://127.0.0.1:{local}") as tab:
            tab.seen.expected = "Failed to load resource"
            await log_in(tab, "hadoop", token=installation.token)
            await live(tab)
            (before,) = gateway_pods()
            before_uid = before["metadata"]["uid"]
            kubectl.must("delete", "pod", before["metadata"]["name"], "-n", RELEASE_NAMESPACE, "--wait=false")
            await expect(tab.page.locator("header .live")).to_have_text("not live: reconnecting")
            sentence = tab.page.locator(".notice.warning")
            await expect(sentence).to_contain_text("The gateway does not answer: it may be starting anew")
            # What happens meanwhile is not missed.
            name = engines.create(engineType="cobol", startTimeout="3s")
            until_holds(
                "another pod of the gateway is ready, and the only one: a forward may lead to one that ends",
                lambda: gateway_pods(leaving=True),
                lambda found: [one["metadata"]["uid"] != before_uid and is_ready(one) for one in found] == [True],
            )
            # A forward ends with its pod. A browser before a Service finds the new one by itself.
            way.close()
            way.enter_context(installation.forward(local=local))
            await live(tab)
            await expect(sentence).to_have_count(0)
            await tab.page.locator(".rows .row", has_text=name).wait_for()
