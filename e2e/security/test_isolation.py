"""Who may do what on a real cluster: the admission policy of EngineConns, and the rights of operator and gateway."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tools.testkit.cluster import kubectl
from tools.testkit.cluster.installation import RELEASE, Installation
from tools.testkit.cluster.waiting import NAMESPACE, RELEASE_NAMESPACE, until_holds

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
GROUP = "linkis.apache.org"
Grant = Callable[..., None]


def account(name: str, namespace: str = NAMESPACE) -> str:
    return f"system:serviceaccount:{namespace}:{name}"


@pytest.fixture(scope="module")
def author(installation: Installation) -> Iterator[str]:
    """A service account that may create and read EngineConns, and nothing else."""
    name = f"author-{uuid.uuid4().hex[:6]}"
    kubectl.must("create", "serviceaccount", name, "-n", NAMESPACE)
    _grant(name, {"apiGroups": [GROUP], "resources": ["engineconns"], "verbs": ["create", "get"]})
    yield name
    for kind in ("serviceaccount", "role", "rolebinding"):
        kubectl.run("delete", kind, "-n", NAMESPACE, name, "--ignore-not-found", "--wait=false")


def _grant(name: str, *rules: dict[str, Any]) -> None:
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name, "namespace": NAMESPACE}}
    items = [
        role | {"kind": "Role", "rules": rules},
        role | {
            "kind": "RoleBinding", "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        },
    ]  # fmt: skip
    kubectl.must("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    # The API server's cache of roles is behind by a moment.
    for rule in rules:
        for named in rule.get("resourceNames", [""]):
            until_allowed(account(name), rule["verbs"][0], rule["apiGroups"][0], rule["resources"][0], named)


def until_allowed(who: str, verb: str, group: str, resource: str, name: str = "") -> None:
    """Waits until the right counts. Not by `kubectl auth can-i`, which knows no resource without an API."""
    asked = {"namespace": NAMESPACE, "verb": verb, "group": group, "resource": resource, "name": name}
    body = json.dumps({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": asked},
    })  # fmt: skip

    def answer() -> Any:
        return json.loads(kubectl.must("create", "--validate=false", "--as", who, "-o", "json", "-f", "-", stdin=body))[
            "status"
        ]

    until_holds(f"{who} may {verb} {resource} {name}", answer, lambda status: status["allowed"])


@pytest.fixture
def grant(author: str) -> Iterator[Grant]:
    """Gives the author more rights for one test."""
    base = {"apiGroups": [GROUP], "resources": ["engineconns"], "verbs": ["create", "get"]}
    yield lambda *rules: _grant(author, base, *rules)
    _grant(author, base)


def create(author: str, user: str, *, volumes: Any = (), pod: Any = None, env: Any = (), **more: Any) -> kubectl.Answer:
    """Asks the API server for an EngineConn in the author's name, without making it."""
    spec: dict[str, Any] = {"engineType": "python", "user": user, "volumes": list(volumes), "env": list(env)} | more
    body = {
        "apiVersion": f"{GROUP}/v1alpha1", "kind": "EngineConn", "metadata": {"name": "asked"},
        "spec": spec | ({"podTemplate": {"spec": pod}} if pod else {}),
    }  # fmt: skip
    command = ("create", "--validate=false", "--as", account(author), "-n", NAMESPACE, "--dry-run=server", "-f", "-")
    return kubectl.run(*command, stdin=json.dumps(body))


def acts_as(user: str, resource: str = "users") -> dict[str, Any]:
    return {"apiGroups": [GROUP], "resources": [resource], "resourceNames": [user], "verbs": ["impersonate"]}


def volume(**source: Any) -> dict[str, Any]:
    return {"name": "mine", "mountPath": "/mine"} | source


def from_secret(variable: str, secret: str) -> dict[str, Any]:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": "password"}}}


