"""What code gets back: texts, tables, pictures, errors, and what it may not do."""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from linkis_ecm.agent.executors.ipython import CAPABILITIES
from tools.testkit.agents.process import TOKEN, AgentProcess, until


def text(stream: str, value: str) -> dict[str, str]:
    return {"type": "text", "stream": stream, "text": value}


def test_prints_and_the_last_value_come_back_in_order(agent: AgentProcess) -> None:
    result = agent.execute("for n in range(3): print('line', n)\n6 * 7")
    assert result["status"] == "Succeed"
    assert result["outputs"] == [text("stdout", "line 0\nline 1\nline 2\n"), text("result", "42")]
    assert len(result["taskId"]) == 32
    assert result["startedAt"] <= result["endedAt"] <= time.time()


def test_stderr_is_told_apart(agent: AgentProcess) -> None:
    outputs = agent.outputs("import sys; print('bad', file=sys.stderr)")
    assert outputs == [text("stderr", "bad\n")]


def test_variables_live_on_and_executions_are_counted(agent: AgentProcess) -> None:
    first = agent.execute("kept = 20")
    second = agent.execute("kept + 1")
    assert second["outputs"] == [text("result", "21")]
    assert second["executionCount"] == first["executionCount"] + 1


def test_old_results_are_dropped_without_output_in_a_task(agent: AgentProcess) -> None:
    agent.outputs("shell = get_ipython(); shell.displayhook.cache_size = 1; shell.user_ns['_oh'].clear()")
    try:
        for number in range(5):
            assert agent.outputs(str(number)) == [text("result", str(number))]
        assert agent.outputs("len(shell.user_ns['_oh']) < 4") == [text("result", "True")]
    finally:
        agent.outputs("shell.displayhook.cache_size = 1000")


def test_output_of_a_child_process_belongs_to_the_task(agent: AgentProcess) -> None:
    outputs = agent.outputs("import subprocess; subprocess.run(['echo', 'from the child'], check=True); None")
    assert outputs == [text("stdout", "from the child\n")]


def test_printed_text_is_once_in_the_log_file_and_once_in_the_containers_output(agent: AgentProcess) -> None:
    agent.outputs("import os; print('marked-by-print'); os.system('echo marked-by-child >&2'); None")
    assert agent.log("stdout").count("marked-by-print") == 1
    assert agent.log("stderr").count("marked-by-child") == 1
    # The container's streams are fed by threads.
    until(lambda: b"marked-by-print" in agent.container_out.read_bytes())
    until(lambda: b"marked-by-child" in agent.container_err.read_bytes())
    assert agent.container_out.read_bytes().count(b"marked-by-print") == 1
    assert agent.container_err.read_bytes().count(b"marked-by-child") == 1


def test_an_error_comes_with_its_traceback_in_plain_text(agent: AgentProcess) -> None:
    result = agent.execute("def divide(n):\n    return n / 0\ndivide(1)")
    assert result["status"] == "Failed"
    (error,) = result["outputs"]
    assert (error["type"], error["name"], error["value"]) == ("error", "ZeroDivisionError", "division by zero")
    joined = "\n".join(error["traceback"])
    assert "return n / 0" in joined
    assert "\x1b" not in joined


def test_code_after_an_error_runs(agent: AgentProcess) -> None:
    agent.execute("1/0")
    assert agent.outputs("'fine'") == [text("result", "'fine'")]


def test_a_data_frame_is_a_table(agent: AgentProcess) -> None:
    (table,) = agent.outputs(
        "import pandas as pd\n"
        "pd.DataFrame({'n': [1, 2], 'x': [0.5, None], 's': ['a', None],"
        " 't': pd.to_datetime(['2026-11-24 10:00', None]), 'b': [True, False]})"
    )
    assert table["type"] == "table"
    assert [column["name"] for column in table["columns"]] == ["n", "x", "s", "t", "b"]
    assert table["columns"][0]["type"] == "int64"
    assert table["rows"] == [[1, 0.5, "a", "2026-11-24T10:00:00", True], [2, None, None, None, False]]
    assert (table["totalRows"], table["truncated"]) == (2, False)


