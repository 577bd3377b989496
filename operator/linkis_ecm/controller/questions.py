"""Asks an agent that has not reported for its status, and notes in the engine's memory what comes of it.

Must not decide whether it is asked, nor what its silence means.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

from linkis_ecm.controller.pods.executor import Executor
from linkis_ecm.controller.state.memory import Memory
from linkis_ecm.engine.agent_report import InvalidReportError, parse_report
from linkis_ecm.engine.decision import GetAgentStatus, KeyRefused
from linkis_ecm.engine.view import EngineView, Report

log = logging.getLogger(__name__)


async def ask_agent(
    executor: Executor, engine: EngineView, memory: Memory, action: GetAgentStatus, *, clock: Callable[[], datetime],
    is_current: Callable[[], bool],
) -> None:  # fmt: skip
    """Request the status of a silent agent. Its answer counts as a report."""
    before, contact = memory.report, memory.last_contact
    memory.last_asked = clock()
    answer = await executor.get_agent_status(engine, action)
    if not is_current() or memory.last_contact != contact:
        # The agent has reported meanwhile, which is newer, or it is another attempt's.
        return
    if isinstance(answer, KeyRefused):
        memory.record_contact(clock(), refusal=answer.sentence)
        return
    report = _readable(engine, answer, before, clock())
    if report is None:
        memory.unanswered += 1
        return
    log.info("%s: its agent did not report, and answers", engine.key)
    memory.report, memory.reported = report, clock()
    memory.record_contact(clock())


def _readable(engine: EngineView, answer: dict[str, Any] | None, before: Report | None, now: datetime) -> Report | None:
    """The report in an agent's answer; None without one."""
    if answer is None:
        return None
    try:
        return parse_report(answer, engine, before, now)
    except InvalidReportError as error:
        log.warning("%s: its agent's answer cannot be read: %s", engine.key, error)
        return None
