"""The page at /docs in a real browser: it lists, searches, opens by keyboard, sends calls, and can be read."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from aiohttp import web
from playwright.async_api import expect

from linkis_ecm.gateway import openapi
from linkis_ecm.gateway.routes import METHODS
from tools.testkit.browser.chromium import PATIENCE, Tab
from tools.testkit.browser.console import findings
from tools.testkit.gateway.harness import TOKEN, Harness

pytestmark = pytest.mark.asyncio(loop_scope="module")
expect.set_options(timeout=PATIENCE)
OPERATIONS = [one for verbs in openapi.document()["paths"].values() for one in verbs.values()]
LINKS = "nav li:not([hidden]) a"
# Every element that has text of its own, with its text, size and colours; what it stands on is found upwards.
_CONTRASTS = """() => {
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const found = numbers(getComputedStyle(one).backgroundColor);
      if (found.length === 3 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("body *")]
    .filter((one) => one.checkVisibility() && [...one.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .map((one) => {
      const [high, low] = [light(numbers(getComputedStyle(one).color)), light(behind(one))].sort((a, b) => b - a);
      return [one.textContent.trim().slice(0, 40), (high + 0.05) / (low + 0.05)];
    });
}"""
# The page's own listener comes first: after it the new operation is shown.
_MOVED = """const moved = (act) => new Promise((done) => {
  addEventListener("hashchange", done, { once: true });
  act();
});"""
# Shows each operation, or the overview, and finds those that are wider than the window.
_WIDER = f"""async (names) => {{ {_MOVED}
  const wider = {{}};
  for (const name of names) {{
    await moved(() => (location.hash = name));
    const shown = name ? `nav a[aria-current][href='#${{name}}']` : "body:not([data-open]) nav a";
    if (!document.querySelector(shown)) wider[name] = "not shown";
    const over = document.documentElement.scrollWidth - innerWidth;
    if (over > 0) wider[name] = over;
  }}
  return wider;
}}"""
# Clicks each operation's link; of each what is shown: its lead, the names of its parameters, whether it can be sent.
_OPENED = f"""async (names) => {{ {_MOVED}
  const found = {{}};
  for (const name of names) {{
    await moved(() => document.querySelector(`nav a[href='#${{name}}']`).click());
    const send = [...document.querySelectorAll("button")].find((one) => one.innerText.startsWith("Send "));
    found[name] = [
      document.querySelector("nav a[aria-current]").hash.slice(1),
      document.querySelector("main .lead").innerText,
      [...document.querySelectorAll(".sides .name")].map((one) => one.innerText),
      send.checkVisibility(),
    ];
  }}
  return found;
}}"""


async def login(tab: Tab, token: str = TOKEN, user: str = "alice") -> None:
    await tab.page.get_by_label("Token-Code").fill(token)
    await tab.page.get_by_label("Token-User").fill(user)


async def send(tab: Tab) -> str:
    """Sends the form; the sentence that is shown of the answer."""
    await tab.page.get_by_role("button", name="Send").click()
    return await tab.text(".sentence")


async def test_every_operation_of_the_document_is_listed_by_tag_and_opens(tab: Tab) -> None:
    await tab.open()
    links = tab.page.locator(LINKS)
    assert await links.count() == len(METHODS) == len(OPERATIONS)
    assert await tab.page.locator("nav h2").all_inner_texts() == [tag["name"] for tag in openapi.document()["tags"]]
    opened = await tab.page.evaluate(_OPENED, [one["operationId"] for one in OPERATIONS])
    for one in OPERATIONS:
        shown, lead, names, can_be_sent = opened[one["operationId"]]
        assert shown == one["operationId"]
        assert one["summary"].replace("`", "")[:60] in lead
        assert {parameter["name"] for parameter in one.get("parameters", ())} <= set(names)
        assert can_be_sent


async def test_search_narrows_the_list(tab: Tab) -> None:
    await tab.open()
    count = tab.page.locator("#count")
    await tab.page.get_by_label("Search").fill("engineLog get")
    await expect(count).to_contain_text(" of ")
    names = await tab.page.locator(f"{LINKS} span:last-child").all_inner_texts()
    assert "getEngineLogs" in names
    assert "createEngineConnection" not in names
    await expect(count).to_have_text(f"{len(names)} of {len(OPERATIONS)} operations")
    await tab.page.get_by_label("Search").fill("taskId")
    await tab.page.locator(f"{LINKS} span:last-child", has_text="taskEvents").wait_for()  # by a parameter's name
    await tab.page.get_by_label("Search").fill("no such words")
    await expect(tab.page.locator(LINKS)).to_have_count(0)
    await expect(tab.page.locator("nav h2:visible")).to_have_count(0)
    await tab.page.keyboard.press("Escape")
    await expect(tab.page.locator(LINKS)).to_have_count(len(OPERATIONS))


async def test_an_operation_is_found_opened_and_sent_by_keyboard_alone(tab: Tab, gw: Harness) -> None:
    engine = gw.engine()
    await tab.open()
    press, kind = tab.page.keyboard.press, tab.page.keyboard.type
    await press("/")
    await kind("getEngineStatus")
    await press("ArrowDown")
    await press("Enter")
    await tab.page.locator("h1", has_text="getEngineStatus").wait_for()
    # Reading goes on at the operation's title; the form's fields follow.
    await expect(tab.page.locator("h1")).to_be_focused()
    for text in (TOKEN, "alice", "", engine["metadata"]["uid"]):
        await press("Tab")
        await kind(text)
    await press("Enter")
    assert await tab.text(".sentence") == "status 0: OK"
    await press("/")  # a field's own
    await expect(tab.page.locator("input:focus")).to_have_value(engine["metadata"]["uid"] + "/")


async def test_a_call_is_sent_with_the_token_and_shows_the_message(tab: Tab, gw: Harness) -> None:
    engine = gw.engine()
    await tab.open("getEngineStatus")
    await login(tab)
    await tab.page.get_by_label("engineId").fill(engine["metadata"]["uid"])
    assert await send(tab) == "status 0: OK"
    shown = await tab.text("section.answer pre")
    assert f'"engineId": "{engine["metadata"]["uid"]}"' in shown
    assert "HTTP 200" in await tab.text(".figures")
    await tab.page.get_by_text("With curl").click()
    await tab.page.locator("pre.curl").wait_for()
    curl = await tab.text("pre.curl")
    assert TOKEN not in curl
    assert '-H "Token-Code: $TOKEN_CODE"' in curl
    assert f"{gw.url}/api/rest_j/v1/engineconnManager/getEngineStatus?engineId=" in curl


async def test_a_body_is_sent_and_the_next_call_is_filled_in(tab: Tab, gw: Harness) -> None:
    task = {"taskId": "t", "status": "Succeed", "executionCount": 1, "acceptedAt": 1.0, "startedAt": 1.0,
            "endedAt": 2.0, "progress": 1.0, "progressMessage": "", "outputs": []}  # fmt: skip

    async def agent(_: web.Request) -> web.StreamResponse:
        return web.json_response(task)

    scripted, engine = await gw.served(agent, name="python-alice-page")
    await tab.open("executeCode")
    await login(tab)
    body = tab.page.locator("#body")
    await body.fill('{"engineId": "' + engine["metadata"]["uid"] + '", "code": "1+1", "runType": "python"}')
    assert await send(tab) == "status 0: OK"
    assert b'"code":"1+1"' in scripted.requests[-1][3].replace(b'": ', b'":')
    await tab.page.locator("nav a[href='#getTask']").click()
    assert await tab.page.locator("#parameter-engineId").input_value() == engine["metadata"]["uid"]
    assert await tab.page.get_by_label("Token-User").input_value() == "alice", "the login stays"


async def test_a_body_that_is_no_json_is_not_sent(tab: Tab) -> None:
    await tab.open("executeCode")
    await login(tab)
    await tab.page.locator("#body").fill('{"engineId": ')
    assert (await send(tab)).startswith("The body is not JSON, so it was not sent: ")
    assert [url for url in tab.seen.requests if "executeCode" in url] == []


async def test_a_wrong_token_shows_the_gateways_sentence(tab: Tab) -> None:
    # The browser's own line about an answer of 401 is the only one.
    tab.seen.expected = "status of 401"
    await tab.open("listEngines")
    await login(tab, token="LINKIS-WRONG-0123456789")
    assert "status -1: Token-Code is not accepted for this Token-User" in await send(tab)
    assert "HTTP 401" in await tab.text(".figures")


async def test_a_path_parameter_is_asked_for_and_escaped(tab: Tab, gw: Harness) -> None:
    await tab.open("ecinfoDelete")
    await login(tab, user="root")
    assert await send(tab) == "ticketid is empty: fill it in, it is a part of the path"
    await tab.page.locator("#parameter-ticketid").fill("a/../b?c#d")
    await tab.page.get_by_text("With curl").click()
    await expect(tab.page.locator("pre.curl")).to_contain_text("/ecinfo/delete/a%2F..%2Fb%3Fc%23d'")


async def test_a_stream_is_shown_as_it_comes_and_can_be_stopped(tab: Tab, gw: Harness) -> None:
    more = asyncio.Event()

    async def agent(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"event": "output", "index": 0, "output": {"type": "text", "text": "<b>early</b>"}}\n')
        await more.wait()
        return response

    scripted, engine = await gw.served(agent, name="python-alice-stream")
    await tab.open("taskEvents")
    await login(tab)
    await tab.page.get_by_label("engineId").fill(engine["metadata"]["uid"])
    await tab.page.get_by_label("taskId").fill("t")
    await tab.page.get_by_role("button", name="Send").click()
    await tab.page.locator("section.answer pre", has_text="<b>early</b>").wait_for()
    await tab.page.get_by_role("button", name="Stop").click()
    await tab.page.get_by_text("Stopped.").wait_for()
    await asyncio.wait_for(scripted.left.wait(), PATIENCE / 1000)
    more.set()


async def test_of_a_long_answer_the_page_shows_the_end_with_a_note(tab: Tab, gw: Harness) -> None:
    log = b"".join(b"line %07d\n" % n for n in range(100_000))

    async def agent(_: web.Request) -> web.StreamResponse:
        return web.Response(body=log, headers={"X-Log-Size": str(len(log)), "X-Log-File": "1"})

    _, engine = await gw.served(agent, name="python-alice-long")
    await tab.open("downloadEngineLog")
    await login(tab)
    for name, value in gw.download_query(engine).items():
        await tab.page.locator(f"#parameter-{name}").fill(value)
    await tab.page.get_by_role("button", name="Send").click()
    await tab.page.locator("section.answer pre", has_text="line 0099999").wait_for()
    shown = await tab.text("section.answer pre")
    assert shown.startswith("… the earlier part is left out here\n")
    assert len(shown) < 300_000
    await tab.page.locator(".figures", has_text=f"{len(log)} bytes").wait_for()


async def test_behind_a_proxy_with_a_path_of_its_own_everything_is_found(tab: Tab, gw: Harness) -> None:
    async def forward(request: web.Request) -> web.Response:
        headers = {name: value for name, value in request.headers.items() if name.startswith("Token")}
        to = gw.url + request.path_qs.removeprefix("/team/ecm")
        async with gw.session.request(request.method, to, headers=headers) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.startswith("Content-")}
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)

    proxy = web.ServerRunner(web.Server(forward))
    await proxy.setup()
    await web.TCPSite(proxy, "127.0.0.1", 0).start()
    try:
        origin = f"http://127.0.0.1:{proxy.addresses[0][1]}"
        await tab.page.goto(f"{origin}/team/ecm/docs#listEngines")
        await login(tab)
        assert await send(tab) == "status 0: OK"
        assert all(url.startswith(f"{origin}/team/ecm/") for url in tab.seen.requests), tab.seen.requests
        tab.seen.requests.clear()
    finally:
        await tab.page.goto("about:blank")
        await proxy.cleanup()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_all_text_can_be_read_in_both_colour_schemes(tab: Tab, gw: Harness, scheme: Any) -> None:
    await tab.page.emulate_media(color_scheme=scheme)
    engine = gw.engine()
    for operation in ("", "updateResource", "getEngineStatus"):
        await tab.open(operation)
        if operation == "getEngineStatus":
            await login(tab)
            await tab.page.get_by_label("engineId").fill(engine["metadata"]["uid"])
            await send(tab)
        found = await tab.page.evaluate(_CONTRASTS)
        assert len(found) > 40
        assert [(text, round(ratio, 2)) for text, ratio in found if ratio < 4.5] == []


async def test_nothing_is_wider_than_the_window(tab: Tab) -> None:
    await tab.open()
    # The overview last: it is what is shown at the beginning.
    names = [*(one["operationId"] for one in OPERATIONS), ""]
    for width in (320, 390, 1000, 1440):
        await tab.page.set_viewport_size({"width": width, "height": 800})
        assert await tab.page.evaluate(_WIDER, names) == {}, width


async def test_narrow_windows_show_the_list_or_one_operation(tab: Tab) -> None:
    await tab.page.set_viewport_size({"width": 390, "height": 844})
    await tab.open()
    await tab.page.locator("main").wait_for(state="hidden")
    await tab.page.locator("nav a[href='#getTask']").click()
    await tab.page.locator("main").wait_for(state="visible")
    await tab.page.locator("nav").wait_for(state="hidden")
    await tab.page.get_by_text("All operations").click()
    await tab.page.locator("nav").wait_for(state="visible")
    await tab.page.locator("main").wait_for(state="hidden")


async def test_every_field_has_a_name_and_ids_are_there_once(tab: Tab) -> None:
    for operation in ("getEngineLogs", "executeCode"):
        await tab.open(operation)
        await tab.page.locator(".try").wait_for()
        labels = "[...document.querySelectorAll('input, textarea, select')].map((one) => one.labels.length)"
        assert set(await tab.page.evaluate(labels)) == {1}
        ids = await tab.page.evaluate("[...document.querySelectorAll('[id]')].map((one) => one.id)")
        assert len(ids) == len(set(ids))
        assert all(re.fullmatch(r"[\w-]+", one) for one in ids), ids


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing(tab: Tab, scheme: Any) -> None:
    await tab.page.emulate_media(color_scheme=scheme)
    for operation in ("", "executeCode", "getResultSet", "ecinfoDelete"):
        await tab.open(operation)
        assert await findings(tab.page) == [], operation
