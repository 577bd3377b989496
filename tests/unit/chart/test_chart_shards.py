"""The chart's shards: each operator has namespaces, a Lease, an account and rights of its own, and no more."""

from __future__ import annotations

import json
from typing import Any

import pytest

from linkis_ecm.controller.settings import from_environment
from tests.unit.chart.test_chart import refusal, rules_of, template

SPACES = ("--set-json", 'engineNamespaces=[{"name": "a"}, {"name": "b"}, {"name": "c", "create": false}]')
DATABASE = ("--set", "database.url=mysql+pymysql://u:p@db:3306/linkis")
REST = ("--set-json", 'operator.shards=[{"name": "two", "namespaces": ["b"]}]')
ALL = (
    "--set-json",
    'operator.shards=[{"name": "one", "namespaces": ["a", "c"]}, {"name": "two", "namespaces": ["b"]}]',
)


def shards(*arguments: str, of: tuple[str, ...] = REST) -> list[dict[str, Any]]:
    return template(*SPACES, *DATABASE, *of, *arguments)


def operators(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The operators' Deployments, by name."""
    found = [one for one in documents if one["kind"] == "Deployment" and "-operator" in one["metadata"]["name"]]
    return {one["metadata"]["name"]: one for one in found}


def env(deployment: dict[str, Any]) -> dict[str, str]:
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    names = [one["name"] for one in container["env"]]
    assert len(names) == len(set(names))
    return {one["name"]: one.get("value", "") for one in container["env"]}


def named(documents: list[dict[str, Any]], kind: str, name: str, namespace: str = "ns") -> dict[str, Any]:
    (found,) = (
        one
        for one in documents
        if one["kind"] == kind and one["metadata"]["name"] == name and one["metadata"].get("namespace") == namespace
    )
    return found


def selects(service: dict[str, Any], deployment: dict[str, Any]) -> bool:
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    return bool(service["spec"]["selector"].items() <= labels.items())


def test_without_shards_there_is_one_operator_as_ever() -> None:
    (operator,) = operators(template(*SPACES)).values()
    found = env(operator)
    assert operator["metadata"]["name"] == "x-operator"
    assert found["ECM_WATCH_NAMESPACES"] == "a,b,c"
    assert found["ECM_LEASE_NAME"] == "x-operator"
    assert not {"ECM_SHARD_NEIGHBOURS", "ECM_REPORT_URLS"} & found.keys()
    assert "linkis.apache.org/shard" not in operator["spec"]["template"]["metadata"]["labels"]


def test_each_namespace_is_one_operators_and_what_no_shard_has_is_the_one_without_a_name() -> None:
    found = {name: env(one) for name, one in operators(shards()).items()}
    assert {name: one["ECM_WATCH_NAMESPACES"] for name, one in found.items()} == {
        "x-operator": "a,c", "x-operator-two": "b"
    }  # fmt: skip
    assert {name: one["ECM_LEASE_NAME"] for name, one in found.items()} == {name: name for name in found}
    assert json.loads(found["x-operator"]["ECM_SHARD_NEIGHBOURS"]) == {"x-operator-two": ["b"]}
    assert json.loads(found["x-operator-two"]["ECM_SHARD_NEIGHBOURS"]) == {"x-operator": ["a", "c"]}
    # One installation: Linkis and the gateway see no shards.
    assert len({one["ECM_INSTANCE"] for one in found.values()}) == 1
    assert {one["ECM_SHARDS_CONFIGMAP"] for one in found.values()} == {"x-shards"}


def test_where_shards_have_all_namespaces_there_is_no_operator_without_a_name_and_its_lease_is_waited_for() -> None:
    found = {name: env(one) for name, one in operators(shards(of=ALL)).items()}
    assert found.keys() == {"x-operator-one", "x-operator-two"}
    assert json.loads(found["x-operator-two"]["ECM_SHARD_NEIGHBOURS"]) == {
        "x-operator": [], "x-operator-one": ["a", "c"]
    }  # fmt: skip


@pytest.mark.parametrize("of", [REST, ALL], ids=["some", "all"])
def test_an_operator_takes_the_settings_of_its_shard(of: tuple[str, ...], tmp_path: Any) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"0123456789abcdef0123456789abcdef")
    given = {"ECM_TOKEN_KEY_FILE": str(key), "ECM_DATABASE_URL": "sqlite://", "ECM_POD_NAME": "p"}
    for one in operators(shards(of=of)).values():
        settings = from_environment({name: value for name, value in env(one).items() if value} | given)
        assert settings.neighbours
        assert settings.report_urls.keys() == set(settings.watch_namespaces)


