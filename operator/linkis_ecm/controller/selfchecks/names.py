"""Asks DNS, before the process is ready, for the name under which agents reach this operator.

Engines ask the same DNS. Where it does not answer, each engine would start and never report. Must not repair anything.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

log = logging.getLogger(__name__)

# Seconds. A resolver of a pod gives up after two tries of 5 s; DNS of a cluster answers within milliseconds.
TIMEOUT = 5.0
PERIOD = 2.0
Resolve = Callable[[str], Awaitable[object]]


async def resolve(host: str) -> object:
    """The addresses of a name, by the system's resolver. Raises OSError."""
    return await asyncio.get_running_loop().getaddrinfo(host, None)


class NameCheck:
    """`run` until the name was found once; `problem` is a sentence until then, empty afterwards.

    Later failures of DNS do not count: a replica that is not ready gets no reports.
    """

    def __init__(self, url: str, *, resolve: Resolve = resolve) -> None:
        self._host = urlsplit(url).hostname or ""
        self._resolve = resolve
        self.problem = "" if _is_address(self._host) else f"DNS was not asked yet for {self._host}"

    async def run(self) -> None:
        """Ask again and again until there is an answer."""
        while self.problem:
            try:
                async with asyncio.timeout(TIMEOUT):
                    await self._resolve(self._host)
            except OSError as error:  # a TimeoutError is one
                problem = (
                    f"DNS does not answer for {self._host}, under which engines reach this operator"
                    f" ({str(error) or f'no answer within {TIMEOUT:g} s'}): check ECM_REPORT_URL, and that"
                    " networkPolicy.dns of the chart names where the cluster's DNS answers"
                )
                if problem != self.problem:
                    log.error("not ready: %s", problem)
                self.problem = problem
                await asyncio.sleep(PERIOD)
            else:
                self.problem = ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
