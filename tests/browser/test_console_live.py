"""The console before a whole installation with real agents: code, its outputs, logs, usage, an end while it is seen."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Download, Request, expect
from pyarrow import ipc

from tools.loopback.installation import Engine, Installation, installation
from tools.testkit.agents.process import until
from tools.testkit.browser.chromium import PATIENCE, Tab, opened
from tools.testkit.browser.console import findings, go, live, log_in, picture

pytestmark = pytest.mark.asyncio(loop_scope="module")
expect.set_options(timeout=PATIENCE)
HOSTILE = "<img src=x onerror=window.hit=1><script>window.hit=2</script>"
PICTURE = "from IPython.display import display, HTML, SVG\n"
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="120" height="60"><script>top.hit=3</script>'
    '<rect width="120" height="60" fill="teal"/></svg>'
)
TABLE = (
    f'import pandas as pd\npd.DataFrame({{"n": range(12000), "text": [{HOSTILE!r}] * 12000, "none": [None] * 12000}})'
)

WIDE = "import pandas as pd, numpy as np\npd.DataFrame(np.arange(750_000).reshape(250, 3000)).add_prefix('c')"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("console")) as made:
        yield made


@pytest.fixture(scope="module")
def engine(site: Installation) -> Engine:
    return site.ready("real-1", "alice")


@pytest_asyncio.fixture(loop_scope="module")
async def tab(browser: Browser, site: Installation) -> AsyncIterator[Tab]:
    async with opened(browser, f"http://127.0.0.1:{site.gateway.port}") as made:
        yield made


async def content(saved: Download) -> bytes:
    return await asyncio.to_thread(Path(await saved.path()).read_bytes)


async def run(tab: Tab, engine: Engine, code: str) -> None:
    """Runs code in the engine by the page; the newest cell is the first."""
    if f"#/run/{engine.uid}" not in tab.page.url:
        await go(tab, f"run/{engine.uid}")
    editor = tab.page.get_by_label("Code", exact=True)
    await editor.fill(code)
    await editor.press("Control+Enter")


async def test_code_runs_and_its_output_comes_as_it_is_printed(tab: Tab, engine: Engine) -> None:
    await log_in(tab, "alice", to=f"run/{engine.uid}")
    await run(
        tab, engine, f"import time\nprint({HOSTILE!r})\nfor n in range(600):\n    print('step', n)\n    time.sleep(0.1)"
    )
    cell = tab.page.locator(".cell").first
    await expect(cell.locator(".out")).to_contain_text(HOSTILE)
    await expect(cell.locator(".out")).to_contain_text("step 2\n")
    await expect(cell.locator(".state")).to_have_text("Running")
    assert await findings(tab.page) == []
    await cell.get_by_role("button", name="Interrupt").click()
    await expect(cell.locator(".state")).to_have_text("Cancelled")
    await run(tab, engine, "1/0")
    await expect(tab.page.locator(".cell").first.locator(".failed")).to_contain_text("ZeroDivisionError")
    await run(tab, engine, "# colours\nfor name in 'é😀':\n    assert name, 12.5")
    await expect(tab.page.locator(".cell").first.locator(".task")).to_contain_text("No output.")
    kinds = tab.page.locator(".cell").first.locator(".code span")
    assert {await one.get_attribute("class") for one in await kinds.all()} == {
        "k-comment",
        "k-keyword",
        "k-string",
        "k-number",
    }
    assert await tab.page.evaluate("window.hit") is None


async def test_six_cells_wait_for_each_other_with_one_stream_and_can_be_interrupted(tab: Tab, engine: Engine) -> None:
    following = most = 0

    def began(request: Request) -> None:
        nonlocal following, most
        if "taskEvents" in request.url:
            following += 1
            most = max(most, following)

    def ended(request: Request) -> None:
        nonlocal following
        following -= "taskEvents" in request.url

    tab.page.on("request", began)
    tab.page.on("requestfinished", ended)
    tab.page.on("requestfailed", ended)
    await log_in(tab, "alice", to=f"run/{engine.uid}")
    await run(tab, engine, "import time; print('began', flush=True)\nfor _ in range(400): time.sleep(0.1)")
    cells = tab.page.locator(".cell")
    await expect(cells.first.locator(".out")).to_contain_text("began")
    for number in range(2, 7):
        await run(tab, engine, f"print('cell', {number})")
        await expect(cells).to_have_count(number)
    # One that waits is cancelled, and says so though another one runs.
    waiting = cells.nth(2)
    await waiting.get_by_role("button", name="Interrupt").click()
    await expect(waiting.locator(".state")).to_have_text("Cancelled")
    await expect(cells.last.locator(".state")).to_have_text("Running")
    # The page is left and comes back: the cell that runs is the one that is followed.
    await go(tab, "overview")
    await tab.page.get_by_text("live engines").wait_for()
    await go(tab, f"run/{engine.uid}")
    await expect(cells.last.locator(".out")).to_contain_text("began")
    await cells.last.get_by_role("button", name="Interrupt").click()
    await expect(cells.last.locator(".state")).to_have_text("Cancelled")
    for at, number in ((0, 6), (1, 5), (3, 3), (4, 2)):
        await expect(cells.nth(at).locator(".state")).to_have_text("Succeed")
        await expect(cells.nth(at).locator(".out")).to_have_text(f"cell {number}\n")
    assert most == 1


async def test_what_is_left_out_of_a_long_text_is_said_by_where_it_is(tab: Tab, engine: Engine) -> None:
    await log_in(tab, "alice", to=f"run/{engine.uid}")
    await run(tab, engine, "for n in range(9000): print('x' * 40, n)\n('y' * 60 + '\\n') * 6000")
    out = tab.page.locator(".cell").first.locator("pre.out")
    await expect(out.first).to_contain_text("The log has it; a line of more than 64 KiB is whole in the log's download")
    await expect(out.nth(1)).to_contain_text("no log has it: it is in the task's result (getTaskResult)")


async def test_a_table_is_paged_beyond_what_is_shown_at_once(tab: Tab, engine: Engine) -> None:
    await log_in(tab, "alice", to=f"run/{engine.uid}")
    await run(tab, engine, TABLE)
    out = tab.page.locator(".cell").first.locator("div.out")
    await expect(out).to_contain_text("12000 rows, 3 columns; rows 1 to 100")
    await expect(out.locator("tbody tr").first).to_contain_text(HOSTILE)
    await out.get_by_role("button", name="Next").click()
    await expect(out.locator("tbody td").first).to_have_text("101")
    await out.get_by_role("button", name="Last").click()
    await expect(out.locator("tbody td").first).to_have_text("11901")
    await expect(out.locator("tbody tr").last).to_contain_text("11999")
    async with tab.page.expect_download() as saved:
        await out.get_by_role("button", name="Download as Arrow").click()
    assert ipc.open_stream(await content(await saved.value)).read_all().num_rows == 12000
    await out.get_by_role("button", name="First").click()
    assert await tab.page.evaluate("window.hit") is None


async def test_a_wide_table_is_paged_by_columns_and_its_headings_stay_above_its_cells(tab: Tab, engine: Engine) -> None:
    await log_in(tab, "alice", to=f"run/{engine.uid}")
    spent = await tab.processor_seconds()
    await run(tab, engine, WIDE)
    out = tab.page.locator(".cell").first.locator("div.out")
    await expect(out).to_contain_text("250 rows, 3000 columns; rows 1 to 100; columns 1 to 200; the download has all")
    rows, columns = (out.get_by_role("group", name=name, exact=True) for name in ("rows", "columns"))
    await rows.get_by_role("button", name="Last", exact=True).click()
    await expect(out.locator("tbody td").first).to_have_text("201")
    await columns.get_by_role("button", name="Last columns").click()
    await expect(out.locator("thead th").last).to_have_text("c2999")
    heads = await out.locator("thead th").all_inner_texts()
    cells = await out.locator("tbody tr").last.locator("td").all_inner_texts()
    assert heads == ["row", *(f"c{n}" for n in range(2800, 3000))]
    assert cells == ["250", *(str(249 * 3000 + n) for n in range(2800, 3000))]
    await rows.get_by_role("button", name="First", exact=True).click()
    await expect(out.locator("tbody tr")).to_have_count(100)
    # Five pages of at most 20,000 cells each took 4.1 s on a machine at load 20; five of 150,000 cells would take 17 s.
    took = await spent()
    assert took < 10, took
    assert await findings(tab.page) == []


async def test_pictures_and_html_are_shown_without_any_right(tab: Tab, engine: Engine) -> None:
    tab.seen.expected = "Blocked script execution in 'about:srcdoc'"
    await log_in(tab, "alice", to=f"run/{engine.uid}")
    came: list[asyncio.StreamWriter] = []
    outside = await asyncio.start_server(lambda _, writer: came.append(writer), "127.0.0.1", 0)
    there = f"http://127.0.0.1:{outside.sockets[0].getsockname()[1]}/"
    page = f"<h1>made</h1>{HOSTILE}<script>parent.hit=4</script><img src={there}x>"
    await run(tab, engine, f"{PICTURE}display(SVG({SVG!r}))\ndisplay(HTML({page!r}))")
    cell = tab.page.locator(".cell").first
    drawn = cell.locator("img.picture")
    await drawn.wait_for()
    assert await drawn.evaluate("(one) => one.decode().then(() => [one.naturalWidth, one.naturalHeight])") == [120, 60]
    await expect(cell.locator("pre", has_text="<h1>made</h1>").first).to_be_visible()
    await cell.get_by_role("button", name="Show as a page").click()
    frame = cell.frame_locator("iframe")
    await expect(frame.locator("h1")).to_have_text("made")
    assert await cell.locator("iframe").get_attribute("sandbox") == ""
    assert await tab.page.evaluate("window.hit") is None
    # What the frame's own document tried to load was stopped by its policy: nothing went out. Chromium tells of a load
    # that is stopped as of a request where its preload scanner was first.
    await asyncio.to_thread(until, lambda: any(there in text and "img-src" in text for text in tab.seen.errors))
    assert came == []
    outside.close()
    tab.seen.requests = [url for url in tab.seen.requests if not url.startswith(there)]
    tab.seen.errors = [text for text in tab.seen.errors if "violates the following Content Security Policy" not in text]


async def test_the_log_is_read_in_windows_searched_followed_and_downloaded(tab: Tab, engine: Engine) -> None:
    await log_in(tab, "alice", to=f"run/{engine.uid}")
    await run(tab, engine, f"for n in range(2000): print('line', n, {HOSTILE!r} if n == 1500 else '')")
    await expect(tab.page.locator(".cell").first.locator(".state")).to_have_text("Succeed")
    await go(tab, f"engine/{engine.uid}?tab=log")
    log = tab.page.get_by_role("log")
    await expect(log).to_contain_text("line 1999")
    await tab.page.get_by_role("button", name="First lines").click()
    await expect(log).to_contain_text("the agent listens on port")
    await tab.page.get_by_role("button", name="Later").click()
    await expect(tab.page.get_by_text("lines 501 to 1000 counted from the beginning")).to_be_visible()
    await tab.page.get_by_role("button", name="Last lines").click()
    await tab.page.get_by_role("button", name="Earlier").click()
    await expect(tab.page.get_by_text("lines 501 to 1000 counted from the end")).to_be_visible()
    await tab.page.get_by_label("Only lines with").fill("onerror")
    await tab.page.keyboard.press("Enter")
    await expect(log.locator("mark").first).to_have_text("onerror")
    await expect(log).to_contain_text(HOSTILE)
    async with tab.page.expect_download() as saved:
        await tab.page.get_by_role("button", name="Download").click()
    assert b"line 1999" in await content(await saved.value)
    await tab.page.get_by_label("follow").check()
    await expect(log).to_contain_text("line 1999")
    await expect(tab.page.get_by_label("Only lines with")).to_have_value("")
    assert await findings(tab.page) == []
    assert await tab.page.evaluate("window.hit") is None


async def test_tasks_and_usage_of_an_engine(tab: Tab, engine: Engine) -> None:
    await log_in(tab, "alice", to=f"run/{engine.uid}")
    await run(tab, engine, "print('of a task')")
    await expect(tab.page.locator(".cell").first.locator(".out")).to_contain_text("of a task")
    await go(tab, f"tasks/{engine.uid}")
    await expect(tab.page.locator("td.codeline").first).to_have_text("print('of a task')")
    await tab.page.locator("button.link").first.click()
    await expect(tab.page.locator(".task .out").first).to_contain_text("of a task")
    assert await findings(tab.page) == []
    await picture(tab.page, "tasks")
    await go(tab, f"engine/{engine.uid}")
    await tab.page.clock.install()
    await tab.page.get_by_role("tab", name="Usage").click()
    await tab.page.get_by_text("the curve begins after 10 s").wait_for()
    for _ in range(2):
        async with tab.page.expect_response("**/getResourceUsage?*"):
            await tab.page.clock.fast_forward(5_000)
    await tab.page.get_by_role("heading", name="Cores in use").wait_for()
    await expect(tab.page.locator(".facts").first).to_contain_text("Memory used")
    assert await findings(tab.page) == []


async def test_an_engine_that_ends_while_it_is_looked_at(tab: Tab, site: Installation, engine: Engine) -> None:
    await log_in(tab, "alice", to=f"engine/{engine.uid}")
    await live(tab)
    await tab.page.get_by_role("heading", name="Start", exact=True).wait_for()
    await tab.page.get_by_text("kernel answered").wait_for()
    assert await findings(tab.page) == []
    await tab.page.get_by_role("button", name="Stop").click()
    await expect(tab.page.get_by_role("dialog")).to_contain_text("real-1 ends")
    assert await findings(tab.page) == []
    await expect(tab.page.get_by_role("dialog")).to_contain_text("ends at once")
    await tab.page.get_by_role("button", name="Stop the engine").click()
    await expect(tab.page.locator(".title .state")).to_have_text("Success")
    await expect(tab.page.locator("main")).to_contain_text("The engine was stopped on request.")
    assert await tab.page.get_by_role("button", name="Stop").count() == 0
    await tab.page.get_by_role("tab", name="Post-mortem").click()
    await tab.page.get_by_role("cell", name="stdout", exact=True).wait_for()
    await expect(tab.page.locator("main")).to_contain_text("StoppedByUser")
    assert await findings(tab.page) == []
    await tab.page.get_by_role("tab", name="Log").click()
    await expect(tab.page.get_by_role("log")).to_contain_text("the engine has stopped")
    await tab.page.get_by_role("tab", name="Summary").click()
    # Linkis's last state of it is ShuttingDown, and the bar of that would grow for ever.
    newest = tab.page.get_by_role("region", name="States").locator("tbody tr").first
    await expect(newest.locator(".state")).to_have_text(re.compile("Stopped|Success"))
    await expect(newest.locator("td").nth(2)).to_have_text("")
    tab.seen.expected = "status of 400"
    await go(tab, f"run/{engine.uid}")
    await tab.page.get_by_text("This engine is Success and takes no code now").wait_for()


async def test_an_engine_of_long_ago_is_found_in_the_history(tab: Tab, engine: Engine) -> None:
    await log_in(tab, "alice", to="history")
    await expect(tab.page.get_by_role("region", name="Records")).to_contain_text("alice-IDE,python-3.11")
    await expect(tab.page.locator(".pager")).to_contain_text("1 record, page 1 of 1")
    await picture(tab.page, "history")
    assert await findings(tab.page) == []
    await expect(tab.page.get_by_role("region", name="Records")).to_contain_text("Stopped (Linkis: ShuttingDown)")
    await tab.page.get_by_label("Status").select_option("Stopped (Linkis: ShuttingDown)")
    assert "status=ShuttingDown" in tab.page.url
    await expect(tab.page.locator(".pager")).to_contain_text("1 record, page 1 of 1")
    await tab.page.get_by_label("Status").select_option("Failed")
    await tab.page.get_by_text("No engine was made in this time that passes the filter").wait_for()
    await tab.page.get_by_label("Status").select_option("")
    await tab.page.get_by_role("link", name="real-1").click()
    await tab.page.locator("h1", has_text="real-1").wait_for()
    await go(tab, "history")
    # What is typed stays when an answer arrives meanwhile.
    async with tab.page.expect_response("**/ecrHistoryList?*"):
        await tab.page.get_by_label("Type").press_sequentially("sql")
        await tab.page.evaluate("document.querySelector('.bar button').click()")
    await expect(tab.page.locator(".pager")).to_contain_text("1 record")
    await expect(tab.page.get_by_label("Type")).to_have_value("sql")
    await tab.page.keyboard.press("Enter")
    await tab.page.get_by_text("No engine was made in this time that passes the filter").wait_for()