def test_an_index_with_a_meaning_becomes_a_column(agent: AgentProcess) -> None:
    (table,) = agent.outputs("import pandas as pd\npd.DataFrame({'n': [1, 1, 2], 'v': [1, 2, 3]}).groupby('n').sum()")
    assert [column["name"] for column in table["columns"]] == ["n", "v"]
    assert table["rows"] == [[1, 3], [2, 3]]


def test_a_series_is_a_table(agent: AgentProcess) -> None:
    (table,) = agent.outputs("import pandas as pd\npd.Series([1.5, 2.5], index=['a', 'b'], name='v')")
    assert [column["name"] for column in table["columns"]] == ["index", "v"]
    assert table["rows"] == [["a", 1.5], ["b", 2.5]]


def test_a_long_table_is_cut_and_says_so(agent: AgentProcess) -> None:
    (table,) = agent.outputs("import pandas as pd\npd.DataFrame({'n': range(7000)})")
    assert len(table["rows"]) == 5000
    assert (table["totalRows"], table["truncated"]) == (7000, True)


def test_a_table_of_long_texts_is_cut_by_its_size(agent: AgentProcess) -> None:
    (table,) = agent.outputs("import pandas as pd\npd.DataFrame({'s': ['x' * 9000] * 4000})")
    assert 100 < len(table["rows"]) < 1000
    assert (table["totalRows"], table["truncated"]) == (4000, True)


def test_a_duckdb_relation_is_a_table(agent: AgentProcess) -> None:
    (table,) = agent.outputs("import duckdb\nduckdb.sql('select range as n, n * 0.5 as x from range(3)')")
    assert [column["name"] for column in table["columns"]] == ["n", "x"]
    assert table["rows"] == [[0, "0.0"], [1, "0.5"], [2, "1.0"]]
    assert (table["totalRows"], table["truncated"]) == (3, False)


def test_a_long_duckdb_relation_is_not_counted_to_its_end(agent: AgentProcess) -> None:
    (table,) = agent.outputs("import duckdb\nduckdb.sql('select * from range(1000000000000)')")
    assert len(table["rows"]) == 5000
    assert (table["totalRows"], table["truncated"]) == (None, True)


def test_a_plot_is_a_picture(agent: AgentProcess) -> None:
    outputs = agent.outputs("import matplotlib.pyplot as plt\nplt.plot([1, 3, 2]);")
    (picture,) = [output for output in outputs if output["type"] == "picture"]
    assert picture["mime"] == "image/png"
    assert base64.b64decode(picture["data"]).startswith(b"\x89PNG")


def test_html_and_svg_come_through(agent: AgentProcess) -> None:
    outputs = agent.outputs(
        "from IPython.display import HTML, SVG, display\ndisplay(SVG('<svg/>'))\nHTML('<b>bold</b>')"
    )
    assert outputs[0]["mime"] == "image/svg+xml"
    assert base64.b64decode(outputs[0]["data"]) == b"<svg/>"
    assert outputs[1] == {"type": "html", "text": "<b>bold</b>"}


def test_endless_output_is_cut_in_the_result_and_whole_in_the_log(agent: AgentProcess) -> None:
    result = agent.execute("for _ in range(40): print('y' * (1 << 19))")
    total = sum(len(output["text"]) for output in result["outputs"])
    assert 16 << 20 <= total < 17 << 20
    assert "output cut here" in result["outputs"][-1]["text"]
    assert agent.log("stdout").count("y") >= 40 << 19


def test_a_text_of_many_mib_printed_at_once_is_whole_in_the_log(agent: AgentProcess) -> None:
    agent.outputs("print('begin' + 'w' * (24 << 20) + 'end')")
    whole = agent.log("stdout")
    start = whole.index("beginw")
    assert whole[start : whole.index("wend", start) + 4] == "begin" + "w" * (24 << 20) + "end"


