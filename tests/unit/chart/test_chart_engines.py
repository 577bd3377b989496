"""The chart's catalogue and what it says of engines: types by value, amounts, pods' fields; other platforms; NOTES."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from linkis_ecm.model.plugin import EngineConnPlugin
from tests.unit.chart.test_chart import CHART, SECRET, refusal, template
from tests.unit.chart.test_chart_parts import pod_of, value
from tests.unit.pods.test_pod_bounds import built
from tools.cluster.tools import helm


def entries(*arguments: str) -> dict[str, dict[str, Any]]:
    """The catalogue by name; each entry is one that the operator takes."""
    found = {d["metadata"]["name"]: d["spec"] for d in template(*arguments) if d["kind"] == "EngineConnPlugin"}
    for name, spec in found.items():
        EngineConnPlugin.model_validate({"metadata": {"name": name}, "spec": spec})
    return found


def test_each_key_is_an_entry_with_every_field_that_the_catalogue_has() -> None:
    redis = {
        "image": "redis:8", "version": "8", "launch": {"kind": "process", "port": 6379}, "command": ["redis-server"],
        "args": ["--save", ""], "resources": {"cpu": "100m", "memory": "128Mi"},
        "env": [{"name": "TZ", "value": "UTC"}],
        "maxLifetime": "8h", "stopGrace": "5s", "ttlAfterFinished": "1h", "imagePullPolicy": "Always",
        "restartPolicy": {"type": "OnFailure", "maxAttempts": 2}, "maxProcesses": 0, "userNamespaces": False,
        "overridable": ["labels"],
    }  # fmt: skip
    batch = {"engineType": "python", "version": "batch", "image": "e:1", "default": False, "runTypes": ["python"],
             "resources": {"cpu": 1, "memory": "1Gi"}}  # fmt: skip
    found = entries(*value("engines", {"redis_db": redis, "batch": batch}))
    assert set(found) == {"python-3.11", "redis-db-8", "python-batch"}
    made = found["redis-db-8"]
    assert made["engineType"] == "redis_db"
    assert {name: made[name] for name in redis if name not in ("version", "resources")} == {
        name: content for name, content in redis.items() if name not in ("version", "resources")
    }
    assert made["defaultResources"] == redis["resources"]
    assert (found["python-batch"]["default"], found["python-3.11"]["default"]) == (False, True)
    assert entries("--set", "engines.python.enabled=false") == {}


def test_a_type_lends_its_engines_by_value() -> None:
    shares = {"share": "group", "shareAs": "pool", "shareGroups": ["analysts", "Data / Science"], "shareLocks": 3,
              "shareKernel": True}  # fmt: skip
    given = [word for name, content in shares.items() for word in value(f"engines.python.{name}", content)]
    made = entries(*given)["python-3.11"]
    assert {name: made[name] for name in shares} == shares
    # What takes engines back from everybody leaves the rest as it is.
    made = entries(*given, "--set", "engines.python.share=user")["python-3.11"]
    assert {name: made[name] for name in shares} == shares | {"share": "user"}
    plain = entries()["python-3.11"]
    assert (plain["share"], plain.get("shareAs"), plain.get("shareGroups")) == ("user", None, None)
    refusal("--set", "engines.python.share=everybody")
    refusal(*value("engines.python.shareGroups", ["system:authenticated"]))


def test_a_type_has_a_warm_pool_by_value_where_the_engines_are() -> None:
    pool = {"size": 4, "preload": ["pandas"], "resources": {"cpu": 1, "memory": "256Mi"}}
    # Not smaller than a pod of the pool.
    size = value("engines.python.resources", {"cpu": 1, "memory": "1Gi"})
    given = (*value("engines.python.warmPool", pool), *size)
    texts = pool | {"resources": {"cpu": "1", "memory": "256Mi"}}
    assert entries(*given)["python-3.11"]["warmPool"] == texts
    # An installation for the whole cluster serves namespaces of which the chart knows nothing.
    wide = entries(*given, "--set", "clusterWide=true")["python-3.11"]["warmPool"]
    assert wide == texts | {"namespaces": ["x-engines"]}
    own = (*value("engines.python.warmPool", pool | {"namespaces": ["a"]}), *size)
    assert entries(*own, "--set", "clusterWide=true")["python-3.11"]["warmPool"]["namespaces"] == ["a"]
    assert "warmPool" not in entries()["python-3.11"]
    assert "size" in refusal(*value("engines.python.warmPool", {"size": 101}))


def test_a_pools_schedule_and_scaling_reach_the_entry_and_bad_ones_are_refused() -> None:
    window = {"days": ["Mon"], "from": "08:00", "to": "24:00", "timeZone": "Europe/Berlin", "size": 20}
    pool = {"size": 1, "cap": 30, "schedule": [window, {"from": "22:00", "to": "06:00", "size": 0}]}
    pool |= {"scaling": {"max": 30, "window": "15m", "headroomPercent": 0}}
    assert entries(*value("engines.python.warmPool", pool))["python-3.11"]["warmPool"] == pool
    for change in ({"days": ["Monday"]}, {"from": "8:00"}, {"to": "24:01"}, {"timeZone": "+02:00"}, {"size": 101}):
        (field,) = change
        assert field in refusal(*value("engines.python.warmPool", {"schedule": [window | change]}))
    assert "max" in refusal(*value("engines.python.warmPool", {"scaling": {"window": "5m"}}))


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("1", "1"),
        ("500m", "500m"),
        ("0.5", "0.5"),
        ("1073741824", "1073741824"),
        ("2Gi", "2Gi"),
        ("1000000", "1000000"),
    ],
)
def test_an_amount_may_be_a_number_by_set_by_json_and_by_file(written: str, text: str, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    size = f"{{cpu: {written}, memory: {written}}}"
    values.write_text(f"engines: {{python: {{resources: {size}, maxResources: {size}}}}}")
    fields = [f"engines.python.{part}.{name}" for part in ("resources", "maxResources") for name in ("cpu", "memory")]
    forms = [
        ("-f", str(values)),
        ("--set", ",".join(f"{field}={written}" for field in fields)),
    ]
    for form in forms:
        found = entries(*form)["python-3.11"]["defaultResources"]
        assert found == {"cpu": text, "memory": text}, form


def test_a_soft_pause_reaches_the_plugin() -> None:
    given = value("engines.python.softPause", {"after": "5m", "cpu": 0.05})
    assert entries(*given)["python-3.11"]["softPause"] == {"after": "5m", "cpu": "0.05"}
    assert "softPause" not in entries()["python-3.11"]
    assert "memory" in refusal(*value("engines.python.softPause", {"cpu": "50m", "memory": "1Gi"}))
    assert "cpu" in refusal(*value("engines.python.softPause", {"after": "5m"}))
    # As the CRD has it: below 60s none.
    assert "after" in refusal(*value("engines.python.softPause", {"after": "30s", "cpu": "50m"}))
    assert "60s" in str(entries(*value("engines.python.softPause", {"after": "60s", "cpu": "50m"})))


FIELDS: dict[str, Any] = {
    "nodeSelector": {"pool": "engines"},
    "tolerations": [{"key": "dedicated", "value": "engines"}],
    "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "priorityClassName": "batch",
    "runtimeClassName": "gvisor",
    "serviceAccountName": "s3-reader",
}


def test_fields_of_engines_pods_reach_the_pod() -> None:
    values = FIELDS | {
        "imagePullSecrets": ["own"], "labels": {"team": "a"}, "annotations": {"b": "c"}, "doNotDisrupt": True,
        "podTemplate": {"metadata": {"labels": {"d": "e"}}, "spec": {"schedulerName": "volcano"}},
        "securityContext": {"fsGroup": 7},
    }  # fmt: skip
    arguments = (*value("engines.python", values), *value("global.imagePullSecrets", ["shared"]))
    spec = entries(*arguments)["python-3.11"]
    pod = built(base=spec)
    assert {name: pod[name] for name in FIELDS} == FIELDS
    assert pod["schedulerName"] == "volcano"
    assert pod["imagePullSecrets"] == [{"name": "shared"}, {"name": "own"}]
    assert pod["securityContext"]["fsGroup"] == 7
    assert "runAsUser" not in pod["securityContext"]
    metadata = spec["podTemplate"]["metadata"]
    assert metadata["labels"] == {"team": "a", "d": "e"}
    assert metadata["annotations"] == {"b": "c"}
    assert spec["doNotDisrupt"] == "always"
    assert "podTemplate" not in entries()["python-3.11"]
    assert "securityContext" not in entries()["python-3.11"]


@pytest.mark.parametrize(
    ("written", "mode"),
    [("true", "always"), ("always", "always"), ("busy", "busy"), ("never", "never"), ("false", None), ("", "never")],
)
def test_a_node_is_held_by_word_or_as_before_by_true_and_false(written: str, mode: str | None) -> None:
    arguments = ("--set", f"engines.python.doNotDisrupt={written}") if written else ()
    assert entries(*arguments)["python-3.11"].get("doNotDisrupt") == mode


def test_a_registry_for_all_images_is_that_of_engines_too() -> None:
    found = entries("--set", "global.imageRegistry=mirror:5000")["python-3.11"]
    assert found["image"] == "mirror:5000/linkis-ecm/engine-python:0.1.0"


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ("engines.r.version=v1", "engines.r has no image"),
        ("engines.r.image=i", "engines.r has no version"),
        ("engines.r.image=i,engines.r.version=v1", "engines.r has no resources"),
        ("engines.serviceNam=x", "/engines"),
        ("engines.Python.image=x", "/engines'"),
        ("engines.python.resources.cpu=lots", "/engines/python/resources/cpu"),
        ("engines.python.resources.cpu=-1", "/engines/python/resources/cpu"),
        ("engines.python.tolerations.a=b", "/engines/python/tolerations"),
        ("engines.python.podTemplate.status.a=b", "/engines/python/podTemplate"),
    ],
)
def test_a_wrong_value_is_named(values: str, names: str) -> None:
    assert names in refusal("--set", values)


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ("engines.python.storage.tmp=lots", "an amount: digits and perhaps a unit, such as 512Mi"),
        ("engines.python.resources.cpu=-1", "an amount: digits and perhaps a unit, such as 512Mi"),
        ("limits.user.memory=lots", "an amount: digits and perhaps a unit, such as 512Mi"),
        ("engines.python.workingDir=proj", "an absolute path, which begins with /, of letters"),
        ("engines.python.workingDir=/a b", "an absolute path, which begins with /, of letters"),
    ],
)
def test_a_value_of_a_wrong_form_is_refused_with_the_form_in_words(value: str, form: str) -> None:
    says = refusal("--set", value)
    assert form in says
    # The words themselves are no value.
    name = value.partition("=")[0]
    words = says.partition("value must be '")[2].partition("'")[0]
    assert words
    assert form in refusal("--set-json", f"{name}={json.dumps(words)}")


def test_two_keys_do_not_make_one_entry() -> None:
    again = {"engineType": "python", "version": "3.11", "image": "i", "resources": {"cpu": 1, "memory": "1Gi"}}
    assert "a second time" in refusal("--set-json", f"engines.again={json.dumps(again)}")


def test_the_values_for_openshift_leave_every_user_and_group_to_the_cluster() -> None:
    arguments = ("-f", str(Path(CHART) / "values-openshift.yaml"))
    chosen = {"runAsUser", "runAsGroup", "fsGroup"}
    pods = [
        pod_of("operator", *arguments),
        pod_of("gateway", *arguments),
        built(base=entries(*arguments)["python-3.11"]),
    ]
    pods += [d["spec"] for d in template(*arguments) if d["kind"] == "Pod"]
    for pod in pods:
        assert not chosen & set(pod["securityContext"])
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert not chosen & set(container["securityContext"])
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
    policies = [d["spec"] for d in template(*arguments) if d["kind"] == "NetworkPolicy" and "egress" in d["spec"]]
    for policy in policies:
        assert {port["port"] for port in policy["egress"][0]["ports"]} == {53, 5353}


def notes(*arguments: str) -> str:
    done = subprocess.run(
        [str(helm()), "install", "x", CHART, "--namespace", "ns", "--dry-run=client", *SECRET, *arguments],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return done.stdout.partition("NOTES:\n")[2]


@pytest.mark.parametrize(
    ("arguments", "namespaces"),
    [
        ((), ["x-engines"]),
        (("--set-json", 'engineNamespaces=[{"name": "a"}, {"name": "b", "create": false}]'), ["a", "b"]),
        (("--set", "enginesInReleaseNamespace=true"), ["ns"]),
        (("--set", "clusterWide=true"), ["x-engines"]),
    ],
)
def test_notes_say_where_engines_are_served_and_that_an_uninstall_does_not_end_them(
    arguments: tuple[str, ...], namespaces: list[str]
) -> None:
    text = notes(*arguments)
    assert f"kubectl apply -n {namespaces[0]} -f -" in text, "what the notes show must be watched"
    for namespace in namespaces:
        assert f"kubectl delete ec --all -n {namespace}\n" in text
    assert "`helm uninstall` does not end engines" in text
    assert ("elsewhere an EngineConn stays without a state" in text) == ("clusterWide=true" not in arguments)
    # What the notes tell to apply is an engine.
    body = yaml.safe_load(text.partition("<<'EOF'\n")[2].partition("EOF\n")[0])
    assert (body["kind"], body["spec"]["engineType"]) == ("EngineConn", "python")


# At a prompt: kubectl and helm say what they were asked for, and show what they are given.
STUBS = """
kubectl() { echo "kubectl $*"; case "$*" in *"-f -") cat;; esac; }
helm() { echo "helm $*"; }
base64() { cat; }
"""


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--set", "tls.enabled=true,tls.secretName=t"),
        ("--set", "clusterWide=true,networkPolicy.enabled=false"),
        ("--set", "engines.python.enabled=false"),
    ],
)
def test_what_the_notes_show_can_be_pasted_at_a_prompt(arguments: tuple[str, ...]) -> None:
    text = notes(*arguments)
    commands = re.findall(r"(?:kubectl apply .*<<'EOF'\n(?:.*\n)*?EOF\n)|(?:(?:kubectl|helm) (?!un).*\n)", text)
    assert len(commands) >= 6
    for command in commands:
        assert " #" not in command, "at its prompt zsh reads a comment as words"
        done = subprocess.run(
            ["bash"], input=STUBS + command, capture_output=True, text=True, check=False, timeout=10
        )  # fmt: skip
        # bash only warns of a here-document without its end, for which a prompt waits.
        assert (done.returncode, done.stderr) == (0, ""), command
        if "<<" in command:
            assert yaml.safe_load(done.stdout.partition("\n")[2])["kind"] == "EngineConn"
    scheme = "https" if "tls.enabled=true,tls.secretName=t" in arguments else "http"
    assert f"{scheme}://127.0.0.1:9102/console" in text


def test_rendering_is_the_same_each_time_in_every_form() -> None:
    command = [str(helm()), "template", "x", CHART, "--namespace", "ns", "--include-crds", *SECRET,
               *value("metrics", {"annotations": True, "serviceMonitor": {"enabled": True}}),
               "--set", "tests.enabled=true,database.url=mysql+pymysql://u:p@db/l"]  # fmt: skip
    first, second = (
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout for _ in "ab"
    )
    assert first == second


PIP = value("engines.python.pip", {"indexUrl": "https://mirror.example/simple", "proxy": "http://proxy:3128"})


def test_where_pip_looks_is_a_value_and_env_says_it_better() -> None:
    (made,) = entries().values()
    assert "env" not in made
    assert "workingDir" not in made
    (made,) = entries(*PIP, "--set", "engines.python.workingDir=/tmp/work").values()
    assert made["env"] == [
        {"name": "PIP_INDEX_URL", "value": "https://mirror.example/simple"},
        {"name": "PIP_PROXY", "value": "http://proxy:3128"},
    ]
    assert made["workingDir"] == "/tmp/work"
    own = {"name": "PIP_INDEX_URL", "valueFrom": {"secretKeyRef": {"name": "pip", "key": "url"}}}
    (made,) = entries(*PIP, *value("engines.python.env", [own])).values()
    assert made["env"] == [own, {"name": "PIP_PROXY", "value": "http://proxy:3128"}]


@pytest.mark.parametrize(
    "pip", [{"indexUrl": "ftp://a"}, {"indexUrl": "https://me:secret@mirror/simple"}, {"index": "https://mirror"}]
)
def test_an_index_that_is_none_or_holds_a_password_is_refused(pip: dict[str, str]) -> None:
    assert "pip" in refusal(*value("engines.python.pip", pip))


@pytest.mark.parametrize("written", ["0s", "0h0m"])
def test_a_start_in_no_time_is_refused_by_the_chart(written: str) -> None:
    assert "startTimeout" in refusal(*value("engines.python.startTimeout", written))
    assert entries(*value("engines.python.startTimeout", "1s"))["python-3.11"]["startTimeout"] == "1s"
    # Of these it is never, or at once.
    for field in ("idleTimeout", "maxLifetime", "stopGrace", "ttlAfterFinished"):
        assert entries(*value(f"engines.python.{field}", written))["python-3.11"][field] == written