def test_no_two_operators_select_each_others_pods() -> None:
    for of in (REST, ALL):
        found = operators(shards("--set", "operator.replicas=2", of=of))
        documents = shards("--set", "operator.replicas=2", of=of)
        budgets = [one for one in documents if one["kind"] == "PodDisruptionBudget"]
        for kind in (list(found.values()), budgets):
            for name, deployment in found.items():
                labels = deployment["spec"]["template"]["metadata"]["labels"].items()
                selecting = [
                    one["metadata"]["name"] for one in kind if one["spec"]["selector"]["matchLabels"].items() <= labels
                ]
                assert selecting == [name]


def test_a_shard_may_have_its_own_size() -> None:
    own = (
        'operator.shards=[{"name": "two", "namespaces": ["b"], "replicas": 3, "resources": {"requests": {"cpu": "2"}}}]'
    )
    found = operators(shards(of=("--set-json", own)))
    assert {name: one["spec"]["replicas"] for name, one in found.items()} == {"x-operator": 1, "x-operator-two": 3}
    sizes = {name: one["spec"]["template"]["spec"]["containers"][0]["resources"] for name, one in found.items()}
    assert sizes["x-operator-two"] == {"requests": {"cpu": "2"}}
    assert sizes["x-operator"]["limits"]["memory"] == "512Mi"


def test_a_shard_has_rights_in_its_own_namespaces_alone() -> None:
    documents = shards()
    for name, namespaces in (("x-operator", {"a", "c"}), ("x-operator-two", {"b"})):
        account = operators(documents)[name]["spec"]["template"]["spec"]["serviceAccountName"]
        assert account == name
        named(documents, "ServiceAccount", account)
        rights = rules_of(documents, account)
        assert rights.keys() - {"", "ns"} == namespaces
        for namespace in namespaces:
            assert ("create", "pods") in rights[namespace]
        # Its own Lease it writes, the claims it changes, and no ConfigMap does it make.
        assert {verb for verb, resource in rights["ns"] if resource == "configmaps"} == {"get", "patch"}
        role = named(documents, "Role", {"x-operator": "x-lease", "x-operator-two": "x-lease-two"}[name])
        written = [rule for rule in role["rules"] if "update" in rule["verbs"]]
        assert [rule["resourceNames"] for rule in written] == [[name]]
    (binding,) = (one for one in documents if one["kind"] == "ClusterRoleBinding" and "operator" in str(one["roleRef"]))
    assert [one["name"] for one in binding["subjects"]] == ["x-operator", "x-operator-two"]


def test_an_account_of_yours_is_the_one_of_all_shards() -> None:
    documents = shards("--set", "operator.serviceAccount.create=false", "--set", "operator.serviceAccount.name=mine")
    accounts = {one["spec"]["template"]["spec"]["serviceAccountName"] for one in operators(documents).values()}
    assert accounts == {"mine"}
    assert rules_of(documents, "mine").keys() - {"", "ns"} == {"a", "b", "c"}


def test_the_admission_policies_let_each_shard_end_engines() -> None:
    (policy,) = (
        one for one in shards() if one["kind"] == "ValidatingAdmissionPolicy" and "metadata" in one["metadata"]["name"]
    )
    (condition,) = (one for one in policy["spec"]["matchConditions"] if one["name"] == "not-our-own")
    for account in ("x-operator", "x-operator-two", "x-gateway"):
        assert f"'system:serviceaccount:ns:{account}'" in condition["expression"]


def test_engines_report_to_an_address_that_is_their_namespaces_and_stays() -> None:
    """A move of a namespace changes whom its Service leads to, and not its name."""
    urls: dict[str, str] = {}
    for of, owner in ((REST, "x-operator-two"), (ALL, "x-operator-two"), (
        ("--set-json", 'operator.shards=[{"name": "one", "namespaces": ["b"]}]'), "x-operator-one",
    )):  # fmt: skip
        documents = shards(of=of)
        url = json.loads(env(operators(documents)[owner])["ECM_REPORT_URLS"])["b"]
        assert urls.setdefault("b", url) == url
        host = url.removeprefix("http://").partition(".")[0]
        service = named(documents, "Service", host)
        assert [one["name"] for one in service["spec"]["ports"]] == ["reports"]
        assert service["spec"]["publishNotReadyAddresses"] is True
        leads_to = [name for name, one in operators(documents).items() if selects(service, one)]
        assert leads_to == [owner]
        # Engines from before there were shards know the Service of all operators.
        common = named(documents, "Service", "x-operator")
        assert all(selects(common, one) for one in operators(documents).values())
        # A scrape of the metrics' Service finds each operator once.
        assert [
            one["metadata"]["name"]
            for one in documents
            if one["kind"] == "Service" and one["metadata"]["labels"].get("app.kubernetes.io/component") == "operator"
        ] == ["x-operator"]


