"""What a type checker makes of the client's methods. mypy alone looks at this (`make lint`): nothing runs it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import assert_type

from linkis_ecm.api.models import AskEngineAnswer, EngineInfo, ExecuteAnswer, PluginsAnswer, TaskInfo
from linkis_ecm.client import AsyncEcmClient, EcmClient, TaskEvent


def blocking(client: EcmClient) -> None:
    assert_type(client.create_engine_connection("python", env={"A": "b"}), EngineInfo)
    assert_type(client.ask_engine_conn("python", creator="IDE", explain=True), AskEngineAnswer)
    assert_type(client.list_engine_plugins(), PluginsAnswer)
    assert_type(client.executeCode("e", "1+1", "python", timeout_seconds=3), ExecuteAnswer)
    assert_type(client.task_events("e", "t"), Generator[TaskEvent, None, None])
    assert_type(client.follow_engine_log("e"), Generator[str, None, None])
    assert_type(client.wait_until_ready("e", timeout=1.0), EngineInfo)
    client.get_task("e", taskId="t")  # type: ignore[call-arg]
    client.execute_code(1, "1+1")  # type: ignore[arg-type]
    with client.engine("python", idle_timeout="30m") as engine:
        assert_type(engine.execute("1+1", timeout_seconds=3), ExecuteAnswer)
        assert_type(engine.submit("1+1"), TaskInfo)
        assert_type(engine.events("t"), Generator[TaskEvent, None, None])
        engine.execute("1+1", engine_id="e")  # type: ignore[call-arg]


async def asynchronous(client: AsyncEcmClient) -> None:
    assert_type(await client.create_engine_connection("python"), EngineInfo)
    assert_type(await client.ask_engine_conn("python"), AskEngineAnswer)
    assert_type(client.task_events("e", "t"), AsyncGenerator[TaskEvent, None])
    async with client.engine("python") as engine:
        assert_type(await engine.execute("1+1"), ExecuteAnswer)
        assert_type(engine.follow_log(), AsyncGenerator[str, None])
