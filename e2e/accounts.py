"""`python -m e2e.accounts`: writes docs/security/accounts.md, what each account may do on a real cluster.

As `kubectl auth can-i --list` shows it (SelfSubjectRulesReview), asked as each account in each kind of namespace. The
release of the e2e tests must be there. Must not judge: e2e/security/test_accounts.py compares with what is committed.
"""

from __future__ import annotations

import json
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from linkis_ecm.model.engineconn import GROUP
from tools.testkit.cluster import kubectl
from tools.testkit.cluster.installation import RELEASE
from tools.testkit.cluster.waiting import NAMESPACE, RELEASE_NAMESPACE, until_holds

PAGE = Path(__file__).parents[1] / "docs/security/accounts.md"
# (group, resource, name or "" for all, verb)
Right = tuple[str, str, str, str]
# A namespace that is neither the release's nor of engines.
ELSEWHERE = "kube-system"
HERE = "In the engines' namespace"
PEOPLE = ("view", "edit", "admin")
# What a tenant gets who may be hostile.
TENANT = "linkis-ecm-edit"
HEAD = """\
# What each account may do

Status: accepted. Date: 2026-11-27. Last changed: 2026-11-27.

Written by `python -m e2e.accounts` from the API server's own answer, as `kubectl auth can-i --list --as ACCOUNT`
shows it, on the release of the e2e tests: the chart's defaults with `auth.kubernetes.enabled`.
`e2e/security/test_accounts.py` asks again and fails where a right is more or less than here. Left out is what every
account of a cluster may do (ask for its own rights, read the API's discovery).

Not one account makes tokens of service accounts, executes in pods, or changes roles. One reads Secrets: the operator,
each by its name and where engines are, for engines that take a pod of a warm pool (`warmPools.secrets`; it makes pods
there, which mount any). An engine's pod has no token of its account (`automountServiceAccountToken: false`); the one
that proves it to the operator is for another audience.
"""


def may(who: str, namespace: str) -> set[Right]:
    """All that an account may do in a namespace."""
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}}
    answer = kubectl.must("create", "--validate=false", "--as", who, "-o", "json", "-f", "-", stdin=json.dumps(body))
    return {
        (group, resource, name, verb)
        for rule in json.loads(answer)["status"]["resourceRules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames") or [""]
    }


def service_account(name: str, namespace: str) -> str:
    return f"system:serviceaccount:{namespace}:{name}"


@contextmanager
def person(role: str) -> Iterator[str]:
    """Somebody who has that ClusterRole in the engines' namespace, and nothing else."""
    name = f"{role}-{uuid.uuid4().hex[:6]}"
    who = f"person-{name}"
    kubectl.must("create", "rolebinding", name, "-n", NAMESPACE, f"--clusterrole={role}", f"--user={who}")
    try:
        # The API server's cache of bindings is behind by a moment.
        until_holds(f"{who} is bound", lambda: may(who, NAMESPACE), lambda rights: any(r[0] == GROUP for r in rights))
        yield who
    finally:
        kubectl.run("delete", "rolebinding", name, "-n", NAMESPACE)


def seen() -> dict[tuple[str, str], set[Right]]:
    """(account, where) → its rights, beyond those of every service account."""
    places = {HERE: NAMESPACE, "In the release's namespace": RELEASE_NAMESPACE, "In any other namespace": ELSEWHERE}
    accounts = {part: service_account(f"{RELEASE}-{part}", RELEASE_NAMESPACE) for part in ("operator", "gateway")}
    accounts["the engines' account"] = service_account("default", NAMESPACE)
    found = {}
    for title, who in accounts.items():
        for place, namespace in places.items():
            found[title, place] = may(who, namespace) - may(service_account("nobody", namespace), namespace)
    for role in PEOPLE:
        with person(role) as who:
            ours = {right for right in may(who, NAMESPACE) if right[0] == GROUP or right[3] == "use"}
            found[f"a holder of Kubernetes's {role}: what the chart adds", HERE] = ours
    with person(TENANT) as who:
        found[f"a holder of {TENANT} alone: all there is", HERE] = may(who, NAMESPACE) - may("nobody", NAMESPACE)
    return found


def page(found: dict[tuple[str, str], set[Right]]) -> str:
    """The page's text. Rights that an account has everywhere are told once."""
    lines = [HEAD]
    everywhere = {
        title: set.intersection(*(rights for (other, _), rights in found.items() if other == title))
        for title, _ in found
    }
    for title in dict.fromkeys(title for title, _ in found):
        places = [place for other, place in found if other == title]
        lines += [f"## {title[0].upper()}{title[1:]}", ""]
        if len(places) == 1:
            lines += _table(found[title, places[0]], places[0])
            continue
        lines += _table(everywhere[title], "In every namespace, and of what has none")
        for place in places:
            lines += _table(found[title, place] - everywhere[title], place)
    return "\n".join(lines)


def _table(rights: set[Right], where: str) -> list[str]:
    if not rights:
        return [f"{where}: nothing.", ""]
    return [f"{where}:", "", "| resource | names | verbs |", "| --- | --- | --- |", *_rows(rights), ""]


def _rows(rights: Iterable[Right]) -> list[str]:
    verbs = defaultdict(set)
    for group, resource, name, verb in rights:
        kind, slash, part = resource.partition("/")
        verbs[(f"{kind}.{group}" if group else kind) + slash + part, name or "all"].add(verb)
    names = defaultdict(set)
    for (resource, name), some in verbs.items():
        names[resource, ", ".join(sorted(some))].add(name)
    return [
        f"| `{resource}` | {', '.join(sorted(some))} | {words} |" for (resource, words), some in sorted(names.items())
    ]


def main() -> None:
    """Asks the cluster what each account may do, and writes docs/security/accounts.md."""
    PAGE.write_text(page(seen()))


if __name__ == "__main__":
    typer.run(main)
