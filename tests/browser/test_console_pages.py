"""Pages of the console before a gateway in memory: what their addresses keep, where the focus goes, what is said of an
ended engine, and what is never shown."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from aiohttp import web
from playwright.async_api import Route, expect

from linkis_ecm.archive.bundles import BUNDLE
from tools.testkit.browser.chromium import PATIENCE, Tab
from tools.testkit.browser.console import findings, go, live, log_in
from tools.testkit.gateway.harness import Harness

pytestmark = pytest.mark.asyncio(loop_scope="module")
expect.set_options(timeout=PATIENCE)
FOCUSED = "document.activeElement.textContent.trim()"
ADVICE = "work on less data at a time"


def task_of(number: int) -> dict[str, Any]:
    return {
        "taskId": f"task-{number}", "status": "Succeed", "acceptedAt": 1e9 + number, "startedAt": 1e9 + number,
        "endedAt": 1e9 + number, "progress": 1.0, "progressMessage": "", "firstLine": f"<b>number</b> = {number}",
    }  # fmt: skip


async def test_tabs_tasks_and_windows_of_a_log_are_in_the_address_and_back_undoes_them(tab: Tab, gw: Harness) -> None:
    async def agent(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/lines"):
            return web.json_response({"logs": [request.query_string] * 500, "endLine": 500, "rows": 500})
        if request.path.endswith("/tasks"):
            return web.json_response({"tasks": [task_of(2), task_of(1)]})
        if "/tasks/" in request.path:
            return web.json_response(task_of(1) | {"outputs": []})
        return web.json_response({"state": "Idle", "attempt": 0, "sequence": 1})

    _, item = await gw.served(agent, name="python-alice-kept")
    try:
        uid = item["metadata"]["uid"]
        tab.seen.expected = "Failed to load resource"
        await log_in(tab, to=f"engine/{uid}")
        await expect(tab.page).to_have_title("python-alice-kept – linkis-ecm")
        await tab.page.get_by_role("tab", name="Tasks").click()
        assert tab.page.url.endswith(f"#/engine/{uid}?tab=tasks")
        await expect(tab.page.get_by_role("row", name="task-1")).to_contain_text("<b>number</b> = 1")
        await tab.page.get_by_role("button", name="task-1").click()
        await tab.page.get_by_role("heading", name="Task task-1").wait_for()
        assert tab.page.url.endswith("?tab=tasks&task=task-1")
        await tab.page.go_back()
        await tab.page.get_by_role("heading", name="Task task-1").wait_for(state="detached")
        await tab.page.go_forward()
        await tab.page.get_by_role("heading", name="Task task-1").wait_for()
        await tab.page.get_by_role("tab", name="Log").click()
        await tab.page.get_by_role("button", name="Earlier").click()
        log = tab.page.get_by_role("log")
        await expect(log).to_contain_text("fromLine=501")
        await tab.page.get_by_role("combobox", name="Log").select_option("stderr")
        await expect(log).to_contain_text("fromLine=1&")
        assert "log=stderr" in tab.page.url
        await tab.page.go_back()
        await expect(log).to_contain_text("fromLine=501")
        # A link, while the page is open, is followed.
        await go(tab, f"engine/{uid}?tab=tasks")
        await expect(tab.page.get_by_role("tab", name="Tasks")).to_have_attribute("aria-selected", "true")
        # And after a login its page is there again.
        await log_in(tab, to=f"engine/{uid}?tab=log&line=3&find=a%2Cb")
        await expect(log).to_contain_text("fromLine=3")
        await expect(tab.page.get_by_label("Only lines with")).to_have_value("a,b")
        await log_in(tab, to=f"engine/{uid}?tab=nonsense&line=nonsense&log=..%2Fx")
        await expect(tab.page.get_by_role("tab", name="Summary")).to_have_attribute("aria-selected", "true")
    finally:
        # The page would ask for an engine that goes.
        await tab.page.goto("about:blank")
        gw.cluster.drop(item)


async def test_the_lists_filters_follow_links_and_back(tab: Tab, gw: Harness) -> None:
    items = [
        gw.engine(name=f"python-alice-{state.lower()}", status={"engineState": state}) for state in ("Busy", "Idle")
    ]
    try:
        await log_in(tab)
        await live(tab)
        count = tab.page.locator(".count")
        await expect(count).to_have_text("2 engines")
        await tab.page.get_by_role("group", name="States").get_by_role("button", name="Busy").click()
        await expect(count).to_have_text("1 of 2 engines")
        await tab.page.go_back()
        await expect(count).to_have_text("2 engines")
        await go(tab, "engines?q=idle")
        await expect(tab.page.get_by_label("Filter engines")).to_have_value("idle")
        await expect(count).to_have_text("1 of 2 engines")
        # Letters that come quicker than pages are drawn are all kept.
        field = tab.page.get_by_label("Filter engines")
        await field.fill("")
        await field.press_sequentially("python-alice-busy" * 5)
        await expect(field).to_have_value("python-alice-busy" * 5)
        # The address follows the field, and may come after it.
        await tab.page.wait_for_url(lambda url: url.endswith(f"q={'python-alice-busy' * 5}"))
        await tab.page.get_by_role("link", name="Engines", exact=True).click()
        await expect(tab.page.get_by_label("Filter engines")).to_have_value("")
        await expect(count).to_have_text("2 engines")
    finally:
        for item in items:
            gw.cluster.drop(item)


async def test_a_search_shows_no_former_answer_and_says_what_a_comma_does(tab: Tab, gw: Harness) -> None:
    answered = asyncio.Event()

    async def agent(request: web.Request) -> web.StreamResponse:
        if not request.path.endswith("/lines"):
            return web.json_response({"state": "Idle", "attempt": 0, "sequence": 1})
        if not request.query.get("onlyKeywords"):
            return web.json_response({"logs": ["of before"], "endLine": 1, "rows": 1})
        await answered.wait()
        return web.json_response({"logs": ["one, two"], "endLine": 1, "rows": 1})

    _, item = await gw.served(agent, name="python-alice-slow")
    try:
        await log_in(tab, to=f"engine/{item['metadata']['uid']}?tab=log")
        log, pager = tab.page.get_by_role("log"), tab.page.locator(".pager")
        await expect(log).to_have_text("of before\n")
        await expect(pager).to_contain_text("the last line")
        assert await tab.page.get_by_role("combobox", name="Log").locator("option").all_inner_texts() == [
            "stdout",
            "stderr",
        ]
        await tab.page.get_by_label("Only lines with").fill("one, two")
        await tab.page.get_by_text("A comma separates words: lines with “one” or “two”").wait_for()
        await tab.page.keyboard.press("Enter")
        await expect(pager).to_contain_text("Searching …")
        await expect(log).to_have_attribute("aria-busy", "true")
        await expect(log).to_have_text("")
        assert await findings(tab.page) == []
        answered.set()
        await expect(log).to_have_text("one, two\n")
        await expect(log).to_have_attribute("aria-busy", "false")
        await expect(pager).to_contain_text("1 line with “one” or “two” in lines 1 to 1")
        assert await log.locator("mark").all_inner_texts() == ["one", "two"]
    finally:
        # The page would ask for an engine that goes.
        await tab.page.goto("about:blank")
        gw.cluster.drop(item)


async def test_the_focus_goes_back_where_it_was_after_a_dialog(tab: Tab, gw: Harness) -> None:
    item = gw.engine(name="python-alice-focus")
    try:
        tab.seen.expected = "Failed to load resource"
        await log_in(tab, to=f"engine/{item['metadata']['uid']}")
        for name in ("Stop", "Restart kernel"):
            for leave in ("Escape", "Cancel"):
                await tab.page.get_by_role("button", name=name, exact=True).click()
                await tab.page.get_by_role("dialog").wait_for()
                if leave == "Escape":
                    await tab.page.keyboard.press("Escape")
                else:
                    await tab.page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
                await expect(tab.page.get_by_role("dialog")).to_have_count(0)
                assert await tab.page.evaluate(FOCUSED) == name
        await tab.page.get_by_role("button", name="Stop", exact=True).click()
        await tab.page.get_by_role("button", name="Stop the engine").click()
        await tab.page.get_by_text("It is being stopped.").wait_for()
        # The button is gone: the reader is at the page's beginning.
        await expect(tab.page.locator("main")).to_be_focused()
        await go(tab, "catalogue")
        start = tab.page.get_by_role("button", name="Start python 3.11")
        await start.click()
        await tab.page.keyboard.press("Escape")
        await expect(start).to_be_focused()
    finally:
        # The page would ask for an engine that goes.
        await tab.page.goto("about:blank")
        gw.cluster.drop(item)


async def test_a_stop_says_how_long_a_task_may_go_on_and_can_interrupt_it(tab: Tab, gw: Harness) -> None:
    asked: list[str] = []

    async def agent(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.json_response({"state": "Busy", "attempt": 0, "sequence": 1})

    _, item = await gw.served(agent, name="python-alice-busy", status={"engineState": "Busy"})
    try:
        await log_in(tab, to=f"engine/{item['metadata']['uid']}")
        await tab.page.get_by_role("button", name="Stop", exact=True).click()
        dialog = tab.page.get_by_role("dialog")
        await expect(dialog).to_contain_text("may go on for its plugin's stopGrace (30 s unless")
        assert await findings(tab.page) == []
        await dialog.get_by_role("button", name="Interrupt its task and stop").click()
        await tab.page.get_by_text("It is being stopped.").wait_for()
        assert any("interrupt" in path for path in asked)
    finally:
        # The page would ask for an engine that goes.
        await tab.page.goto("about:blank")
        gw.cluster.drop(item)


async def test_an_ended_engine_says_its_advice_once_and_shows_what_is_kept_and_no_zeros(tab: Tab, gw: Harness) -> None:
    message = (
        "The engine used more memory than its limit and was killed. The limit is 1024 MiB."
        f" Ask for more spec.resources.memory, or {ADVICE}."
    )
    status = {"engineState": "Failed", "reason": "OOMKilled", "message": message, "address": ""}
    item = gw.engine(name="python-alice-dead", status=status | {"usage": {"memoryPeakBytes": 1 << 30}})
    bundle = {
        "reason": "OOMKilled", "message": message, "podName": "dead-0", "lastReport": "2026-11-27T10:00:00Z",
        "usage": {"memoryBytes": 900 << 20, "memoryPeakBytes": 1 << 30, "cpuSeconds": 12.0},
        "execution": {"id": "t", "started": 1.0, "code": "frame = <b>read</b>()\nframe * 2"},
    }  # fmt: skip
    await gw.archive.put(item["metadata"]["uid"], 0, BUNDLE, json.dumps(bundle).encode())
    await gw.archive.put(item["metadata"]["uid"], 0, "gc", b"a pause\n")
    await gw.archive.put(item["metadata"]["uid"], 0, "stdout", b"printed\n")
    bare = gw.engine(name="python-alice-bare", status=status)
    try:
        await log_in(tab, to=f"engine/{item['metadata']['uid']}")
        main = tab.page.locator("main")
        await tab.page.get_by_role("heading", name="States").wait_for()
        await tab.page.get_by_role("heading", name="Conditions").or_(tab.page.get_by_text("Restarts:")).first.wait_for()
        shown = await main.inner_text()
        assert shown.count(ADVICE) == 1, shown
        assert "spec.resources" not in shown
        assert "Ask for more “Memory”" in shown
        await tab.page.get_by_role("tab", name="Usage").click()
        await tab.page.get_by_text("As it was last reported").wait_for()
        facts = tab.page.locator(".facts").first
        await expect(facts).to_contain_text("12 s")
        await expect(facts).to_contain_text("1 GiB")
        await tab.page.get_by_text("Nothing is kept of its times and tasks").wait_for()
        await tab.page.get_by_role("tab", name="Post-mortem").click()
        await expect(main.locator("pre.code")).to_have_text(bundle["execution"]["code"])
        await expect(tab.page.locator(".facts")).to_contain_text("Memory at most1 GiB")
        assert await findings(tab.page) == []
        await tab.page.get_by_role("link", name="gc", exact=True).click()
        await expect(tab.page.get_by_role("log")).to_have_text("a pause\n")
        choices = tab.page.get_by_role("combobox", name="Log").locator("option")
        await expect(choices).to_have_text(["stdout", "stderr", "gc"])
        # Where nothing at all is known, nothing is shown as 0.
        tab.seen.expected = "status of 400"
        await go(tab, f"engine/{bare['metadata']['uid']}?tab=usage")
        await tab.page.get_by_text("nothing is kept of its last report").wait_for()
        await tab.page.get_by_text("Nothing is kept of its times and tasks").wait_for()
        assert not re.search(r"\b0\b", await tab.page.get_by_role("tabpanel").inner_text())
        await go(tab, f"engine/{item['metadata']['uid']}?tab=log&log=udfLog")
        alert = tab.page.get_by_role("alert")
        await expect(alert).to_contain_text("This engine has no such log: ask for logType stdout or stderr")
        assert "日志" not in await alert.inner_text()
    finally:
        # The page would ask for an engine that goes.
        await tab.page.goto("about:blank")
        gw.cluster.drop(item)
        gw.cluster.drop(bare)


async def test_an_engine_whose_record_keeps_shuttingdown_is_shown_as_stopped(tab: Tab, gw: Harness) -> None:
    """Linkis's row of an engine that somebody stopped keeps ShuttingDown; its release time says that it is over."""
    item = gw.engine(name="python-alice-record")
    uid = item["metadata"]["uid"]
    status = (await gw.get("getEngineStatus", {"engineId": uid})).body
    status["data"] |= {"status": "ShuttingDown", "finishedTime": "2026-11-24T05:00:00Z", "reason": "StoppedByUser"}

    async def record(route: Route) -> None:
        await route.fulfill(json=status)

    try:
        tab.seen.expected = "Failed to load resource"
        await tab.page.route("**/getEngineStatus?*", record)
        await log_in(tab, to=f"engine/{uid}")
        await expect(tab.page.locator(".title .state")).to_have_text("Stopped")
        await expect(tab.page.locator(".title")).to_contain_text("ago")
        assert await tab.page.get_by_role("button", name="Stop").count() == 0
    finally:
        await tab.page.goto("about:blank")
        gw.cluster.drop(item)


