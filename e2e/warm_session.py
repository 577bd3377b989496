"""Warm and cold starts in kubectl and curl: `python -m e2e.warm_session http://127.0.0.1:9102 TOKEN NAMESPACE`.

Puts the session into docs/warm-pools.md: each command was run by bash as it stands there, and what follows it is its
answer. Needs a release whose Python plugin has a warm pool of two, and a kubectl that reaches its cluster; the engines
are made in NAMESPACE and deleted at the end. Must not measure.
"""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from e2e.session import FUNCTION, Session, SessionError
from tools import pages

PAGE = Path(__file__).parents[1] / "docs/warm-pools.md"
NAME, MAKER = "session", "python -m e2e.warm_session"
ENGINES = {
    "fits": "  env: [{name: GREETING, value: hello}]",
    "on-a-node": (
        "  podTemplate: {spec: {nodeSelector: {kubernetes.io/os: linux}}}\n"
        "  volumes: [{name: scratch, mountPath: /scratch, emptyDir: {}}]"
    ),
}
CROWD = tuple(f"crowd-{number}" for number in range(1, 6))
READY = "kubectl wait -n $NAMESPACE ec {names} --for=condition=Ready --timeout=120s"
STARTS = (
    "kubectl get ec -n $NAMESPACE -o"
    " custom-columns=NAME:.metadata.name,START:.status.startup.kind,BECAUSE:.status.startup.coldBecause"
)
TICKET = "kubectl get ec {name} -n $NAMESPACE -o jsonpath={{.status.ticketId}}"
EXPLAIN = 'ecm "$ECM/explainEngine?engineId=$TICKET" | python3 -m json.tool | grep \'"summary"\''


def head(name: str, user: str) -> str:
    """An EngineConn's first lines."""
    return (
        f"apiVersion: linkis.apache.org/v1alpha1\nkind: EngineConn\nmetadata: {{name: {name}}}\n"
        f"spec:\n  engineType: python\n  user: {user}"
    )


def life(session: Session) -> None:
    """An engine that fits, one that does not, and more than the pool has. Raises SessionError."""
    say = session.say
    say("The pool has two pods ready:\n")
    session.text("kubectl get ecp", "2/2")
    say("An engine with a variable of its own: a pod that runs already can be given that.\n")
    started(session, "fits")
    explained(session, "fits", "started warm")
    say("One with a node rule and a volume: only a new pod can have them.\n")
    started(session, "on-a-node")
    explained(session, "on-a-node", "spec.podTemplate.spec.nodeSelector, spec.volumes")
    say("And five at once, while the pool has two:\n")
    until_two(session)
    bodies = f"for n in 1 2 3 4 5; do cat <<EOF\n---\n{head('crowd-$n', session.user)}\nEOF\ndone"
    session.text(f"{bodies} | kubectl apply -n $NAMESPACE -f -", f"{CROWD[-1]} created")
    session.text(READY.format(names=" ".join(CROWD)), f"{CROWD[-1]} condition met")
    say("How each of them started:\n")
    session.text(STARTS, "had no pod ready")


def started(session: Session, name: str) -> None:
    """Makes one of ENGINES and waits until it is ready."""
    manifest = f"{head(name, session.user)}\n{ENGINES[name]}"
    session.text(f"kubectl apply -n $NAMESPACE -f - <<EOF\n{manifest}\nEOF", "created")
    session.text(READY.format(names=name), "condition met")


def explained(session: Session, name: str, expect: str) -> None:
    """What explainEngine says of its start."""
    session.name(TICKET=session.bash(TICKET.format(name=name)))
    session.text(EXPLAIN, expect)


def until_two(session: Session) -> None:
    """Waits until the pool is full again. Raises SessionError."""
    deadline = time.monotonic() + session.seconds
    while " 2/2 " not in f"{session.bash('kubectl get ecp')} ".replace("\n", " "):
        if time.monotonic() >= deadline:
            raise SessionError(f"the pool was not full within {session.seconds:g} s")
        time.sleep(0.5)


def begin(session: Session, namespace: str) -> None:
    """The variables of the commands, as in docs/session.md."""
    session.say("On a real node:\n")
    session.say("```console\n$ ECM=" + f"{session.gateway}/api/rest_j/v1/engineconnManager")
    session.say(f"$ TOKEN=…\n$ USER_NAME={session.user}\n$ NAMESPACE={namespace}\n$ {FUNCTION}\n```\n")
    session.names["NAMESPACE"] = namespace


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.command()
def main(
    url: Annotated[str, typer.Argument(help="of the gateway, like http://127.0.0.1:9102")],
    token: Annotated[str, typer.Argument(help="one that may speak for the user", envvar="ECM_SESSION_TOKEN")],
    namespace: Annotated[str, typer.Argument(help="of the engines")],
    user: Annotated[str, typer.Option(help="whose engines they are")] = "hadoop",
    seconds: Annotated[float, typer.Option(help="the longest wait for a full pool")] = 120,
) -> None:
    """Runs the session and writes it into the page."""
    out = io.StringIO()
    session = Session(url.rstrip("/"), token, user, seconds, out)
    try:
        begin(session, namespace)
        until_two(session)
        life(session)
    except SessionError as error:
        print(f"session: {str(error).replace(token, '…')}", file=sys.stderr)
        raise typer.Exit(1) from None
    finally:
        session.bash(f"kubectl delete ec -n {namespace} --ignore-not-found {' '.join([*ENGINES, *CROWD])}")
    PAGE.write_text(pages.with_part(PAGE.read_text(), NAME, MAKER, out.getvalue().rstrip()))


if __name__ == "__main__":
    app()
