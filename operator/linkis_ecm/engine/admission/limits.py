"""Limits of people: how many engines, how much CPU, memory and GPUs one user and one namespace may have at a time.

Pure. The operator admits engines by `refusal`; the gateway asks the same rule about its own cache, to answer before
anything is made. Must not know where engines come from.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any

from linkis_ecm.model.formats import parse_quantity
from linkis_ecm.model.users import linkis_user
from linkis_ecm.process.environment import Form, shown_value, variable

# Names of engines in a refusal: enough to choose one that can be stopped.
NAMES_MAX = 10


@dataclass(frozen=True, slots=True)
class Amount:
    """Engines, CPU in thousandths of a core, bytes of memory, and extended resources by name, sorted.

    Memory is what an engine may use, whatever its plugin requests of it. As a limit, 0 is no limit.
    """

    engines: int = 0
    cpu_milli: int = 0
    memory_bytes: int = 0
    extended: tuple[tuple[str, int], ...] = ()

    def figures(self) -> dict[str, int]:
        """Each thing that is counted, by its name in a sentence; 0 is left out."""
        own = {"engines": self.engines, "cpu": self.cpu_milli, "memory": self.memory_bytes}
        return {name: number for name, number in (own | dict(self.extended)).items() if number}

    def at_least(self, other: Amount) -> Amount:
        """The greater of each figure."""
        extended = dict(other.extended)
        for name, number in self.extended:
            extended[name] = max(number, extended.get(name, 0))
        return Amount(
            max(self.engines, other.engines),
            max(self.cpu_milli, other.cpu_milli),
            max(self.memory_bytes, other.memory_bytes),
            tuple(sorted(extended.items())),
        )


NOTHING = Amount()


@dataclass(frozen=True, slots=True)
class Limits:
    """`user` and `namespace` are for all; `users` and `namespaces` have other figures by exact name."""

    user: Amount = NOTHING
    users: Mapping[str, Amount] = field(default_factory=dict)
    namespace: Amount = NOTHING
    namespaces: Mapping[str, Amount] = field(default_factory=dict)

    def of_user(self, name: str) -> Amount:
        return self.users.get(linkis_user(name), self.user)

    def of_namespace(self, name: str) -> Amount:
        return self.namespaces.get(name, self.namespace)


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Holder:
    """An engine that has a place, or asks for one."""

    namespace: str
    name: str
    user: str
    amount: Amount


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an engine gets no place. `limit` is one of LIMITS; `fatal`: waiting does not help."""

    limit: str
    sentence: str
    fatal: bool = False


_COUNTED = ("engines", "cpu", "memory", "extended")
LIMITS = tuple(f"{scope}_{what}" for scope in ("user", "namespace") for what in _COUNTED)


def refusal(
    asked: Holder, *, of_user: Iterable[Holder], of_namespace: Iterable[Holder], limits: Limits
) -> Refusal | None:
    """Why `asked` gets no place now, else None. The holders are those of its user, and of its namespace, without it."""
    checks = (
        ("user", asked.user, limits.of_user(asked.user), of_user),
        ("namespace", asked.namespace, limits.of_namespace(asked.namespace), of_namespace),
    )
    found: Refusal | None = None
    for scope, name, limit, holders in checks:
        if limit == NOTHING:
            continue
        held = list(holders)
        total = _total(held)
        asked_for = asked.amount.figures()
        for what, most in limit.figures().items():
            asks, has = asked_for.get(what, 0), total[what]
            if not asks or has + asks <= most:
                continue  # what asks for none of it is not refused for it, also where a limit was lowered
            label = _label(scope, what)
            shown = {"most": _shown(what, most), "asks": _shown(what, asks), "has": _shown(what, has)}
            if asks > most:
                return Refusal(label, _alone(scope, name, what, shown), fatal=True)
            found = found or Refusal(label, _sentence(scope, name, what, shown) + _choice(asked, held))
    return found


def shares(scope: str, limit: Amount, holders: Iterable[Holder]) -> dict[str, float]:
    """How much of each figure of `limit` the holders have, 1 is all, by the name in LIMITS; no limit, no entry.

    Of several extended resources the one of which most is used.
    """
    total, found = _total(holders), dict[str, float]()
    for what, most in limit.figures().items():
        label = _label(scope, what)
        found[label] = max(found.get(label, 0.0), total[what] / most)
    return found


def _total(holders: Iterable[Holder]) -> Counter[str]:
    total: Counter[str] = Counter()
    for holder in holders:
        total.update(holder.amount.figures())
    return total


def _label(scope: str, what: str) -> str:
    """The name in LIMITS of a figure."""
    return f"{scope}_{'extended' if '/' in what else what}"


def _alone(scope: str, name: str, what: str, shown: Mapping[str, str]) -> str:
    return (
        f"The engine asks for {shown['asks']} of {what}, and {scope} {name} may have {shown['most']} at a time: ask"
        f" for {shown['most']} at most."
    )


