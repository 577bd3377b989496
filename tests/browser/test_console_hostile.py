"""What an engine's agent, an author or a proxy sends in another form than agreed: the page says so, and goes on."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from playwright.async_api import Page, Route, expect

from tools.testkit.browser.chromium import PATIENCE, Tab
from tools.testkit.browser.console import findings, go, live, log_in
from tools.testkit.gateway.harness import Harness

pytestmark = pytest.mark.asyncio(loop_scope="module")
expect.set_options(timeout=PATIENCE)
# U+202E turns the direction of what follows.
TURNED = "safe\u202etxt.exe"
ESCAPES = "\x1b]0;title\x07 \x1b[31mred\x1b[0m \x1b[2Jcleared \x7f\x85\r"
SEEN = "safe<U+202E>txt.exe␛]0;title␇ red ␛[2Jcleared ␡<U+0085>␍"
SHAPES: list[tuple[Any, str]] = [
    ({"type": "text"}, "no form for"),
    ({"type": "text", "text": ["a"]}, "no form for"),
    ({"type": "table"}, "no form for"),
    ({"type": "table", "columns": [None], "rows": []}, "no form for"),
    ({"type": "table", "columns": [{"name": "n"}], "rows": [None]}, "no form for"),
    ({"type": "table", "columns": [{"name": "n"}], "rows": [[{"a": None}]], "totalRows": "many"}, '{"a":null}'),
    ({"type": "picture", "mime": "image/png"}, "no form for"),
    ({"type": "html", "text": None}, "no form for"),
    ({"type": "error", "name": "E", "value": "v", "traceback": "one text"}, "one text"),
    ({"type": "error", "name": None, "value": {"a": 1}, "traceback": [None, "second"]}, "second"),
    ({"type": "__proto__"}, "no form for"),
    ({"type": None}, "no form for"),
    ("a text", "no form for"),
    ([1], "no form for"),
]


async def answer(page: Page, method: str, data: Any) -> None:
    """The gateway's answer to a method is this one from now on."""
    body = json.dumps({"method": f"/api/{method}", "status": 0, "message": "", "data": data})

    async def send(route: Route) -> None:
        await route.fulfill(body=body, content_type="application/json")

    await page.route(f"**/{method}*", send)


async def stream(page: Page, method: str, *events: tuple[str, Any]) -> None:
    body = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events)

    async def send(route: Route) -> None:
        await route.fulfill(body=body, content_type="text/event-stream")

    await page.route(f"**/{method}*", send)


async def run(tab: Tab, gw: Harness, *events: tuple[str, Any]) -> None:
    """Runs code whose task's stream is this one."""
    engine = gw.engine(name="python-alice-shapes")
    await answer(tab.page, "executeCode", {"taskId": "t1", "status": "Accepted"})
    await stream(tab.page, "taskEvents", *events)
    await log_in(tab, to=f"run/linkis/{engine['metadata']['name']}")
    await live(tab)
    await tab.page.get_by_label("Code", exact=True).fill("1")
    await tab.page.keyboard.press("Control+Enter")


async def test_outputs_of_a_wrong_form_are_shown_as_they_came(tab: Tab, gw: Harness) -> None:
    outputs = [("output", {"index": at, "output": output}) for at, (output, _) in enumerate(SHAPES)]
    hostile: list[tuple[str, Any]] = [
        ("status", None), ("status", {"status": {"a": 1}, "progress": "x", "message": [1]}), ("output", None),
        ("output", {"index": -1, "output": {"type": "text", "text": "never"}}), ("output", {"index": 99}),
    ]  # fmt: skip
    await run(tab, gw, *hostile, *outputs, ("end", {"status": "Succeed", "endedAt": "x", "startedAt": None}))
    cell = tab.page.locator(".cell")
    await expect(cell.locator(".state")).to_have_text("Succeed")
    shown = cell.locator(".out")
    for at, (_, text) in enumerate(SHAPES):
        await expect(shown.nth(at)).to_contain_text(text)
    await expect(cell.locator(".out")).to_have_count(len(SHAPES) + 1)
    assert "never" not in await cell.inner_text()
    assert await findings(tab.page) == []
    # The page goes on.
    await go(tab, "catalogue")
    await tab.page.get_by_role("button", name="Start python 3.11").wait_for()