CLAIM = {"persistentVolumeClaim": {"claimName": "shared"}}
REFERENCES = [
    ("spec.volumes mine", "secrets", "get", {"volumes": [volume(secret={"secretName": f"{RELEASE}-auth"})]}),
    ("spec.env PASSWORD", "secrets", "get", {"env": [from_secret("PASSWORD", f"{RELEASE}-auth")]}),
    ("spec.volumes mine", "configmaps", "get", {"volumes": [volume(configMap={"name": "settings"})]}),
    ("spec.volumes mine", "persistentvolumeclaims", "use", {"volumes": [volume(**CLAIM)]}),
    ("spec.podTemplate.spec.imagePullSecrets", "secrets", "get", {"pod": {"imagePullSecrets": [{"name": "pull"}]}}),
    (
        "spec.podTemplate.spec.priorityClassName", "priorityclasses", "use",
        {"pod": {"priorityClassName": "system-node-critical"}},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("field", "resource", "verb", "asked"), REFERENCES)
def test_what_the_author_may_not_use_is_refused_by_field_and_remedy(
    author: str, grant: Grant, field: str, resource: str, verb: str, asked: dict[str, Any]
) -> None:
    grant(acts_as("ana"))
    answer = create(author, "ana", **asked)
    assert answer.code != 0
    assert f"{field}: you may not {verb} {resource}" in answer.err
    assert f"ask for a role with {verb} on {resource}" in answer.err
    assert ("a ClusterRole and a ClusterRoleBinding" in answer.err) == (resource == "priorityclasses")


def test_what_the_author_may_use_is_taken(author: str, grant: Grant) -> None:
    core = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["own"], "verbs": ["get"]}
    claim = {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "resourceNames": ["own"], "verbs": ["use"]}
    grant(acts_as("ana"), core, claim)
    volumes = [
        volume(secret={"secretName": "own"}),
        {"name": "data", "mountPath": "/data", "persistentVolumeClaim": {"claimName": "own"}},
        {"name": "scratch", "mountPath": "/scratch", "emptyDir": {}},
    ]
    assert create(author, "ana", volumes=volumes, env=[from_secret("PASSWORD", "own")]).code == 0
    plain = [{"name": "PLAIN", "value": "x"}, from_secret("OTHER", "others")]
    assert "spec.env OTHER: you may not get secrets others" in create(author, "ana", env=plain).err
    other = create(author, "ana", volumes=[*volumes[1:], volume(secret={"secretName": "others"})])
    assert "you may not get secrets others" in other.err


def test_another_users_engine_needs_the_right_to_act_as_that_user(author: str, grant: Grant) -> None:
    refused = create(author, "hadoop")
    assert refused.code != 0
    assert "spec.user hadoop is not you" in refused.err
    assert "impersonate on users of linkis.apache.org" in refused.err
    grant(acts_as("hadoop"))
    assert create(author, "hadoop").code == 0
    assert create(author, "ana").code != 0


def test_an_engine_that_is_lent_in_a_group_needs_the_right_to_that_group(author: str, grant: Grant) -> None:
    """Else whoever may act as the owner chooses a foreign group, whose members' code then runs in the engine."""
    share = {"level": "group", "group": "analysts"}
    grant(acts_as("pool"))
    refused = create(author, "pool", share=share)
    assert refused.code != 0
    assert "spec.share.group analysts: leave spec.share out" in refused.err
    assert create(author, "pool", share={"level": "server"}).code == 0
    grant(acts_as("pool"), acts_as("analysts", "groups"))
    assert create(author, "pool", share=share).code == 0
    assert create(author, "pool", share=share | {"group": "science"}).code != 0
    assert "groups that begin with system:" in create(author, "pool", share=share | {"group": "system:masters"}).err


