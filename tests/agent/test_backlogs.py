"""A follower who joins another one: told what that one was told until now, and then the same events."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from linkis_ecm.agent.formats.cursors import Cursor
from linkis_ecm.agent.outputs import Outputs
from tools.testkit.agents.process import AgentProcess


def shown(changes: list[dict[str, Any]], before: dict[int, Any]) -> dict[int, Any]:
    """What a client shows after these events, which it gets as JSON."""
    for change in json.loads(json.dumps(changes)):
        if "reset" in change:
            before = {}
            continue
        index, output = change["index"], change["output"]
        old = before.get(index)
        if old is not None and output["type"] == "text" and not change.get("replaces"):
            output = output | {"text": old["text"] + output["text"]}
        before = before | {index: output}
    return before


def step(outputs: Outputs, dice: random.Random) -> None:
    """Something that code may do with its outputs."""
    match dice.randrange(9):
        case 0 | 1 | 2:
            outputs.stream(dice.choice(["stdout", "stdout", "stderr"]), dice.choice(["a", "line\n", "xyz " * 9]))
        case 3:
            outputs.stream("stdout", "\r" + "#" * dice.randrange(5))
        case 4:
            shown_as = {"data": {"text/plain": "one"}, "transient": {"display_id": str(dice.randrange(3))}}
            outputs.message("display_data", shown_as)
        case 5 | 6:
            changed = {"data": {"text/plain": f"{dice.random()}"}, "transient": {"display_id": str(dice.randrange(3))}}
            outputs.message("update_display_data", changed)
        case 7:
            outputs.error("ValueError", "no", ["line"])
        case 8 if dice.random() < 0.2:
            outputs.message("clear_output", {"wait": False})


@pytest.mark.parametrize("seed", range(150))
def test_who_joins_another_follower_sees_what_the_task_has_shown(seed: int) -> None:
    dice = random.Random(seed)
    # Small bounds, so that they are reached, too.
    outputs = Outputs(max_bytes=dice.choice([60, 400, 1 << 20]), max_outputs=dice.choice([4, 1000]))
    first, seen = {}, Cursor()
    # Of who joins: where it is, what it shows; and whether it follows the first one by now.
    late: list[tuple[Cursor, dict[int, Any], bool]] = [(Cursor(), {}, False)]
    for _ in range(dice.randrange(5, 60)):
        step(outputs, dice)
        if dice.random() < 0.4:
            changes, seen = outputs.since(seen)
            first = shown(changes, first)
            late = [(seen, shown(changes, view), True) if joined else (at, view, False) for at, view, joined in late]
        if dice.random() < 0.3 and late[-1][2] is False:
            at, view, _ = late.pop()
            changes, end = outputs.since(at, seen)
            assert end == seen
            late.append((seen, shown(changes, view), True))
            # One more, who has followed by itself until the first one's place, or from the beginning.
            late.append((seen, view_of(outputs, seen), False) if dice.random() < 0.5 else (Cursor(), {}, False))
    changes, _ = outputs.since(seen)
    whole = visible(dict(enumerate(outputs.result())))
    assert visible(shown(changes, first)) == whole
    for _, view, joined in late:
        if joined:
            assert visible(shown(changes, view)) == whole


def visible(view: dict[int, Any]) -> dict[int, Any]:
    """An empty text is told to nobody: what rewrites its only line may leave one."""
    return {index: output for index, output in view.items() if output.get("text") != ""}


def view_of(outputs: Outputs, place: Cursor) -> dict[int, Any]:
    """What who has come to that place from the beginning shows."""
    return shown(outputs.since(Cursor(), place)[0], {})


@pytest.mark.parametrize("until", ["0.9.0.0", "0.0.0.7", "1.0.0.0", "0.1.5.0"])
def test_a_place_that_nobody_was_at_is_refused(until: str) -> None:
    outputs = Outputs()
    outputs.stream("stdout", "text")
    with pytest.raises(ValueError, match="is no place behind"):
        outputs.since(Cursor(), Cursor.parse(until))


def test_a_place_before_the_follower_is_refused() -> None:
    outputs = Outputs()
    outputs.stream("stdout", "text")
    _, place = outputs.since(Cursor())
    with pytest.raises(ValueError, match="is no place behind"):
        outputs.since(place, Cursor())


def test_the_agent_tells_a_running_task_up_to_a_place_and_ends_there(agent: AgentProcess, tmp_path: Path) -> None:
    go = tmp_path / "go"
    code = (
        "import os, time\nprint('first', flush=True)\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.01)\nprint('second')"
    )
    agent.json("POST", "/v1/execute", {"code": code, "taskId": "until", "wait": False})
    following = agent.stream("/v1/tasks/until/events")
    place = ""
    for line in following:
        if line.strip() and json.loads(line)["event"] == "output":
            place = json.loads(line)["id"]
            break
    told = [json.loads(line) for line in agent.stream(f"/v1/tasks/until/events?until={place}")]
    assert [(event["event"], event.get("id")) for event in told] == [("output", None), ("status", place)]
    assert told[0]["output"]["text"] == "first\n"
    assert [
        json.loads(line)["event"] for line in agent.stream(f"/v1/tasks/until/events?from={place}&until={place}")
    ] == ["status"]
    assert agent.json("GET", "/v1/tasks/until/events?until=0.7.0.0")[0] == 409
    assert agent.json("GET", "/v1/tasks/until/events?until=no")[0] == 400
    go.touch()
    assert [json.loads(line)["event"] for line in following if line.strip()][-1] == "end"
    # Of a task that has ended everything is told, to its end.
    told = [json.loads(line) for line in agent.stream(f"/v1/tasks/until/events?until={place}")]
    assert told[-1]["event"] == "end"
