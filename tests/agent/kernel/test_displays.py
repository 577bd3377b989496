"""What code shows comes back: in a form that an output has, as text, or as a note. Never nothing."""

from __future__ import annotations

from typing import Any

import pytest

from linkis_ecm.agent.outputs import Outputs
from tools.testkit.agents.process import AgentProcess

IMPORTS = "from IPython.display import *\n"


def shown(data: dict[str, Any]) -> list[dict[str, Any]]:
    outputs = Outputs()
    outputs.message("display_data", {"data": data})
    return outputs.result()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"text/markdown": "**42**", "text/plain": "<IPython.core.display.Markdown object>"}, "**42**"),
        ({"text/markdown": "# Report"}, "# Report"),
        ({"text/latex": "$e$", "text/plain": "e"}, "$e$"),
        ({"application/json": {"a": [1, "列"]}, "text/plain": "<IPython.core.display.JSON object>"},
         '{"a": [1, "列"]}'),
        ({"text/plain": ["two\n", "lines"]}, "two\nlines"),
        ({"text/csv": "a,b"}, "a,b"),
        ({"application/vnd.jupyter.widget-view+json": {}, "text/plain": "IntSlider(value=3)"}, "IntSlider(value=3)\n"
         "[a display of type application/vnd.jupyter.widget-view+json is not shown]"),
        ({"application/pdf": "JVBER", "text/plain": "<Figure size 640x480 with 0 Axes>"},
         "<Figure size 640x480 with 0 Axes>\n[a display of type application/pdf is not shown]"),
        ({"application/vnd.plotly.v1+json": {}, "text/plain": "Figure({})"},
         "Figure({})\n[a display of type application/vnd.plotly.v1+json is not shown]"),
        ({"application/vnd.plotly.v1+json": {}, "text/plain": "Figure({\n    'data': [{'y': [1]}]\n})"},
         "Figure({\n    'data': [{'y': [1]}]\n})\n[a display of type application/vnd.plotly.v1+json is not shown]"),
        ({"application/x-rows": {}, "text/plain": "   a\n0  1"}, "   a\n0  1"),
        ({"application/javascript": "1", "text/plain": "<a.B object at 0x7f00>"},
         "<a.B object at 0x7f00>\n[a display of type application/javascript is not shown]"),
        ({"application/x-widget": {}}, "[a display of type application/x-widget is not shown]"),
        ({"application/pdf": "JVBER", "video/mp4": "AAA"},
         "[a display of type application/pdf, video/mp4 is not shown]"),
        ({"text/plain": 5}, "[a display of type text/plain is not shown]"),
        ({f"x/{n}": "" for n in range(50)}, "[a display of type x/0, x/1, x/2, x/3, x/4 is not shown]"),
    ],
)  # fmt: skip
def test_what_no_output_has_a_form_for_is_shown_in_words(data: dict[str, Any], words: str) -> None:
    assert shown(data) == [{"type": "text", "stream": "stdout", "text": words}]


@pytest.mark.parametrize("mime", ["image/gif", "image/webp", "image/png"])
def test_pictures_of_other_types_are_pictures(mime: str) -> None:
    assert shown({mime: "R0lG\n", "text/plain": "<Image>"}) == [{"type": "picture", "mime": mime, "data": "R0lG"}]


def test_nothing_shows_nothing() -> None:
    assert shown({}) == []
    assert shown({"text/plain": ""}) == [{"type": "text", "stream": "stdout", "text": ""}]


def test_a_result_behind_a_flood_of_text_is_kept() -> None:
    outputs = Outputs(max_bytes=300)
    outputs.stream("stderr", "x" * 1000)
    outputs.message("display_data", {"data": {"text/plain": "no result"}})
    outputs.message("execute_result", {"data": {"text/plain": "loss 0.123"}})
    outputs.message("display_data", {"data": {"text/html": "<b>1</b>"}})
    outputs.message("display_data", {"data": {"text/html": "y" * 101}})
    outputs.stream("stdout", "more")
    kept = outputs.result()
    assert [item["text"] for item in kept[1:]] == ["loss 0.123", "<b>1</b>"]
    assert "output cut here" in kept[0]["text"]
    assert outputs.size == 300 + len("loss 0.123" + "<b>1</b>")


def test_results_behind_a_flood_are_bounded_too() -> None:
    outputs = Outputs(max_bytes=300)
    outputs.stream("stderr", "x" * 1000)
    for _ in range(1000):
        outputs.message("execute_result", {"data": {"text/plain": "a"}})
    assert len(outputs.result()) == 21
    outputs.message("clear_output", {"wait": False})
    assert (outputs.size, outputs.result()) == (0, [])


def test_an_error_takes_the_place_of_what_was_to_be_cleared() -> None:
    outputs = Outputs()
    outputs.stream("stdout", "old")
    outputs.message("clear_output", {"wait": True})
    outputs.error("E", "v", [])
    assert [item["type"] for item in outputs.result()] == ["error"]


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("Markdown('**Total: 42**')", "**Total: 42**"), ("Math('e')", "$\\displaystyle e$"), ("Latex('$x$')", "$x$"),
        ("display(JSON({'a': 10**30}))", '{"a": ' + str(10**30) + "}"),
        ("display({'text/markdown': '# Report'}, raw=True)", "# Report"),
    ],
)  # fmt: skip
def test_what_ipython_shows_comes_back_in_words(agent: AgentProcess, code: str, wanted: str) -> None:
    (output,) = agent.outputs(IMPORTS + code)
    assert (output["type"], output["text"]) == ("text", wanted)


@pytest.mark.parametrize("code", ["import json\njson.dumps?", "import json\njson.dumps??", "%pinfo print"])
def test_a_page_is_an_output(agent: AgentProcess, code: str) -> None:
    (output,) = agent.outputs(code)
    assert output["stream"] == "result"
    assert "Signature:" in output["text"] or "Docstring:" in output["text"]
    assert "\x1b" not in output["text"]


def test_code_for_the_next_cell_is_an_output(agent: AgentProcess) -> None:
    (output,) = agent.outputs("get_ipython().set_next_input('x = 1')")
    assert output["text"].endswith("\nx = 1")


def test_a_display_of_an_earlier_task_is_changed_in_its_place(agent: AgentProcess) -> None:
    first = agent.execute("h = display('a', display_id=True)")
    assert agent.outputs("h.update('b')") == []
    _, result = agent.json("GET", f"/v1/tasks/{first['taskId']}/result")
    assert [output["text"] for output in result["outputs"]] == ["'b'"]


def test_a_change_of_a_display_that_nobody_has_is_shown(agent: AgentProcess) -> None:
    (output,) = agent.outputs(IMPORTS + "update_display('b', display_id='nobody')")
    assert output["text"] == "'b'"


def test_programs_are_asked_for_no_colours(agent: AgentProcess) -> None:
    names = ("FORCE_COLOR", "CLICOLOR_FORCE", "NO_COLOR")
    (output,) = agent.outputs(f"import os; print([os.environ.get(name) for name in {names}])")
    assert output["text"] == "[None, None, '1']\n"
    (text,) = agent.outputs("print('\\x1b[3', end='', flush=True)\nprint('1mred\\x1b[0m', flush=True)")
    assert text["text"] == "red\n"