def test_the_most_references_are_within_the_api_servers_budget(author: str, grant: Grant) -> None:
    names = [f"own-{number}" for number in range(20)]
    grant(acts_as("ana"), {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]})
    volumes = [
        {"name": name, "mountPath": f"/own/{name}", "secret": {"secretName": name}} for name in names[:16]
    ]  # fmt: skip
    pod = {"imagePullSecrets": [{"name": name} for name in names[16:]]}
    env = [from_secret(f"V{number}", name) for number, name in enumerate(names[:16])]
    assert create(author, "ana", volumes=volumes, pod=pod, env=env).code == 0
    # The last of 21 questions is asked, too.
    refused = create(author, "ana", volumes=volumes, pod=pod | {"priorityClassName": "high"})
    assert "you may not use priorityclasses high" in refused.err
    many = create(author, "ana", pod={"imagePullSecrets": [{"name": name} for name in names[:5]]})
    assert "has more than 4 entries" in many.err


def test_who_changes_something_else_is_not_asked_for_the_volumes(author: str, grant: Grant) -> None:
    name = f"kept-{uuid.uuid4().hex[:6]}"
    spec = {
        "engineType": "python", "user": "ana", "desiredState": "Stopped",
        "volumes": [volume(secret={"secretName": "others"})],
    }  # fmt: skip
    body = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "EngineConn", "metadata": {"name": name}, "spec": spec}
    kubectl.must("create", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(body))
    grant(acts_as("ana"), {"apiGroups": [GROUP], "resources": ["engineconns"], "verbs": ["patch"]})

    def patch(change: dict[str, Any]) -> kubectl.Answer:
        command = ("patch", "ec", name, "-n", NAMESPACE, "--as", account(author), "--type=merge", "--dry-run=server")
        return kubectl.run(*command, "-p", json.dumps({"spec": change}))

    try:
        assert patch({"idleTimeout": "1m"}).code == 0
        changed = [{"name": "mine", "mountPath": "/mine", "secret": {"secretName": "more"}}]
        assert "you may not get secrets more" in patch({"volumes": changed}).err
    finally:
        kubectl.run("delete", "ec", name, "-n", NAMESPACE, "--wait=false")


JUNK: list[tuple[str, Any]] = [
    ("labels", {f"l{n}": "" for n in range(65)}),
    ("annotations", {f"a{n}": "" for n in range(65)}),
    ("finalizers", [f"example.org/f{n}" for n in range(17)]),
    ("ownerReferences", [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": f"c{n}", "uid": str(uuid.uuid4())} for n in range(17)
    ]),
    ("ownerReferences", [{"apiVersion": "v1", "kind": "ConfigMap", "name": "c" * 9000, "uid": str(uuid.uuid4())}]),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), JUNK)
def test_metadata_without_bound_is_refused_by_field(author: str, grant: Grant, field: str, value: Any) -> None:
    grant(acts_as("ana"), {"apiGroups": [GROUP], "resources": ["engineconns"], "verbs": ["create"]})
    body = {
        "apiVersion": f"{GROUP}/v1alpha1", "kind": "EngineConn", "metadata": {"name": "asked", field: value},
        "spec": {"engineType": "python", "user": "ana"},
    }  # fmt: skip
    command = ("create", "--validate=false", "--as", account(author), "-n", NAMESPACE, "--dry-run=server", "-f", "-")
    refused = kubectl.run(*command, stdin=json.dumps(body))
    assert refused.code != 0
    assert f"metadata.{field} has" in refused.err
    less = dict(list(value.items())[:64]) if isinstance(value, dict) else value[: 16 if len(value) > 1 else 0]
    body["metadata"] = {"name": "asked", field: less}
    assert kubectl.run(*command, stdin=json.dumps(body)).code == 0