async def test_signs_that_a_terminal_obeys_or_that_turn_a_text_are_seen_in_outputs(tab: Tab, gw: Harness) -> None:
    text = TURNED + ESCAPES
    parts = [
        {"type": "text", "text": text}, {"type": "error", "name": text, "value": text, "traceback": [text]},
        {"type": "table", "columns": [{"name": text}], "rows": [[text]]}, {"type": "html", "text": text},
        {"type": text},
    ]  # fmt: skip
    outputs = [("output", {"index": at, "output": one}) for at, one in enumerate(parts)]
    await run(
        tab, gw, ("status", {"status": "Running", "progressMessage": text}), *outputs, ("end", {"status": "Failed"})
    )
    cell = tab.page.locator(".cell")
    await expect(cell.locator(".state")).to_have_text("Failed")
    await expect(cell.locator("pre.out").first).to_contain_text(
        "safe<U+202E>txt.exe␛]0;title␇ red ␛[2Jcleared ␡<U+0085>␍"
    )
    raw = await tab.page.locator("main").evaluate("(one) => one.textContent")
    assert not [sign for sign in raw if sign in "\u202e\x1b\x7f\x85\r"]


async def test_a_log_shows_them_too_and_what_is_no_line_is_none(tab: Tab, gw: Harness) -> None:
    gw.engine(name="python-alice-log")
    lines = [TURNED, ESCAPES, None, {"a": 1}, "the last line"]
    await answer(tab.page, "getEngineLogs", {"logs": lines, "endLine": 5, "rows": 5, "logPath": "x"})
    await log_in(tab, to="engine/linkis/python-alice-log?tab=log")
    log = tab.page.get_by_role("log")
    await expect(log).to_contain_text("safe<U+202E>txt.exe")
    await expect(log).to_contain_text("␛[2Jcleared")
    await expect(log).to_contain_text("the last line")
    await tab.page.get_by_label("Only lines with").fill("last")
    await tab.page.keyboard.press("Enter")
    await expect(log.locator("mark")).to_have_text("last")
    await answer(tab.page, "getEngineLogs", {"logs": "no list", "endLine": 5, "rows": 5})
    await tab.page.get_by_role("button", name="First lines").click()
    await expect(log).to_have_text("")


BUNDLE = {"bundle": {}, "attempts": [], "attempt": 0, "missing": [], "files": {}}


@pytest.mark.parametrize(
    ("method", "data", "name"),
    [
        ("getPostMortem", BUNDLE | {"bundle": {"pod": {"conditions": [None]}}}, "Post-mortem"),
        ("getPostMortem", BUNDLE | {"bundle": {"events": [None]}}, "Post-mortem"),
        ("getPostMortem", BUNDLE | {"missing": None, "bundle": {}}, "Post-mortem"),
        ("getPostMortem", {"bundle": None}, "Post-mortem"),
        ("getResourceUsage", {"requested": {}, "used": {"memoryBytes": 1, "cpuSeconds": "5"}}, "Usage"),
        ("listTasks", {"tasks": [None]}, "Tasks"),
        ("explainEngine", {}, "Summary"),
        ("listTransitions", {"transitions": [None]}, "Summary"),
    ],
)  # fmt: skip
async def test_a_pane_that_cannot_be_shown_says_so_and_the_others_go_on(
    tab: Tab, gw: Harness, method: str, data: Any, name: str
) -> None:
    gw.engine(name="python-alice-pane")
    tab.seen.expected = "Failed to load resource"  # engines without an agent
    await answer(tab.page, method, data)
    await log_in(tab, to="engine/linkis/python-alice-pane?tab=log")
    await tab.page.get_by_role("tab", name=name).click()
    await expect(tab.page.get_by_role("alert").first).to_contain_text("This part cannot be shown")
    await tab.page.get_by_role("tab", name="Log").click()
    await tab.page.get_by_label("Only lines with").wait_for()


async def test_a_proxys_page_instead_of_the_stream_is_said_and_asked_for_rarely(tab: Tab) -> None:
    """Its login has ended, so each address answers 200 with its page."""
    await tab.page.clock.install()
    await log_in(tab)
    await live(tab)
    calls = 0

    async def proxy(route: Route) -> None:
        nonlocal calls
        calls += 1
        await route.fulfill(body="<html>\n\nLog in\n\n</html>", content_type="text/html")

    await tab.page.route("**/api/**", proxy)
    await go(tab, "catalogue")
    await expect(tab.page.get_by_role("alert")).to_contain_text("A page came instead of the gateway's answer")
    await tab.page.evaluate("location.hash = '#/engines'")
    # The stream ends as the tab is hidden, and the next one is the proxy's.
    calls = 0
    await hide(tab.page)
    warning = tab.page.locator(".notice.warning")
    await expect(warning).to_contain_text("A page came instead of the gateway's answer")
    await expect(tab.page.locator("header .live")).to_have_text("not live: reconnecting")
    for _ in range(60):
        await tab.page.clock.run_for(1_000)
    assert 1 < calls < 10, calls


