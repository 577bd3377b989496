"""An engine that lives for the time of a `with` block: which calls create and end it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from linkis_ecm.api.models import EngineInfo, TerminateAnswer
from linkis_ecm.client.errors import BadRequest, EcmError, Forbidden, NotLoggedIn
from linkis_ecm.client.methods import terminate_engine
from linkis_ecm.client.protocol import Terms
from linkis_ecm.client.request_plan import RequestPlan

# Cleaning up after a failure must not delay the error to the caller for longer.
_ABORT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Lifetime:
    """One engine, known by its ticket before it is created."""

    begin: RequestPlan[EngineInfo]
    engine_id: str
    # The ticket was generated here: no other engine can have it.
    owned: bool

    @classmethod
    def of(cls, plan: RequestPlan[EngineInfo], terms: Terms) -> Lifetime:
        """The lifetime of the engine that this plan creates."""
        owned = bool(plan.generated_id_field)
        fields = plan.with_id(terms.new_id())
        return cls(replace(plan, fields=fields, generated_id_field=""), str(fields["ticketId"]), owned)

    @property
    def end(self) -> RequestPlan[TerminateAnswer]:
        """Ends the engine."""
        return terminate_engine(self.engine_id)

    @property
    def abort(self) -> RequestPlan[TerminateAnswer]:
        """Ends the engine whose creation failed, with a short time limit."""
        return replace(self.end, seconds=_ABORT_SECONDS)

    def may_exist_after(self, error: BaseException) -> bool:
        """Whether the engine may exist although its creation failed with this error. Then nobody else would end it."""
        return self.owned and not isinstance(error, BadRequest | Forbidden | NotLoggedIn)

    @staticmethod
    def with_less_patience(terms: Terms) -> Terms:
        """The same client with a shorter time for repetitions."""
        return replace(terms, policy=replace(terms.policy, patience=min(terms.policy.patience, _ABORT_SECONDS)))

    def report_not_ended(self, failure: EcmError, *, during: BaseException | None) -> None:
        """Reports that the engine was not ended. Raises `failure`, or adds a note to the error that is being raised."""
        if during is None:
            raise failure
        during.add_note(f"The engine {self.engine_id} was not ended: {failure}")