def test_managers_of_fields_are_bounded(author: str, grant: Grant) -> None:
    """Each server-side apply by another name leaves an entry."""
    name = f"managed-{uuid.uuid4().hex[:6]}"
    body = {
        "apiVersion": f"{GROUP}/v1alpha1", "kind": "EngineConn", "metadata": {"name": name},
        "spec": {"engineType": "python", "user": "ana", "desiredState": "Stopped"},
    }  # fmt: skip
    kubectl.must("create", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(body))
    grant(acts_as("ana"), {"apiGroups": [GROUP], "resources": ["engineconns"], "verbs": ["patch"]})

    def apply(manager: int) -> kubectl.Answer:
        labels = {"apiVersion": body["apiVersion"], "kind": "EngineConn",
                  "metadata": {"name": name, "labels": {f"l{manager}": ""}}}  # fmt: skip
        command = ("apply", "--server-side", f"--field-manager=m{manager}", "--as", account(author), "-n", NAMESPACE)
        return kubectl.run(*command, "-f", "-", stdin=json.dumps(labels))

    try:
        answers = [apply(manager) for manager in range(36)]
        assert answers[0].code == 0, answers[0].err
        assert "metadata.managedFields has more than 32 entries" in answers[-1].err
    finally:
        kubectl.run("delete", "ec", name, "-n", NAMESPACE, "--wait=false")


def rights(who: str, namespace: str) -> set[tuple[str, str, str]]:
    """(verb, group, resource) of all that an account may do in a namespace, as `kubectl auth can-i --list` shows it."""
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}}
    answer = kubectl.must("create", "--validate=false", "--as", who, "-o", "json", "-f", "-", stdin=json.dumps(body))
    return {
        (verb, group, resource)
        for rule in json.loads(answer)["status"]["resourceRules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def own_rights(who: str, namespace: str) -> set[tuple[str, str, str]]:
    """As `rights`, without what every service account may."""
    return rights(who, namespace) - rights(account("nobody"), namespace)


CATALOGUE = {(verb, GROUP, "engineconnplugins") for verb in ("get", "list", "watch")}


def test_operator_and_gateway_have_nothing_outside_of_the_engines_namespace(installation: Installation) -> None:
    operator = account(f"{RELEASE}-operator", RELEASE_NAMESPACE)
    gateway = account(f"{RELEASE}-gateway", RELEASE_NAMESPACE)
    reviews = {("create", "authentication.k8s.io", "tokenreviews"),
               ("create", "authorization.k8s.io", "subjectaccessreviews")}  # fmt: skip
    # Of this release alone, by name: docs/security/accounts.md has the names.
    policies = {(verb, "admissionregistration.k8s.io", f"validatingadmission{kind}")
                for verb in ("get", "list", "watch") for kind in ("policies", "policybindings")}  # fmt: skip
    own = {("get", "", "nodes"), ("patch", GROUP, "engineconnplugins/status")}
    everywhere = {operator: CATALOGUE | policies | own, gateway: CATALOGUE | reviews}
    # A warm engine's variables (warmPools.secrets): each by its name, as its author has it.
    named = {operator: {("get", "", "secrets")}, gateway: set[tuple[str, str, str]]()}
    for who, base in everywhere.items():
        assert own_rights(who, "kube-system") == base
        assert {resource for _, _, resource in own_rights(who, RELEASE_NAMESPACE) - base} <= {"leases", "configmaps"}
        here = own_rights(who, NAMESPACE) - base - named[who]
        assert not [right for right in here if right[2] in ("secrets", "pods/exec", "serviceaccounts/token")]
        assert ("create", "", "pods") in here or who == gateway
        assert ("create", "", "pods") not in here or who == operator


def test_view_edit_and_admin_have_our_rights_by_aggregation(author: str) -> None:
    people = {}
    for role in ("view", "edit", "admin"):
        name = f"{role}-{uuid.uuid4().hex[:6]}"
        who = f"person-{name}"
        kubectl.must("create", "rolebinding", name, "-n", NAMESPACE, f"--clusterrole={role}", f"--user={who}")
        until_allowed(who, "get", GROUP, "engineconns")
        people[role] = {right for right in rights(who, NAMESPACE) if right[1] == GROUP}
        kubectl.run("delete", "rolebinding", name, "-n", NAMESPACE)
    assert {verb for verb, _, resource in people["view"] if resource == "engineconns"} == {"get", "list", "watch"}
    assert people["edit"] - people["view"] == {
        (verb, GROUP, "engineconns") for verb in ("create", "update", "patch", "delete", "deletecollection")
    }
    assert people["admin"] - people["edit"] == {("impersonate", GROUP, "users")}