def test_the_addresses_of_namespaces_can_be_there_before_there_are_shards() -> None:
    documents = template(*SPACES, "--set", "operator.reportServices=true")
    (operator,) = operators(documents).values()
    before = json.loads(env(operator)["ECM_REPORT_URLS"])
    after: dict[str, str] = {}
    for one in operators(shards(of=ALL)).values():
        after |= json.loads(env(one)["ECM_REPORT_URLS"])
    assert before == after


@pytest.mark.parametrize("longest", [True, False])
def test_a_services_name_is_one_for_every_namespace(longest: bool) -> None:
    space = "n" * (63 if longest else 1)
    documents = template(
        "--set", "fullnameOverride=" + "f" * 40, "--set", "operator.reportServices=true",
        "--set-json", json.dumps([{"name": space}]).join(["engineNamespaces=", ""]),
    )  # fmt: skip
    names = [one["metadata"]["name"] for one in documents if one["kind"] == "Service"]
    assert all(len(name) <= 63 for name in names)


def test_the_network_policies_let_each_shard_through() -> None:
    documents = shards()
    policy = named(documents, "NetworkPolicy", "x-operator")
    for one in operators(documents).values():
        labels = one["spec"]["template"]["metadata"]["labels"]
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
        engines = named(documents, "NetworkPolicy", "linkis-engines", "a")
        (peer,) = (
            rule["to"][0]["podSelector"]["matchLabels"]
            for rule in engines["spec"]["egress"]
            if rule.get("ports") == [{"port": 9103, "protocol": "TCP"}]
        )
        assert peer.items() <= labels.items()


@pytest.mark.parametrize("kind", ["serviceMonitor", "podMonitor"])
def test_metrics_of_shards_are_told_apart_by_a_label(kind: str) -> None:
    field = {"serviceMonitor": "endpoints", "podMonitor": "podMetricsEndpoints"}[kind]
    documents = shards("--set", f"metrics.{kind}.enabled=true")
    (monitor,) = (
        one for one in documents if one["kind"].lower() == kind.lower() and one["metadata"]["name"] == "x-operator"
    )
    (endpoint,) = monitor["spec"][field]
    release = {"sourceLabels": ["__meta_kubernetes_pod_label_app_kubernetes_io_instance"], "targetLabel": "release"}
    assert endpoint["relabelings"] == [
        release,
        {"sourceLabels": ["__meta_kubernetes_pod_label_linkis_apache_org_shard"], "targetLabel": "shard"},
    ]
    if kind == "podMonitor":
        for one in operators(documents).values():
            labels = one["spec"]["template"]["metadata"]["labels"]
            assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    alone = template(*SPACES, "--set", f"metrics.{kind}.enabled=true")
    given = [one["spec"][field][0]["relabelings"] for one in alone if one["kind"].lower() == kind.lower()]
    assert given == [[release], [release]], "of operator and gateway"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*DATABASE, *REST), "operator.shards without engineNamespaces"),
        ((*DATABASE, *SPACES, *REST, "--set", "clusterWide=true"), "operator.shards with clusterWide=true"),
        ((*SPACES, *REST), "operator.shards over one SQLite file"),
        (
            (*DATABASE, *SPACES, "--set-json", 'operator.shards=[{"name": "one", "namespaces": ["z"]}]'),
            "gives the namespace z to one, and engineNamespaces has it not",
        ),
        (
            (
                *DATABASE, *SPACES, "--set-json",
                'operator.shards=[{"name": "one", "namespaces": ["a"]}, {"name": "two", "namespaces": ["b", "a"]}]',
            ),
            "gives the namespace a to one and to two: leave it out of one",
        ),
        (
            (
                *DATABASE, *SPACES, "--set-json",
                'operator.shards=[{"name": "one", "namespaces": ["a"]}, {"name": "one", "namespaces": ["b"]}]',
            ),
            "has two of the name one",
        ),
        (
            (*DATABASE, *SPACES, *REST, "--set-json", 'operator.extraEnv=[{"name": "ECM_LEASE_NAME", "value": "l"}]'),
            "operator.extraEnv sets ECM_LEASE_NAME",
        ),
        ((*DATABASE, *SPACES, "--set-json", 'operator.shards=[{"name": "one", "namespaces": []}]'), "minItems"),
        ((*DATABASE, *SPACES, "--set-json", 'operator.shards=[{"name": "One", "namespaces": ["a"]}]'), "pattern"),
    ],
)  # fmt: skip
def test_shards_that_cannot_be_are_refused_in_words(arguments: tuple[str, ...], words: str) -> None:
    assert words in refusal(*arguments)
