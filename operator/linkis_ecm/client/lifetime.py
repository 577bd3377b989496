"""An engine for the time of a block: which calls begin and end it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from linkis_ecm.api.models import EngineInfo, TerminateAnswer
from linkis_ecm.client.errors import BadRequest, EcmError, Forbidden, NotLoggedIn
from linkis_ecm.client.methods import terminate_engine
from linkis_ecm.client.plan import Plan
from linkis_ecm.client.wire import Terms

# Cleaning up after a failure must not keep the caller from hearing of it for long.
_HASTE = 5.0


@dataclass(frozen=True, slots=True)
class Lifetime:
    """One engine, known by its ticket before it is made."""

    begin: Plan[EngineInfo]
    engine_id: str
    # The ticket was made for this: nobody else's engine can have it.
    ours: bool

    @classmethod
    def of(cls, plan: Plan[EngineInfo], terms: Terms) -> Lifetime:
        """Of what create_engine_connection would do."""
        ours = bool(plan.own_id)
        fields = plan.with_id(terms.new_id())
        return cls(replace(plan, fields=fields, own_id=""), str(fields["ticketId"]), ours)

    @property
    def end(self) -> Plan[TerminateAnswer]:
        """Ends it."""
        return terminate_engine(self.engine_id)

    @property
    def give_up(self) -> Plan[TerminateAnswer]:
        """Ends what may have been made of it."""
        return replace(self.end, seconds=_HASTE)

    def may_be_left(self, error: BaseException) -> bool:
        """Whether an engine may be there after its making failed so, which nobody would end."""
        return self.ours and not isinstance(error, BadRequest | Forbidden | NotLoggedIn)

    @staticmethod
    def in_haste(terms: Terms) -> Terms:
        """The same client with less patience."""
        return replace(terms, policy=replace(terms.policy, patience=min(terms.policy.patience, _HASTE)))

    def not_ended(self, failure: EcmError, *, during: BaseException | None) -> None:
        """Says that the engine goes on. Raises `failure`, unless something else is being raised already."""
        if during is None:
            raise failure
        during.add_note(f"The engine {self.engine_id} was not ended: {failure}")
