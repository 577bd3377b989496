"""Names of the cluster in the chart: its domain, and where engines have host names."""

from __future__ import annotations

import subprocess

import pytest
import yaml

from linkis_ecm.engine.admission.fields import ANNOTATION, fields
from linkis_ecm.engine.pod import launch
from linkis_ecm.model.engineconn import Launch
from tests.unit.chart.test_chart import CHART, MODES, refusal, template
from tests.unit.engine.test_admission_fields import served
from tools.cluster.tools import helm


def operator_env(*arguments: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for document in template(*arguments):
        if document["kind"] == "Deployment":
            for container in document["spec"]["template"]["spec"]["containers"]:
                if container["name"] == "operator":
                    found |= {one["name"]: one.get("value", "") for one in container["env"]}
    return found


@pytest.mark.parametrize(
    ("domain", "ends"),
    [(None, ".svc.cluster.local.:9103"), ("my.domain", ".svc.my.domain.:9103"), ("", ".svc:9103")],
)
def test_engines_find_the_operator_by_the_clusters_own_domain(domain: str | None, ends: str) -> None:
    arguments = () if domain is None else ("--set-string", f"clusterDomain={domain}")
    url = operator_env(*arguments)["ECM_REPORT_URL"]
    assert url.endswith(ends)
    assert url.startswith("http://")
    texts = str(template(*arguments))
    assert ("cluster.local" in texts) == (domain is None)


@pytest.mark.parametrize("domain", ["svc..local", ".local", "Cluster.Local", "a b"])
def test_what_is_no_domain_is_refused(domain: str) -> None:
    assert "clusterDomain" in refusal("--set-string", f"clusterDomain={domain}")


def test_the_operator_knows_where_engines_have_host_names() -> None:
    arguments = ("--set", "engineNamespaces[0].name=a,engineNamespaces[1].name=b")
    documents = template(*arguments)
    service = operator_env(*arguments)["ECM_ENGINE_SERVICE"]
    found = {
        d["metadata"]["namespace"] for d in documents if d["kind"] == "Service" and d["metadata"]["name"] == service
    }
    assert set(operator_env(*arguments)["ECM_ENGINE_SERVICE_NAMESPACES"].split(",")) == found


@pytest.mark.parametrize("values", [(), ("--set", "clusterWide=true"), ("--set", "nameOverride=other")], ids=str)
def test_the_operator_is_given_the_names_of_the_policies_and_may_read_and_watch_them(values: tuple[str, ...]) -> None:
    found = template(*values)
    kinds = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    made = [{d["metadata"]["name"] for d in found if d["kind"] == kind} for kind in kinds]
    named = set(operator_env(*values)["ECM_ADMISSION_POLICIES"].split(","))
    # That of metadata is no right's: no engine waits for it.
    extra = {name for name in made[0] if name.endswith("-metadata")}
    assert len(extra) == 1
    assert made == [named | extra, named | extra]
    (rule,) = [
        rule
        for d in found
        if d["kind"] == "ClusterRole"
        for rule in d["rules"] or ()
        if "admissionregistration.k8s.io" in rule["apiGroups"]
    ]
    assert set(rule["resourceNames"]) == named
    assert rule["verbs"] == ["get", "list", "watch"]


@pytest.mark.parametrize("mode", MODES)
def test_the_operator_is_given_each_field_of_the_policies_as_it_reads_it_back(mode: str) -> None:
    """Helm makes the digests, and the operator makes them of what the API server has."""
    given = operator_env(*MODES[mode])
    named = given["ECM_ADMISSION_POLICIES"].split(",")
    wanted: set[str] = set()
    for kind, short in {"ValidatingAdmissionPolicy": "policy", "ValidatingAdmissionPolicyBinding": "binding"}.items():
        for document in template(*MODES[mode]):
            name = document["metadata"]["name"]
            if document["kind"] == kind and name in named:
                own = fields(served(document["spec"])["spec"])
                assert {one.partition("=")[0] for one in own} == set(document["spec"])
                assert set(document["metadata"]["annotations"][ANNOTATION].split(",")) == own
                wanted |= {f"{short}/{name}/{one}" for one in own}
    assert set(given["ECM_ADMISSION_FIELDS"].split(",")) == wanted


def test_without_the_policies_the_operator_looks_for_none() -> None:
    off = ("--set", "admission.enabled=false")
    assert not {"ECM_ADMISSION_POLICIES", "ECM_ADMISSION_FIELDS"} & set(operator_env(*off))
    assert "admissionregistration" not in str([d for d in template(*off) if d["kind"] == "ClusterRole"])


def cluster_names(namespace: str, release: str) -> set[tuple[str, str]]:
    """The objects of no namespace that a release makes for itself alone."""
    command = [str(helm()), "template", release, str(CHART), "--namespace", namespace]
    engines = "engineNamespaces[0].name=e,engineNamespaces[0].create=false"
    more = ["--set", f"auth.existingSecret=mine,clusterWide=true,{engines}"]
    done = subprocess.run([*command, *more], capture_output=True, text=True, check=True, timeout=60)
    kinds = ("ClusterRole", "ClusterRoleBinding", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    return {
        (one["kind"], one["metadata"]["name"])
        for one in yaml.safe_load_all(done.stdout)
        if one and one["kind"] in kinds and not one["metadata"]["name"].startswith("linkis-ecm-")
    }


@pytest.mark.parametrize(
    ("first", "second"),
    [(("a", "b-c"), ("a-b", "c")), (("a-b", "c-d"), ("a-b-c", "d")), (("a", "a-a"), ("a-a", "a"))],
)
def test_no_two_releases_have_one_name_for_an_object_of_no_namespace(
    first: tuple[str, str], second: tuple[str, str]
) -> None:
    """One would take the other's rights and admission policies, where nobody asks whose they are (GitOps)."""
    names = [cluster_names(*one) for one in (first, second)]
    assert len(names[0]) >= 8
    assert not names[0] & names[1]


def test_a_namespace_of_one_word_keeps_the_names_of_before() -> None:
    assert ("ClusterRole", "ns-x-operator") in cluster_names("ns", "x")
    assert ("ValidatingAdmissionPolicy", "ns-x-engineconns") in cluster_names("ns", "x")


def test_dns_has_the_names_of_processes_alone() -> None:
    """A headless Service tells all names and addresses of its pods to whoever asks, and a pod's name has its user."""
    (service,) = [d for d in template() if d["kind"] == "Service" and d["metadata"]["name"] == "linkis-engines"]
    process = launch.pod_labels(Launch(kind="process"))
    assert process
    assert process.items() <= service["spec"]["selector"].items()
    assert launch.pod_labels(launch.AGENT) == {}
    # SRV records are made of ports; a process is called at the port of its own plugin.
    assert "ports" not in service["spec"]
