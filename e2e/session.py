"""A console's life in curl: `python -m e2e.session http://127.0.0.1:9102 TOKEN > docs/session.md`.

Each command that the page shows was run by bash as it stands there, against the gateway given, and what follows it is
its answer, cut where it is long. A call that does not answer as a console needs it ends the run. The token stands in
the environment alone and is never printed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Annotated, Any, TextIO

import typer

# What is shown of an answer: enough to see its shape.
LINES, ENTRIES, CHARACTERS = 100, 15, 160
CALL_SECONDS = 180
FUNCTION = (
    f'ecm() {{ curl -sS --max-time {CALL_SECONDS} -H "Token-Code: $TOKEN" -H "Token-User: $USER_NAME"'
    " -H 'Content-Type: application/json' \"$@\"; }"
)
COUNTING = r"import time\nfor n in range(1, 6):\n    print(\"step\", n, flush=True); time.sleep(0.2)"
TABLE = r"import pandas as pd\npd.DataFrame({\"city\": [\"Oslo\", \"Rome\"], \"people\": [717710, 2748109]})"


class SessionError(Exception):
    """A call answered otherwise than the session needs it; the text says which and how."""


@dataclass
class Session:
    """Runs commands in bash and writes them down with their answers."""

    gateway: str
    token: str = field(repr=False)
    user: str
    seconds: float
    out: TextIO
    names: dict[str, str] = field(default_factory=dict)

    def say(self, text: str = "") -> None:
        # What is printed is published: an answer that held the token would end here.
        if self.token in text:
            raise SessionError("an answer has the token in it, so it is not printed")
        print(text, file=self.out, flush=True)

    def name(self, **names: str) -> None:
        """Shell variables for the commands that follow."""
        self.names |= names
        self.say("```console\n" + "\n".join(f"$ {name}={value}" for name, value in names.items()) + "\n```\n")

    def bash(self, command: str) -> str:
        """What the command printed. Raises SessionError where it failed."""
        environment = {
            **os.environ, **self.names, "TOKEN": self.token, "USER_NAME": self.user,
            "ECM": f"{self.gateway}/api/rest_j/v1/engineconnManager",
            "LINKIS": f"{self.gateway}/api/rest_j/v1/linkisManager",
        }  # fmt: skip
        try:
            done = subprocess.run(
                ["bash", "-c", f"{FUNCTION}\n{command}"],
                env=environment, capture_output=True, text=True, check=False, timeout=CALL_SECONDS + 10,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise SessionError(f"{command}\nwas not answered within {CALL_SECONDS} s") from None
        if done.returncode:
            raise SessionError(f"{command}\nended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def show(self, command: str, answer: str, kind: str) -> None:
        self.say(f"```console\n$ {command}\n```\n")
        self.say(f"```{kind}\n{answer.rstrip()}\n```\n")

    def call(self, command: str, *, status: int = 0) -> dict[str, Any]:
        """Runs a call that answers with a Message of that status; its data."""
        message = self._message(command)
        if message.get("status") != status:
            raise SessionError(f"{command}\nanswered {message.get('status')}: {message.get('message')}")
        self.show(command, cut_lines(json.dumps(shortened(message), indent=2, ensure_ascii=False)), "json")
        data: dict[str, Any] = message.get("data") or {}
        return data

    def wait(self, command: str, ready: Callable[[dict[str, Any]], bool]) -> None:
        """Repeats a call until it is as wanted, twice a second; then as `call`. Raises SessionError."""
        deadline = time.monotonic() + self.seconds
        while not ready(self._message(command).get("data") or {}):
            if time.monotonic() >= deadline:
                raise SessionError(f"{command}\ndid not become as wanted within {self.seconds:g} s")
            time.sleep(0.5)
        self.call(command)

    def text(self, command: str, expect: str) -> str:
        """Runs a call whose answer is text that must hold `expect`."""
        answer = self.bash(command).replace("\r\n", "\n")
        if expect not in answer:
            raise SessionError(f"{command}\nhas no {expect!r} in its answer:\n{answer[:2000]}")
        self.show(command, cut_lines(answer), "text")
        return answer

    def _message(self, command: str) -> dict[str, Any]:
        answer = self.bash(command)
        try:
            message = json.loads(answer)
        except ValueError:
            raise SessionError(f"{command}\nanswered with no JSON: {answer[:500]}") from None
        if not isinstance(message, dict):
            raise SessionError(f"{command}\nanswered with no Message: {answer[:500]}")
        return message


def shortened(value: Any) -> Any:
    """The same value with long texts and lists cut, which it says."""
    if isinstance(value, dict):
        return {name: shortened(one) for name, one in value.items()}
    if isinstance(value, list):
        left = len(value) - ENTRIES
        return [shortened(one) for one in value[:ENTRIES]] + ([f"… and {left} more"] if left > 0 else [])
    if isinstance(value, str) and len(value) > CHARACTERS:
        return f"{value[:CHARACTERS]} … {len(value)} characters"
    return value


def cut_lines(text: str) -> str:
    """The first lines, each cut too."""
    lines = text.rstrip("\n").split("\n")
    kept = [line if len(line) <= 2 * CHARACTERS else f"{line[: 2 * CHARACTERS]} …" for line in lines[:LINES]]
    left = len(lines) - LINES
    return "\n".join(kept + ([f"… and {left} more lines"] if left > 0 else []))


def life(session: Session) -> None:
    """The whole session, from create to the log after the end."""
    say = session.say
    say("# A console's session in curl")
    say()
    say(
        "Made by `python -m e2e.session URL TOKEN` from one run against a real gateway: each command was run by bash as"
        "\nit stands here, and what follows it is its answer, cut where it is long."
    )
    say()
    say(f"```console\n$ GATEWAY={session.gateway}\n$ ECM=$GATEWAY/api/rest_j/v1/engineconnManager")
    say("$ LINKIS=$GATEWAY/api/rest_j/v1/linkisManager")
    say(f"$ TOKEN=…\n$ USER_NAME={session.user}\n$ {FUNCTION}\n```\n")
    create(session)
    try:
        execute(session)
        logs(session)
        others(session)
    finally:
        kill(session)
    afterwards(session)


def create(session: Session) -> None:
    session.say("## Create\n\nLinkis's own call; it answers when the engine takes code.\n")
    labels = f'"labels": {{"engineType": "python", "userCreator": "{session.user}-IDE"}}'
    engine = session.call(f"ecm $LINKIS/createEngineConn -d '{{{labels}, \"timeout\": 120000}}'")["engine"]
    session.say("What the calls that follow name it by:\n")
    session.name(TICKET=engine["ticketId"], INSTANCE=engine["serviceInstance"]["instance"])
    session.say("## Status\n")
    found = session.call('ecm "$ECM/getEngineStatus?engineId=$TICKET"')
    session.name(EM=found["ecmInstance"])
    session.call("ecm $LINKIS/listUserEngines")


def execute(session: Session) -> None:
    begin = """ecm $ECM/executeCode -d '{"engineId": "'$TICKET'", "runType": "python", """
    session.say("## Run code\n\nAt once: the answer is the result, here a table.\n")
    session.call(f"""{begin}"code": "{TABLE}"}}'""")
    session.say(
        "As a task, whose output is followed while it runs. Text goes on behind what was told of its `index`; with"
        " `replaces: true` it stands in place of that:\n"
    )
    task = session.call(f"""{begin}"wait": false, "code": "{COUNTING}"}}'""")
    session.name(TASK=task["taskId"])
    session.text('ecm -N "$ECM/taskEvents?engineId=$TICKET&taskId=$TASK"', "event: end")
    session.call('ecm "$ECM/getTaskResult?engineId=$TICKET&taskId=$TASK"')


