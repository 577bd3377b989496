"""Makes a member of a warm pool the agent of one engine, once and for good (docs/design/warm.md).

Until the kernel is given the engine's environment nothing of the engine is anywhere, and a claim that cannot be used
changes nothing. From then on the claim succeeds, or the agent ends: a member with half a user in it is of no use.
Must not know of HTTP, nor tell a variable's value to anybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from linkis_ecm.agent.engine import Engine
from linkis_ecm.agent.executors.base import ExecutorGoneError
from linkis_ecm.agent.executors.registry import ExecutorError
from linkis_ecm.agent.executors.workplace import enter
from linkis_ecm.agent.formats.names import MEMBER_UID
from linkis_ecm.agent.identity import KEY, Identity
from linkis_ecm.agent.member.environment import UnusableError, claimed_environment
from linkis_ecm.agent.settings import Settings, SettingsError, read_settings
from linkis_ecm.agent.states import IDLE, STARTING, refusal

# The kernel answers within 2 ms; on a starved node later. A user waits for it, and a cold start takes 1 s.
KERNEL_TIMEOUT = 2.0
CLAIM_FAILED = "ClaimFailed"


class TakenError(Exception):
    """The member is another engine's, or takes none any more."""


class NotReadyYetError(Exception):
    """The member's kernel has not answered yet, or imports what the plugin names."""


class ClaimFailedError(Exception):
    """The kernel did not take the engine's environment, and the agent ends."""


class Claims:
    """Of one member. `adopt` is given the engine's settings when it has become its agent."""

    def __init__(
        self,
        engine: Engine,
        identity: Identity,
        own: Mapping[str, str],
        *,
        adopt: Callable[[Settings], None],
        log: Callable[[str, str], None],
    ) -> None:
        self._engine = engine
        self._identity = identity
        self._own = own
        self._adopt = adopt
        self._log = log
        # Whose it is, or whose claim is under way, and what becomes of that: uid, attempt, key.
        self._claimed_by: tuple[object, object, str] | None = None
        self._claiming: asyncio.Task[None] | None = None

    def reported(self) -> dict[str, Any]:
        """The report's part about the member; nothing once an engine has it."""
        engine = self._engine
        if not engine.is_member:
            return {}
        return {"member": {"ready": engine.state == IDLE, "takes": list(engine.capabilities.takes)}}

    async def claim(self, environment: Mapping[str, object], key: str) -> None:
        """Be the agent of the engine that `environment` names, with this key. The same claim again changes nothing.

        Raises UnusableError, TakenError, NotReadyYetError, ClaimFailedError.
        """
        who = (environment.get("ECM_UID"), environment.get("ECM_ATTEMPT", "0"), key)
        if self._claiming is None:
            self._require_ready()
            settings, found = self._read(environment, key)
            self._enter(found)
            self._claimed_by = who
            self._claiming = asyncio.create_task(self._give(settings, found, key))
        elif self._claimed_by != who:
            raise TakenError("another engine, or another attempt of this one, has claimed this agent")
        # Whoever asked may leave: what was begun is ended.
        await asyncio.shield(self._claiming)

    def _read(self, environment: Mapping[str, object], key: str) -> tuple[Settings, dict[str, str]]:
        if not KEY.fullmatch(key):
            raise UnusableError("key is not an engine's key: send 43 characters of base64url")
        found = claimed_environment(self._own, environment, self._engine.capabilities.takes)
        try:
            settings = read_settings(found)
        except SettingsError as error:
            raise UnusableError(str(error)) from None
        if not settings.uid or settings.uid == MEMBER_UID or not settings.name:
            raise UnusableError("environment: ECM_UID and ECM_NAME must be the engine's")
        return settings, found

    def _require_ready(self) -> None:
        if self._engine.state == STARTING:
            raise NotReadyYetError("this member's kernel is not ready: claim another one")
        if self._engine.state != IDLE:
            raise TakenError(refusal(self._engine.state))

    def _enter(self, environment: dict[str, str]) -> None:
        """Go to the engine's working directory, as at a cold start."""
        try:
            enter(environment)
        except ExecutorError as error:
            raise UnusableError(str(error)) from None

    async def _give(self, settings: Settings, environment: dict[str, str], key: str) -> None:
        try:
            async with asyncio.timeout(KERNEL_TIMEOUT):
                error = await self._engine.adopt(environment)
        except TimeoutError:
            error = f"no answer within {KERNEL_TIMEOUT:g} s"
        except ExecutorGoneError:
            error = "it has ended"
        except Exception as unforeseen:  # its text may hold a variable's value
            error = type(unforeseen).__name__
        if not error and self._engine.state != IDLE:
            error = f"the engine is {self._engine.state} by now"
        if error:
            said = f"the kernel did not take the engine's environment: {error}"
            if self._engine.state == IDLE:
                self._engine.fail(CLAIM_FAILED, said, 1)
            raise ClaimFailedError(f"{said}. This member ends")
        self._adopt(settings)
        self._identity.adopt(key)
        self._log("INFO", f"claimed by engine {settings.namespace}/{settings.name}, attempt {settings.attempt}, ticket "
                          f"{settings.ticket_id}")  # fmt: skip
        self._engine.adopted(settings.start_timeout)