def test_each_line_that_was_flushed_is_in_the_log(agent: AgentProcess) -> None:
    agent.outputs("for n in range(3000): print('flushed', n, flush=True)")
    logged = [line for line in agent.log("stdout").splitlines() if line.startswith("flushed ")]
    assert logged == [f"flushed {n}" for n in range(3000)]


def test_more_displays_than_the_kernel_queues_end_the_task_without_delay(agent: AgentProcess) -> None:
    result = agent.execute("for n in range(3000): display(n)")
    assert result["status"] == "Succeed"
    assert [output["text"] for output in result["outputs"][:1000]] == [str(n) for n in range(1000)]
    assert "1000 outputs at most" in result["outputs"][1000]["text"]


def test_a_page_too_big_to_return_is_replaced_by_a_sentence(agent: AgentProcess) -> None:
    outputs = agent.outputs("from IPython.display import HTML\nHTML('h' * (80 << 20))")
    assert len(outputs) == 1
    assert "bytes left out" in outputs[0]["text"]
    assert agent.outputs("'next'") == [text("result", "'next'")]


def test_a_channel_lost_to_a_message_over_the_limit_comes_back(agent: AgentProcess) -> None:
    kernel = "get_ipython().kernel"
    agent.execute(f"k = {kernel}\nk.session.send(k.iopub_socket, 'comm_msg', {{}}, buffers=[bytes(80 << 20)])")
    assert agent.outputs("'back'") == [text("result", "'back'")]


def test_characters_that_are_none_come_back_as_question_marks(agent: AgentProcess) -> None:
    assert agent.outputs("print('a\\ud800b')") == [text("stdout", "a?b\n")]
    assert agent.outputs("'fine'") == [text("result", "'fine'")]


def test_a_task_over_its_timeout_is_interrupted_and_the_engine_goes_on(agent: AgentProcess) -> None:
    # When, and what is kept of it: test_engine.py.
    result = agent.execute("import time\ntime.sleep(600)", timeoutSeconds=0.3)
    assert result["status"] == "Timeout"
    assert agent.outputs("1") == [text("result", "1")]


def test_an_interrupted_task_is_cancelled_and_keeps_what_it_has_printed(agent: AgentProcess) -> None:
    word = f"{uuid.uuid4()}\n"  # the log has what the tasks of other tests printed
    pending = agent.start_execute(f"import time\nprint({word!r}, end='', flush=True)\ntime.sleep(600)")
    until(lambda: word in agent.log("stdout"))
    assert agent.call("POST", "/v1/interrupt")[0] == 202
    status, result = pending.answer()
    assert (status, result["status"]) == (200, "Cancelled")
    assert result["outputs"][0] == text("stdout", word)
    assert agent.outputs("1") == [text("result", "1")]


def test_an_interrupt_without_a_task_harms_nothing(agent: AgentProcess) -> None:
    assert agent.call("POST", "/v1/interrupt")[0] == 202
    assert agent.outputs("1") == [text("result", "1")]


def test_tasks_run_in_turn_and_the_seventeenth_waiting_one_is_refused(agent: AgentProcess) -> None:
    agent.execute("import time\nturns = []")
    running = agent.start_execute("time.sleep(600)", taskId="running")
    agent.wait_for_state("Busy")
    waiting = []
    for number in range(16):
        waiting.append(agent.start_execute(f"turns.append({number})", taskId=f"turn-{number}"))
        # Each is in the queue before the next one is sent: the order of arrival is what this is about.
        until(lambda number=number: f"task turn-{number} waits behind {number} others" in agent.log("stdout"))
    status, refused = agent.json("POST", "/v1/execute", {"code": "turns.append('late')"})
    assert (status, refused["error"].split(":")[0]) == (429, "16 tasks wait already")
    agent.call("POST", "/v1/interrupt")
    assert running.answer()[1]["status"] == "Cancelled"
    assert {pending.answer()[1]["status"] for pending in waiting} == {"Succeed"}
    assert agent.outputs("turns == list(range(16))") == [text("result", "True")]


