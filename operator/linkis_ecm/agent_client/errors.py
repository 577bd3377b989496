"""What a call to an agent can end as when it does not succeed.

Must not know what the failure means to a caller: the gateway makes refusals of these errors, the operator log lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp


class AgentError(Exception):
    """Any of the errors below. Its text is for logs."""


class AgentRefused(AgentError):  # noqa: N818 - the agent's decision, not a fault
    """The agent answered with another HTTP `status` than success; `sentence` is its own text, "" if it sent none."""

    def __init__(self, status: int, sentence: str = "") -> None:
        super().__init__(f"HTTP {status}: {sentence}" if sentence else f"HTTP {status}")
        self.status = status
        self.sentence = sentence


class AgentNotFound(AgentRefused):
    """The agent has no such thing (404)."""

    def __init__(self) -> None:
        super().__init__(404)


class AgentBadResponse(AgentError):  # noqa: N818 - as the others
    """The agent answered with something that cannot be used. The text completes "the agent answered with ..."."""


class AgentUnreachable(AgentError):  # noqa: N818 - as the others
    """No connection could be made: the request was not sent."""


class AgentNotProven(AgentUnreachable):
    """Who listens there did not prove that it has the engine's key: neither key nor request was sent."""


class AgentTimeout(AgentError):  # noqa: N818 - as the others
    """The answer did not come in time."""


class AgentConnectTimeout(AgentTimeout):
    """No connection within its time: the request was not sent."""


class AgentConnectionBroken(AgentError):  # noqa: N818 - as the others
    """The connection broke: the request may have arrived."""


@contextmanager
def transport_errors() -> Iterator[None]:
    """Raises an AgentError for each error of the connection within the block."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise AgentConnectTimeout(_text(error)) from None
    except TimeoutError as error:
        raise AgentTimeout(_text(error)) from None
    except aiohttp.ClientConnectorError as error:
        raise AgentUnreachable(_text(error)) from None
    except (aiohttp.ClientError, OSError) as error:
        raise AgentConnectionBroken(_text(error)) from None


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