async def hide(page: Page) -> None:
    """The tab is hidden long enough to lose its stream, and seen again."""
    turn = """(hidden) => {
      Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    await page.evaluate(turn, True)
    await page.clock.fast_forward(21_000)
    await page.evaluate(turn, False)


ALL = {"reset": True, "live": True, "gone": [], "rows": []}


@pytest.mark.parametrize(
    ("events", "sentence"),
    [
        ([], "broke off"),
        ([("engines", ALL)], "broke off"),
        ([("engines", ALL), ("end", {})], "ends as soon as it begins"),
        ([("end", {})], "ends as soon as it begins"),
    ],
)
async def test_a_stream_that_ends_at_once_is_asked_for_rarely(
    tab: Tab, events: list[tuple[str, Any]], sentence: str
) -> None:
    await tab.page.clock.install()
    await stream(tab.page, "watchEngines", *events)
    await log_in(tab)
    await expect(tab.page.locator(".notice.warning")).to_contain_text(sentence)
    tab.seen.requests.clear()
    for _ in range(60):
        await tab.page.clock.run_for(1_000)
    calls = [url for url in tab.seen.requests if "watchEngines" in url]
    assert 1 < len(calls) < 10, len(calls)
    await tab.page.unroute_all()
    await tab.page.clock.fast_forward(40_000)
    await live(tab)


async def test_a_tasks_stream_that_ends_at_once_is_given_up_with_a_sentence(tab: Tab, gw: Harness) -> None:
    await tab.page.clock.install()
    await run(tab, gw)
    for _ in range(30):
        await tab.page.clock.run_for(1_000)
    await expect(tab.page.locator(".cell").get_by_role("alert")).to_contain_text("The task's stream broke off")
    assert len([url for url in tab.seen.requests if "taskEvents" in url]) == 5


async def test_a_ticket_that_an_author_took_leads_to_nobody_elses_engine(tab: Tab, gw: Harness) -> None:
    """The operator has not looked at the second one yet, so its ticket is only what its author wrote."""
    first = gw.engine(name="python-alice-first")
    unproven = {"engineState": "Starting", "reason": "", "startup": None, "serviceInstance": None, "address": None}
    taken = gw.engine(
        name="python-alice-taken", spec={"ticketId": first["metadata"]["uid"]}, status=unproven,
        metadata={"creationTimestamp": "2020-01-01T00:00:00Z"},
    )  # fmt: skip
    tab.seen.expected = "Failed to load resource"
    try:
        await log_in(tab, to="engines?q=python-alice-taken")
        await tab.page.get_by_role("link", name="python-alice-taken").click()
        await tab.page.locator("h1", has_text="python-alice-taken").wait_for()
        await expect(tab.page.locator(".title .state")).to_have_text("Starting")
        await go(tab, f"run/{first['metadata']['uid']}")
        await expect(tab.page.get_by_label("Engine")).to_have_value("linkis/python-alice-first")
        await go(tab, "engines?q=python-alice-taken")
        await go(tab, "engine/linkis/python-alice-taken")
        await tab.page.locator("h1", has_text="python-alice-taken").wait_for()
        gw.cluster.drop(taken)
        # Its ticket is another engine's, and is asked for in vain, or not at all.
        gone = re.compile("its ticket is another engine's|no engine that is known here")
        await expect(tab.page.get_by_role("alert").first).to_contain_text(gone)
        await expect(tab.page.locator("h1")).to_have_text("python-alice-taken")
    finally:
        gw.cluster.drop(first)


async def test_who_holds_an_engine_and_until_when_is_shown(tab: Tab, gw: Harness) -> None:
    rows = [row("one", "2035-01-01T00:00:00Z"), row("two", None), row("three", "2020-01-01T00:00:00Z")]
    await stream(tab.page, "watchEngines", ("engines", ALL | {"rows": rows}))
    await log_in(tab, to="engines?sort=name")
    cells = tab.page.locator(".rows .c-status")
    await expect(cells).to_have_count(3)
    found = {
        await cells.nth(at).locator("..").locator(".c-name").inner_text(): (
            await cells.nth(at).inner_text(), await cells.nth(at).get_attribute("title") or "",
        )
        for at in range(3)
    }  # fmt: skip
    assert found["three"] == ("Idle", "")
    assert found["two"] == ("Idle, held", "held, and no time ends it")
    text, title = found["one"]
    assert (text, title[:15]) == ("Idle, held", "held until 2035")


def row(name: str, until: str | None) -> dict[str, Any]:
    return {
        "engineId": name, "namespace": "linkis", "name": name, "status": "Idle", "since": None, "reason": "",
        "message": "",
        "available": True, "claim": {"by": "x", "until": until}, "stopping": False, "engineType": "python",
        "engineVersion": "3.11", "user": "alice", "creator": "IDE", "tenant": "", "labelValue": "", "labels": {},
        "serviceInstance": name, "ecmInstance": "", "node": None, "attempt": 0, "cpuMilli": 0, "memoryBytes": 0,
        "created": "2026-01-01T00:00:00Z", "readyMillis": None, "nextCullAt": None,
    }  # fmt: skip