def test_input_fails_with_an_error_and_does_not_hang(agent: AgentProcess) -> None:
    result = agent.execute("input('name? ')", timeoutSeconds=50)
    assert result["status"] == "Failed"
    assert result["outputs"][-1]["name"] == "StdinNotImplementedError"


@pytest.mark.parametrize("run_type", ["python", "py", "python3"])
def test_each_name_of_python_is_accepted(agent: AgentProcess, run_type: str) -> None:
    assert agent.execute("1", runType=run_type)["status"] == "Succeed"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"code": "select 1", "runType": "sql"}, "runType is 'sql': an engine of type python runs python, py, python3"),
        ({"code": " \n\t"}, "code is blank: send at least one statement"),
        ({}, "code is blank: send at least one statement"),
        ({"code": 5}, "code is not a string: send it as JSON text"),
        ({"code": "'\ud800'"}, "code has half of a surrogate pair: send characters that UTF-8 can hold"),
        ({"code": "1", "taskId": "\udc80"}, "taskId has half of a surrogate pair: send characters that UTF-8 can hold"),
        ({"code": "1", "timeoutSeconds": -1}, "timeoutSeconds is -1: send a number of seconds from 0"),
        ({"code": "1", "timeoutSeconds": "9"}, "timeoutSeconds is '9': send a number of seconds from 0"),
        ([1], "the body is not a JSON object: send one in UTF-8"),
        (b"{", "the body is not a JSON object: send one in UTF-8"),
        (b'{"code": "\xff"}', "the body is not a JSON object: send one in UTF-8"),
    ],
)
def test_bad_input_is_refused_with_a_sentence_and_runs_nothing(
    agent: AgentProcess, body: object, sentence: str
) -> None:
    before = agent.status()["tasksStarted"]
    status, answer = agent.json("POST", "/v1/execute", body)
    assert status == 400
    assert answer["error"].startswith(sentence)
    assert agent.status()["tasksStarted"] == before


def test_code_sees_no_token_neither_in_its_environment_nor_in_the_agents(agent: AgentProcess) -> None:
    (own,) = agent.outputs("import os; [name for name in os.environ if name.startswith('ECM_')]")
    assert own["text"] == "[]"
    for file in ("environ", "mem", "maps"):
        result = agent.execute(f"import os; open(f'/proc/{{os.getppid()}}/{file}', 'rb').read(1)")
        assert result["outputs"][-1].get("name") == "PermissionError", file
    assert TOKEN not in agent.log("stdout")
    assert TOKEN not in agent.log("stderr")


def test_the_kernel_starts_without_what_nobody_asked_for(start: Callable[..., AgentProcess]) -> None:
    names = "'pandas', 'pyarrow', 'matplotlib', 'duckdb', 'debugpy', 'jedi', 'sqlite3'"
    # Coverage, which the tests may run under, would load sqlite3 in each process.
    outputs = start(COVERAGE_PROCESS_CONFIG="").outputs(
        f"import sys; [name for name in ({names}) if name in sys.modules]"
    )
    assert outputs == [text("result", "[]")]


def test_packages_that_boot_lean_are_whole_for_the_user(agent: AgentProcess) -> None:
    outputs = agent.outputs(
        "import debugpy, jupyter_client, dateutil.parser\n"
        "print(jupyter_client.KernelManager.__name__, dateutil.parser.parse('24 Nov 2026').day)"
    )
    assert outputs[-1]["text"] == "KernelManager 24\n"


def test_the_catalogue_names_each_run_type_that_the_agent_takes() -> None:
    (plugin,) = yaml.safe_load_all((Path(__file__).parents[2] / "manifests/catalogue.yaml").read_text())
    assert tuple(plugin["spec"]["runTypes"]) == CAPABILITIES.run_types
