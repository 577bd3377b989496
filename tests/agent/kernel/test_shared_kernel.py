"""A shared engine: each user's code has a kernel that has run nobody else's, however the calls come."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from linkis_ecm.agent.formats.names import OTHERS_TASK
from linkis_ecm.agent.kernel_user import KernelUser
from linkis_ecm.agent.tasks import OtherTaskError, Task, TaskBook
from tests.agent.test_tasks import over
from tools.testkit.agents.process import AgentProcess


def send(agent: AgentProcess, user: str, code: str, **more: Any) -> dict[str, Any]:
    status, told = agent.json("POST", "/v1/execute/shared", {"user": user, "code": code} | more)
    assert status in (200, 202), told
    return dict(told)


def shown(agent: AgentProcess, user: str, code: str) -> str:
    return str(send(agent, user, code)["outputs"][0]["text"])


def test_a_change_of_user_makes_a_new_kernel_and_the_same_user_keeps_it(start: Callable[..., AgentProcess]) -> None:
    agent = start()
    first = shown(agent, "alice", "import os; x = 1; os.getpid()")
    assert shown(agent, "alice", "import os; (x, os.getpid())") == f"(1, {first})", "nobody was before: no restart"
    assert shown(agent, "bob", "'x' in globals()") == "False"
    assert shown(agent, "alice", "'x' in globals()") == "False", "back, too"
    send(agent, "alice", "busy = 1; import time; time.sleep(600)", taskId="busy", wait=False)
    send(agent, "alice", "2", taskId="waits", wait=False)
    status, told = agent.json("POST", "/v1/execute/shared", {"user": "bob", "code": "1"})
    assert (status, told) == (409, {"error": OTHERS_TASK}), "bob's code waits for no end of alice's, and makes none"
    assert agent.json("POST", "/v1/execute", {"code": "1"}) == (409, told), "nor does code of everybody"
    assert send(agent, "bob", "'busy' in globals()", force=True)["outputs"][0]["text"] == "False"
    assert over(agent, "busy")["status"] == over(agent, "waits")["status"] == "Cancelled"


def test_code_of_nobody_before_makes_a_new_kernel_too(start: Callable[..., AgentProcess]) -> None:
    agent = start()
    agent.execute("x = 1")
    assert shown(agent, "alice", "'x' in globals()") == "False"


def test_code_of_everybody_never_shares_a_kernel_with_a_users(start: Callable[..., AgentProcess]) -> None:
    """`shareKernel` is set and unset while the engine runs."""
    agent = start()
    send(agent, "alice", "x = 'of alice'")
    assert agent.execute("'x' in globals()")["outputs"][0]["text"] == "False"
    agent.execute("x = 'of everybody'")
    assert agent.execute("x")["outputs"][0]["text"] == "'of everybody'", "they keep theirs"
    assert shown(agent, "alice", "'x' in globals()") == "False"


def test_a_task_that_is_known_is_given_again_whoever_has_the_kernel(start: Callable[..., AgentProcess]) -> None:
    agent = start()
    send(agent, "alice", "1 + 1", taskId="known")
    send(agent, "bob", "y = 1")
    assert send(agent, "alice", "1 + 1", taskId="known")["outputs"][0]["text"] == "2"
    assert shown(agent, "bob", "y") == "1", "and ended no kernel"


def test_users_who_send_at_once_never_share_a_kernel(start: Callable[..., AgentProcess]) -> None:
    agent = start()
    answers: list[dict[str, Any]] = []

    def call(user: str, number: int) -> None:
        code = f"seen = sorted({{*globals().get('seen', []), {user!r}}}); seen"
        body = {"user": user, "code": code, "taskId": f"{user}-{number}"}
        while True:
            status, told = agent.json("POST", "/v1/execute/shared", body)
            if (status, told) != (409, {"error": OTHERS_TASK}):
                break
            time.sleep(0.05)
        assert status == 200, told
        answers.append(told)

    threads = [threading.Thread(target=call, args=(user, n)) for n in range(3) for user in ("alice", "bob", "carol")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 9
    for answer in answers:
        ran = [part["text"] for part in answer["outputs"] if part["type"] == "text"]
        assert ran in ([], [f"['{answer['taskId'].partition('-')[0]}']"]), answer


@pytest.mark.parametrize("user", ["", None, "u" * 129])
def test_a_path_of_shared_engines_without_a_user_runs_nothing(agent: AgentProcess, user: str | None) -> None:
    status, told = agent.json("POST", "/v1/execute/shared", {"user": user, "code": "1"})
    assert (status, "user is" in json.dumps(told)) == (400, True)
    assert agent.json("POST", "/v1/execute", {"user": "alice", "code": "1"})[0] == 400


class Scripted:
    """An engine whose restarts take until the test lets them."""

    def __init__(self) -> None:
        self.tasks = TaskBook("", lambda: 0.0, lambda _: None)
        self.restarts = 0
        self.gate = asyncio.Event()
        self.ran: list[tuple[int, str]] = []
        self.has_tasks = False

    async def restart_kernel(self) -> None:
        self.restarts += 1
        await self.gate.wait()

    def submit(self, *, task_id: str, code: str, timeout: float | None) -> Task:
        task = Task(
            id=task_id, code=code, timeout=timeout, accepted=0.0, done=asyncio.get_running_loop().create_future()
        )
        self.tasks.add(task)
        self.ran.append((self.restarts, task_id))
        return task


async def test_a_restart_that_breaks_off_leaves_the_kernel_to_nobody() -> None:
    engine = Scripted()
    users = KernelUser(engine)  # type: ignore[arg-type]
    await users.submit("alice", task_id="a1", code="1", timeout=None)
    broken = asyncio.create_task(users.submit("bob", task_id="b1", code="1", timeout=None))
    await asyncio.sleep(0)
    assert engine.restarts == 1
    broken.cancel()
    await asyncio.gather(broken, return_exceptions=True)
    engine.gate.set()
    await users.submit("alice", task_id="a2", code="1", timeout=None)
    await users.submit("carol", task_id="c1", code="1", timeout=None)
    assert engine.ran == [(0, "a1"), (2, "a2"), (3, "c1")], "alice needs a new one as well: bob's may have begun"


async def test_another_code_under_a_known_id_is_refused_before_any_restart() -> None:
    engine = Scripted()
    users = KernelUser(engine)  # type: ignore[arg-type]
    await users.submit("alice", task_id="t", code="1", timeout=None)
    with pytest.raises(OtherTaskError):
        await users.submit("bob", task_id="t", code="2", timeout=None)
    assert engine.restarts == 0
