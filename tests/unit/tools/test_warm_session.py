"""The session of docs/warm-pools.md: the page has the commands of its generator, and a wrong answer ends a run."""

from __future__ import annotations

import io
import re

import pytest

from e2e import warm_session
from e2e.session import Session, SessionError
from tools import pages

COLD = (
    "It started cold. A pod that runs already cannot be given what the engine asks for:"
    " spec.podTemplate.spec.nodeSelector, spec.volumes."
)


class Recorded(Session):
    """Answers as a cluster does, by what a command has in it; the first that fits."""

    answers: tuple[tuple[str, str], ...] = (
        ("kubectl get ecp", "python-3.11  2/2\n"),
        ("jsonpath={.status.ticketId}", "ticket"),
        ("explainEngine", f'"summary": "It took a pod of its warm pool, so it started warm. {COLD}"\n'),
        ("kubectl wait", "crowd-5 condition met\n"),
        ("kubectl apply", "crowd-5 created\n"),
        ("custom-columns", "crowd-5 cold The warm pool of python-3.11 had no pod ready in namespace engines.\n"),
    )

    def bash(self, command: str) -> str:
        return next(answer for part, answer in self.answers if part in command)


def commands(text: str) -> list[str]:
    """The commands that a page shows, without the values of this or that run."""
    shown = re.findall(r"^```console\n\$ (.*?)\n```$", text, re.MULTILINE | re.DOTALL)
    return [one for one in shown if not re.match(r"\w+=", one)]


def test_a_page_that_has_a_session_has_its_generators() -> None:
    session = Recorded("http://127.0.0.1:9102", "secret", "hadoop", 1, io.StringIO())
    warm_session.life(session)
    assert isinstance(session.out, io.StringIO)
    made = commands(session.out.getvalue())
    assert len(made) == 10
    page = pages.part(warm_session.PAGE.read_text(), warm_session.NAME, warm_session.MAKER)
    # Empty until it is run on a cluster.
    assert commands(page) == (made if page else [])


def test_an_engine_that_started_otherwise_ends_the_run() -> None:
    session = Recorded("http://127.0.0.1:9102", "secret", "hadoop", 1, io.StringIO())
    session.answers = tuple((part, answer.replace("nodeSelector", "")) for part, answer in Recorded.answers)
    with pytest.raises(SessionError, match=r"has no 'spec.podTemplate.spec.nodeSelector"):
        warm_session.life(session)


def test_a_pool_that_never_fills_ends_the_run() -> None:
    session = Recorded("http://127.0.0.1:9102", "secret", "hadoop", 0, io.StringIO())
    session.answers = (("kubectl get ecp", "python-3.11  1/2\n"),)
    with pytest.raises(SessionError, match="not full"):
        warm_session.until_two(session)
