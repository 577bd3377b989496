"""What an engine's status says of the admission policies: what of its spec was checked. Pure data."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class CheckedSpec(BaseModel):
    """The part of a spec that the policies ask about, as it was found in order, and under which policies."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")

    spec: str = Field("", description="Digest of the user, variables, volumes and pod template that were checked.")
    policies: str = Field("", description="Digest of the policies' and bindings' identities: others are other ones.")