def logs(session: Session) -> None:
    session.say("## Logs\n\nBy lines:\n")
    lines = 'ecm "$ECM/getEngineLogs?engineId=$TICKET&logType=stdout&fromLine=1&lines=20"'
    found = session.call(lines)
    if "step 1" not in found["logs"]:
        raise SessionError(f"{lines}\nhas not what the task printed: {found['logs']}")
    session.say("As the console's viewer asks for a page, from the first line on:\n")
    body = (
        """'{"applicationName": "linkis-cg-engineconn", "emInstance": "'$EM'", "instance": "'$INSTANCE'", """
        """"parameters": {"logType": "stdout", "fromLine": 0, "pageSize": 1000}}'"""
    )
    opened = session.call(f"ecm $LINKIS/openEngineLog -d {body}")
    session.say("The folder of its `logPath` is what the console's download link sends as `logDirSuffix`:\n")
    session.name(FOLDER=str(PurePosixPath(opened["result"]["logPath"]).parent))
    session.text(download("-D - -o /dev/null"), "HTTP/1.1 200 OK")
    session.say("A part of it, as a browser goes on with a broken download:\n")
    session.text(download("-i -H 'Range: bytes=0-79'"), "HTTP/1.1 206 Partial Content")


def download(options: str, log_type: str = "stdout") -> str:
    """downloadEngineLog with options of curl."""
    return (
        f"ecm -G {options} $ECM/downloadEngineLog -d emInstance=$EM -d instance=$INSTANCE"
        f" --data-urlencode logDirSuffix=$FOLDER -d logType={log_type}"
    )


