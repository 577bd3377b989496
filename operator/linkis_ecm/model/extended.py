"""Extended resources of an engine: GPUs and what else a device plugin offers on nodes, by its name, in whole numbers.

Kubernetes takes them as limits whose requests are the same, and never changes them in a pod that runs. Must not say who
may ask for which: that is `engine.pod.spec.sizes`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field

# Of one engine. Nodes of this kind offer two or three.
EXTENDED_MAX = 8
# A DNS subdomain, "/", a name.
NAME_MAX = 253 + 1 + 63
AMOUNT_MAX = 2**31 - 1
NAME_TEXT = (
    f"names of extended resources are a device plugin's, such as nvidia.com/gpu: with a domain that is not"
    f" kubernetes.io, {NAME_MAX} characters at most"
)
# Kubernetes's own resources, such as hugepages and volumes of a cloud, are not counted as these are.
_NATIVE = "kubernetes.io/"


def _names(value: dict[str, int]) -> dict[str, int]:
    for name in value:
        if "/" not in name or _NATIVE in name or len(name) > NAME_MAX:
            raise ValueError(NAME_TEXT)
    return value


_RULE: dict[str, Any] = {
    "rule": f"self.all(k, size(k) <= {NAME_MAX} && k.contains('/') && !k.contains('{_NATIVE}'))",
    "message": NAME_TEXT,
    "reason": "FieldValueInvalid",
}
Extended = Annotated[
    dict[str, Annotated[int, Field(ge=0, le=AMOUNT_MAX)]],
    Field(max_length=EXTENDED_MAX, json_schema_extra={"x-kubernetes-validations": [_RULE]}),
    AfterValidator(_names),
]
