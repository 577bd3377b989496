"""Code that brings an event loop of its own, as scripts do."""

from __future__ import annotations

import pytest

from tools.testkit.agents.process import AgentProcess

MAIN = "import asyncio\nasync def main():\n    await asyncio.sleep(0.01)\n    return 'done'\n"


@pytest.mark.parametrize(
    "code",
    [
        "asyncio.run(main())",
        "asyncio.new_event_loop().run_until_complete(main())",
        "asyncio.get_event_loop().run_until_complete(main())",
        "loop = asyncio.get_event_loop()\nloop.run_until_complete(loop.create_task(main()))",
        "with asyncio.Runner() as runner:\n    told = runner.run(main())\ntold",
        "[asyncio.run(main()) for _ in range(3)][2]",
        "def f():\n    return asyncio.run(main())\nawait asyncio.sleep(0)\nf()",
        "async def g():\n    return asyncio.run(main())\nawait g()",
        "async def g():\n    return asyncio.get_event_loop().run_until_complete(main())\n"
        "await asyncio.gather(g(), g())\nawait g()",
        "import threading\ntold = []\nt = threading.Thread(target=lambda: told.append(asyncio.run(main())))\n"
        "t.start()\nt.join()\ntold[0]",
    ],
)
def test_a_loop_of_the_codes_own_runs(agent: AgentProcess, code: str) -> None:
    assert agent.outputs(MAIN + code) == [{"type": "text", "stream": "result", "text": "'done'"}]
    # The kernel's own loop is the running one as before, and a background task of one task ends in another.
    agent.outputs("background = asyncio.create_task(main())")
    assert agent.outputs("await background") == [{"type": "text", "stream": "result", "text": "'done'"}]


def test_an_error_inside_is_the_tasks_own(agent: AgentProcess) -> None:
    result = agent.execute("import asyncio\nasync def main():\n    1 / 0\nasyncio.run(main())")
    assert (result["status"], result["outputs"][0]["name"]) == ("Failed", "ZeroDivisionError")


@pytest.mark.parametrize(
    "code",
    [
        "\ufeffprint('told')",
        "\ufeff# -*- coding: gbk -*-\r\nprint('told')\r\n",
        "#!/usr/bin/env python3\nprint('told')",
        "if True:\r    print('told')\r",
        "\x0cprint('told')\x0c\n",
        "if __name__ == '__main__':\n    print('told')",
        "\n\n   \nprint('told')\n\n",
        "from __future__ import annotations\nprint('told')",
        "# no line end",
    ],
)
def test_code_in_the_forms_of_files_runs(agent: AgentProcess, code: str) -> None:
    told = [{"type": "text", "stream": "stdout", "text": "told\n"}]
    assert agent.outputs(code) == (told if "told" in code else [])


def test_code_finds_no_arguments(agent: AgentProcess) -> None:
    code = (
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('--n', type=int, default=3)\np.parse_args().n"
    )
    assert agent.outputs(code) == [{"type": "text", "stream": "result", "text": "3"}]
    assert agent.outputs("import sys; sys.argv") == [{"type": "text", "stream": "result", "text": "['']"}]