def _sentence(scope: str, name: str, what: str, shown: Mapping[str, str]) -> str:
    asked = "" if what == "engines" else f", and this engine asks for {shown['asks']}"
    return f"{scope.capitalize()} {name} has {shown['has']} of {shown['most']} {what}{asked}"


def _choice(asked: Holder, held: list[Holder]) -> str:
    """What the user can stop: own engines alone, for the names of others are not told."""
    own = sorted(f"{one.namespace}/{one.name}" for one in held if one.user == asked.user)
    more = f" and {len(own) - NAMES_MAX} more" if len(own) > NAMES_MAX else ""
    return f": stop one of {', '.join(own[:NAMES_MAX])}{more}." if own else ": wait until others end."


def _shown(what: str, number: int) -> str:
    if what == "cpu":
        return f"{number / 1000:g}"
    if what == "memory":
        return f"{number / 2**20:g}Mi" if number < 2**30 else f"{number / 2**30:g}Gi"
    return str(number)


@lru_cache(maxsize=4096)
def amount(cpu: str, memory: str, extended: tuple[tuple[str, int], ...] = ()) -> Amount:
    """One engine of that size; texts are Kubernetes quantities, "" is none. Never raises: what is no quantity is 0."""
    return Amount(1, int(_quantity(cpu) * 1000), int(_quantity(memory)), extended)


def _quantity(text: str) -> Decimal:
    try:
        return parse_quantity(text) if text else Decimal(0)
    except ValueError:
        return Decimal(0)


# --- the setting


_WRITE = (
    'write JSON such as {"user": {"engines": 10, "cpu": "20", "memory": "64Gi", "extended": {"nvidia.com/gpu": 2}},'
    ' "users": {"root": {"engines": 0}},'
    ' "namespace": {"memory": "500Gi"}, "namespaces": {"lab": {"engines": 50}}}'
)


def parse_limits(text: str) -> Limits:
    """The setting's JSON. A figure that an entry of `users` or `namespaces` leaves out is the one for all; 0 is no
    limit. Raises ValueError with the sentence's end."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"is {shown_value(text)}, which is no JSON: {_WRITE}") from None
    parts = _object(found, "it", {one.name for one in fields(Limits)})
    user = _amount(parts.get("user") or {}, "user", NOTHING)
    namespace = _amount(parts.get("namespace") or {}, "namespace", NOTHING)
    return Limits(
        user=user,
        users={
            linkis_user(name): figures for name, figures in _by_name(parts.get("users") or {}, "users", user).items()
        },
        namespace=namespace,
        namespaces=_by_name(parts.get("namespaces") or {}, "namespaces", namespace),
    )


# Of operator and gateway alike: both must count by the same figures. Without those of the installation any number would
# be a guess, so there is no limit then: the platform's own quotas hold.
LimitsSetting = Annotated[
    Limits,
    Form("JSON", parse_limits),
    variable(
        "ECM_LIMITS",
        "How many engines, how much cpu and memory, and how many GPUs or other extended resources a user and a"
        " namespace may have at a time, as JSON: user"
        " and namespace for all, users and namespaces for those named; 0: no limit.",
        default="no limit",
    ),
]


def _by_name(found: Any, where: str, default: Amount) -> dict[str, Amount]:
    return {name: _amount(figures, f"{where}.{name}", default) for name, figures in _object(found, where).items()}


def _amount(found: Any, where: str, default: Amount) -> Amount:
    figures = _object(found, where, {"engines", "cpu", "memory", "extended"})
    extended = dict(default.extended)
    for name, number in _object(figures.get("extended") or {}, f"{where}.extended").items():
        if "/" not in name:
            raise ValueError(f"has {name[:50]!r} in {where}.extended, which is no extended resource: {_WRITE}")
        extended[name] = _figure(number, f"{where}.extended.{name}", 1, whole=True)
    engines, cpu, memory = (figures.get(name) for name in ("engines", "cpu", "memory"))
    return Amount(
        default.engines if engines is None else _figure(engines, f"{where}.engines", 1, whole=True),
        default.cpu_milli if cpu is None else _figure(cpu, f"{where}.cpu", 1000),
        default.memory_bytes if memory is None else _figure(memory, f"{where}.memory", 1),
        tuple(sorted(extended.items())),
    )


def _object(found: Any, where: str, known: Iterable[str] | None = None) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ValueError(f"has {where} that is no object: {_WRITE}")
    if known is not None and (unknown := sorted(found.keys() - set(known))):
        raise ValueError(f"has {unknown[0][:50]!r} in {where}, which means nothing here: {_WRITE}")
    return found


def _figure(value: Any, where: str, scale: int, *, whole: bool = False) -> int:
    try:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise ValueError
        number = parse_quantity(str(value)) * scale
        if number < 0 or (whole and number != int(number)):
            raise ValueError
    except ValueError:
        raise ValueError(f"has {where} {str(value)[:50]!r}, which is no amount: {_WRITE}") from None
    return int(number)
