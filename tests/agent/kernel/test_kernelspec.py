"""The kernelspec executor with a kernel that is not ipykernel: Deno's, which runs TypeScript and is written in Rust."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tools.testkit.agents.process import PATIENCE, AgentProcess, children, command_line, until

DENO = Path(sys.executable).parent / "deno"


def kernelspec(folder: Path, name: str = "deno", **changes: object) -> Path:
    """A folder for JUPYTER_PATH with one kernel in it."""
    place = folder / "kernels" / name
    place.mkdir(parents=True)
    spec: dict[str, object] = {
        "argv": [str(DENO), "jupyter", "--kernel", "--conn", "{connection_file}"],
        "display_name": "Deno",
        "language": "typescript",
        "env": {
            "DENO_DIR": str(folder / "cache"),
            "NO_COLOR": "1",
            "DENO_NO_UPDATE_CHECK": "1",
            "FROM_SPEC": "${LANG}/spec",
        },
    }
    (place / "kernel.json").write_text(json.dumps(spec | changes))
    return folder


def settings(jupyter_path: Path, name: str = "deno") -> dict[str, str]:
    return {"ECM_EXECUTOR": "kernelspec", "ECM_KERNEL_NAME": name, "JUPYTER_PATH": str(jupyter_path), "LANG": "C.UTF-8"}


def kernel_of(agent: AgentProcess) -> int:
    return until(lambda: next((pid for pid in children(agent.process.pid) if "jupyter" in command_line(pid)), 0))


@pytest.fixture(scope="module")
def deno(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    agent = AgentProcess(
        tmp_path_factory.mktemp("deno"), wait=True, **settings(kernelspec(tmp_path_factory.mktemp("path")))
    )
    yield agent
    agent.close()


def test_it_prints_and_gives_the_last_value(deno: AgentProcess) -> None:
    result = deno.execute("console.log('line'); 6 * 7")
    assert result["status"] == "Succeed"
    assert [(part["stream"], part["text"]) for part in result["outputs"]] == [("stdout", "line\n"), ("result", "42")]


def test_its_memory_is_kept_from_task_to_task(deno: AgentProcess) -> None:
    deno.outputs("let kept = 20")
    assert [part["text"] for part in deno.outputs("kept + 1")] == ["21"]


def test_an_error_has_its_name_and_value(deno: AgentProcess) -> None:
    result = deno.execute("throw new TypeError('no such thing')")
    assert result["status"] == "Failed"
    (error,) = [part for part in result["outputs"] if part["type"] == "error"]
    assert "no such thing" in f"{error['name']}: {error['value']}"


def test_run_types_are_its_language_and_its_name(deno: AgentProcess) -> None:
    for run_type in ("typescript", "deno"):
        assert deno.execute("1", runType=run_type)["status"] == "Succeed"
    status, refusal = deno.json("POST", "/v1/execute", {"code": "1", "runType": "python"})
    assert status == 400
    assert "runType is 'python': an engine of type typescript runs typescript or deno" in json.dumps(refusal)


def test_the_specs_env_is_expanded_and_the_agents_own_is_not_there(deno: AgentProcess) -> None:
    code = "[Deno.env.get('FROM_SPEC'), Object.keys(Deno.env.toObject()).filter(n => n.startsWith('ECM_')).length]"
    (part,) = deno.outputs(code)
    assert part["text"] == '[ "C.UTF-8/spec", 0 ]'


def test_a_restart_forgets_and_takes_code_again(deno: AgentProcess) -> None:
    deno.outputs("globalThis.forgotten = 1")
    before = kernel_of(deno)
    assert deno.json("POST", "/v1/restart") == (200, {})
    assert kernel_of(deno) != before
    assert [part["text"] for part in deno.outputs("'forgotten' in globalThis")] == ["false"]


def test_a_killed_kernel_is_reported_with_its_signal(start: Callable[..., AgentProcess], tmp_path: Path) -> None:
    agent = start(**settings(kernelspec(tmp_path / "path")))
    result = agent.execute("Deno.kill(Deno.pid, 'SIGKILL'); await new Promise(() => {})")
    assert result["status"] == "Failed"
    assert "the kernel was killed by SIGKILL" in result["outputs"][-1]["value"]
    assert agent.exit_code() == 128 + 9


def test_a_stop_ends_it_within_its_grace(start: Callable[..., AgentProcess], tmp_path: Path) -> None:
    agent = start(**settings(kernelspec(tmp_path / "path")))
    assert agent.json("POST", "/v1/stop", {"graceSeconds": 5, "reason": "test"})[0] == 202
    assert agent.exit_code() == 0


@pytest.mark.parametrize(
    ("name", "code"),
    [
        # interrupt_mode message, over the control channel; and signal, with ipykernel by its own kernelspec.
        ("deno", "console.log('begun'); while (true) {}"),
        ("python3", "print('begun')\nwhile True: pass"),
    ],
)
def test_an_interrupt_ends_the_task_and_the_kernel_takes_the_next(
    name: str, code: str, start: Callable[..., AgentProcess], tmp_path: Path
) -> None:
    agent = start(**settings(kernelspec(tmp_path / "path", interrupt_mode="message"), name))
    running = agent.start_execute(code)
    until(lambda: agent.status()["state"] == "Busy" and "begun" in agent.log("stdout"))
    agent.json("POST", "/v1/interrupt")
    status, result = running.answer()
    assert (status, result["status"]) == (200, "Cancelled")
    assert agent.outputs("20 + 2")[0]["text"] == "22"


def refused(folder: Path, environment: dict[str, str]) -> str:
    """What the agent says that does not start."""
    done = subprocess.run(
        [sys.executable, "-m", "linkis_ecm.agent"],
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "PYTHONPATH": ":".join(sys.path)} | environment,
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    return done.stderr


def test_a_kernel_that_cannot_start_is_refused_with_setting_and_remedy(tmp_path: Path) -> None:
    path = kernelspec(tmp_path / "a")
    missing = kernelspec(tmp_path / "b", argv=["/no/such/program", "{connection_file}"])
    assert "ECM_EXECUTOR is 'perl': write one of ipython, kernelspec" in refused(tmp_path, {"ECM_EXECUTOR": "perl"})
    words = refused(tmp_path, settings(path, "nope"))
    assert "ECM_KERNEL_NAME is 'nope', which is no kernel of this image; there are: deno" in words
    assert "no kernel of this image" in refused(tmp_path, settings(path, ""))
    assert "runs '/no/such/program', which is not in this image" in refused(tmp_path, settings(missing))


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"argv": [3]}', '{"argv": "python -m x"}', '{"argv": ["a"], "env": {"A": 1}}', "3"]
)
def test_a_kernel_json_of_another_shape_is_refused(content: str, tmp_path: Path) -> None:
    broken = kernelspec(tmp_path / "path")
    (broken / "kernels/deno/kernel.json").write_text(content)
    assert "ECM_KERNEL_NAME 'deno': its kernel.json cannot be read" in refused(tmp_path, settings(broken))


def test_a_kernel_that_cannot_be_restarted_ends_the_engine(start: Callable[..., AgentProcess], tmp_path: Path) -> None:
    path = kernelspec(tmp_path / "path")
    agent = start(**settings(path))
    (path / "kernels/deno/kernel.json").unlink()
    status, refusal = agent.json("POST", "/v1/restart")
    assert (status, "its kernel was not restarted" in json.dumps(refusal)) == (409, True)
    assert agent.exit_code() == 1
    assert "the kernel could not be started again" in agent.log("stdout") + agent.log("stderr")