def others(session: Session) -> None:
    session.say("## Somebody else\n\nThe token speaks for him too, and the engine is not his:\n")
    session.call('USER_NAME=eve ecm "$ECM/getEngineStatus?engineId=$TICKET"', status=3)
    session.say("## Its record\n\nThe console's history page, for this engine:\n")
    session.call('ecm "$LINKIS/ecinfo/ecrHistoryList?instance=$INSTANCE&pageNow=1&pageSize=10"')


def kill(session: Session) -> None:
    session.say("## Kill\n")
    body = """'{"applicationName": "linkis-cg-engineconn", "instance": "'$INSTANCE'"}'"""
    session.call(f"ecm $LINKIS/killEngineConn -d {body}")


def afterwards(session: Session) -> None:
    session.say("## After its end\n\nAsked until it has ended; this is the last answer:\n")
    session.wait('ecm "$ECM/getEngineStatus?engineId=$TICKET"', lambda found: bool(found.get("finishedTime")))
    session.say("Why it ended, and what is kept of it:\n")
    session.call('ecm "$ECM/getPostMortem?engineId=$TICKET"')
    session.say("Its log, now from the archive, by lines and as a file:\n")
    session.call('ecm "$ECM/getEngineLogs?engineId=$TICKET&logType=stdout&fromLine=1&lines=20"')
    session.text(download("-i -H 'Range: bytes=0-79'"), "HTTP/1.1 206 Partial Content")
    session.say("And its row in the history:\n")
    session.wait(
        'ecm "$LINKIS/ecinfo/ecrHistoryList?instance=$INSTANCE&pageNow=1&pageSize=10"',
        lambda found: any(row.get("releaseTime") for row in found.get("engineList", ())),
    )


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.command()
def main(
    url: Annotated[str, typer.Argument(help="of the gateway, like http://127.0.0.1:9102")],
    token: Annotated[str, typer.Argument(help="one that may speak for the user", envvar="ECM_SESSION_TOKEN")],
    user: Annotated[str, typer.Option(help="whose engine it is")] = "hadoop",
    seconds: Annotated[float, typer.Option(help="the longest wait for the engine's end")] = 120,
) -> None:
    """Runs a console's session and prints it as Markdown."""
    try:
        life(Session(url.rstrip("/"), token, user, seconds, sys.stdout))
    except SessionError as error:
        print(f"session: {str(error).replace(token, '…')}", file=sys.stderr)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    app()
