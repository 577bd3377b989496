"""A refusal names the field as its caller wrote it, without pydantic's word for the kind of the value."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from linkis_ecm.gateway.http.validate import sentence
from linkis_ecm.gateway.linkis.requests import AskEngine


@pytest.mark.parametrize("value", ["x" * 5000, [1]])
@pytest.mark.parametrize("name", ["wds.linkis.rm.yarnqueue", "int"])
def test_a_propertys_name_is_shown_as_it_was_sent(name: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        AskEngine.model_validate({"properties": {name: value}, "labels": {"engineType": "python-3"}})
    assert str(sentence(AskEngine, caught.value)).startswith(f"Parameter properties.{name} is ")