async def test_an_ecm_without_quotas_has_no_bars_and_half_a_core_is_half(tab: Tab, gw: Harness) -> None:
    item = gw.engine(name="python-alice-half")
    try:
        await log_in(tab, "root", to="ecm")
        meters = tab.page.locator(".meters li")
        free = ["Cores0.5 in useno limit", "Memory1 GiB in useno limit", "Engines1 in useno limit"]
        await expect(meters).to_have_text(free)
        gw.cluster.other_pods["resourcequotas", "q"] = {
            "metadata": {"name": "q"}, "spec": {"hard": {"requests.cpu": "8", "pods": "10"}},
        }  # fmt: skip
        await go(tab, "access")
        await go(tab, "ecm")
        await expect(meters).to_have_text(["Cores0.5 of 8", free[1], "Engines1 of 10"])
        assert await findings(tab.page) == []
    finally:
        await tab.page.goto("about:blank")
        gw.cluster.other_pods.clear()
        gw.cluster.drop(item)


async def test_the_catalogues_start_is_seen_in_a_narrow_window(tab: Tab) -> None:
    await log_in(tab, to="catalogue")
    await tab.page.set_viewport_size({"width": 360, "height": 800})
    box = await tab.page.get_by_role("button", name="Start python 3.11").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 360


async def test_forced_colours_leave_the_chosen_tab_and_the_states_to_be_seen(tab: Tab, gw: Harness) -> None:
    item = gw.engine(name="python-alice-colour")
    try:
        tab.seen.expected = "Failed to load resource"
        await tab.page.emulate_media(forced_colors="active")
        await log_in(tab, to=f"engine/{item['metadata']['uid']}")
        await tab.page.get_by_role("heading", name="States").wait_for()
        border = "one => getComputedStyle(one).borderBottomColor"
        chosen = await tab.page.get_by_role("tab", name="Summary").evaluate(border)
        assert chosen != await tab.page.get_by_role("tab", name="Log").evaluate(border)
        colour = "one => getComputedStyle(one).backgroundColor"
        assert await tab.page.locator(".waterfall .span").first.evaluate(colour) != await tab.page.locator(
            ".waterfall .track"
        ).first.evaluate(colour)
    finally:
        # The page would ask for an engine that goes.
        await tab.page.goto("about:blank")
        gw.cluster.drop(item)
