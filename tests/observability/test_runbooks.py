"""What a runbook tells to do can be done: the chart takes its values, a shell reads its commands.

The commands of the Diagnosis run on a real cluster, in `e2e/interfaces/test_observability.py`.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from linkis_ecm.engine.warm import problems
from tools.cluster.tools import helm
from tools.observability.alerts import CAPACITY_REASONS, NODE_REASONS, START_REASONS, alerts
from tools.observability.prometheus import binary

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm/linkis-ecm"
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
PAGES = sorted((ROOT / "docs/runbooks").glob("*.md"))
ALERT_PAGES = [page for page in PAGES if page.name != "README.md"]
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
WORD = re.compile(r"`([a-z][A-Za-z0-9]*(?:\.[A-Za-z0-9_]+)+)(=\S+)?`")
# Names with a dot that are files or keys of Secrets.
FILES = {"tokens.json", "tls.crt", "tls.key"}
READYZ = re.compile(r"port-forward .*:9104 .*/readyz; kill \$!")
TAIL = "(README.md#when-a-page-does-not-help)."


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    """The node that a `$ref` names."""
    while "$ref" in node:
        node = SCHEMA["definitions"][node["$ref"].rpartition("/")[2]]
    return node


def chart_has(path: str) -> bool:
    """Whether values.yaml may have this, such as `auth.previousTokenKey` or `engineNamespaces[0].name`."""
    nodes = [SCHEMA]
    for part in re.sub(r"\[\d+\]", ".[]", path).split("."):
        found: list[dict[str, Any]] = []
        for node in map(resolved, nodes):
            choices = [node, *itertools.chain(*(node.get(key, []) for key in ("anyOf", "oneOf", "allOf")))]
            for choice in map(resolved, choices):
                if part == "[]":
                    found += [choice["items"]] if "items" in choice else []
                    continue
                found += [choice["properties"][part]] if part in choice.get("properties", {}) else []
                found += [one for key, one in choice.get("patternProperties", {}).items() if re.search(key, part)]
                if isinstance(choice.get("additionalProperties"), dict):
                    found.append(choice["additionalProperties"])
                elif choice.get("type") == "object" and "properties" not in choice:
                    found.append({"type": "object"})
        nodes = found
    return bool(nodes)


@functools.cache
def plugin_schema() -> dict[str, Any]:
    """Read once: the file takes half a second, and the runbooks name 40 fields."""
    crd = yaml.safe_load((ROOT / "crds/engineconnplugins.yaml").read_text())
    schema: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def plugin_has(path: str) -> bool:
    """Whether an EngineConnPlugin may have this field, such as `spec.warmPool.size`."""
    node = plugin_schema()
    for part in path.split("."):
        node = node.get("properties", {}).get(part)
        if node is None:
            return False
    return True


@pytest.mark.parametrize(
    ("path", "there"),
    [("auth.previousTokenKey", True), ("auth.previousKey", False), ("limits.users", True), ("limits.all", False),
     ("gateway.resources.limits.memory", True), ("engines.python.image", True), ("archive.fileMaxMib", False),
     ("engineNamespaces[0].name", True), ("engineNamespaces[0].title", False)],
)  # fmt: skip
def test_the_schema_is_read(path: str, there: bool) -> None:
    assert chart_has(path) == there
    assert plugin_has("spec.warmPool.size")
    assert not plugin_has("spec.warmPool.length")


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_what_a_runbook_names_can_be_set(page: Path) -> None:
    for name, _ in WORD.findall(page.read_text()):
        if name not in FILES:
            assert plugin_has(name) if name.startswith("spec.") else chart_has(name), f"{name} is nowhere"


def test_the_chart_takes_a_value_that_a_sentence_gives() -> None:
    """Those of whole commands are held by tests/unit/chart/test_documented_commands.py."""
    found = {name + value for page in PAGES for name, value in WORD.findall(page.read_text()) if value}
    assert found
    for text in found:
        done = subprocess.run(
            [str(helm()), "template", "linkis-ecm", CHART, "--set", "auth.existingSecret=ecm-auth", "--set", text],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}: {done.stderr}"


def test_the_key_of_before_is_read_where_the_runbook_puts_it() -> None:
    page = (ROOT / "docs/runbooks/KeyMismatch.md").read_text()
    (patch, upgrade) = next(block for language, block in BLOCK.findall(page) if not language).splitlines()
    words = shlex.split(upgrade)
    done = subprocess.run(
        [str(helm()), "template", "linkis-ecm", CHART, "--set", "auth.existingSecret=ecm-auth",
         "--set", words[words.index("--set") + 1]],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    (key,) = json.loads(shlex.split(patch)[-1])["data"]
    assert f"key: {key}" in done.stdout or f"/{key}" in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_a_shell_reads_each_command(page: Path) -> None:
    for language, block in BLOCK.findall(page.read_text()):
        if language in ("", "sh"):
            # A here-document without its end is a warning only.
            done = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True, check=True, timeout=10)
            assert done.stderr == ""
            assert " #" not in block, "at its prompt zsh reads a comment as words"


def test_a_block_is_one_expression_that_prometheus_reads(tmp_path: Path) -> None:
    found = [
        (page.name, block)
        for page in PAGES
        for language, block in BLOCK.findall(page.read_text())
        if language == "promql"
    ]
    assert len(found) > 30
    rules = [{"record": f"runbook:x{number}", "expr": expr} for number, (_, expr) in enumerate(found)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "runbooks", "rules": rules}]}))
    done = subprocess.run(
        [binary("promtool"), "check", "rules", "rules.yaml"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", ALERT_PAGES, ids=named)
def test_a_page_has_the_expressions_and_the_command_that_it_speaks_of(page: Path) -> None:
    text = page.read_text()
    if re.search(r"\bthe\s+second\b", text):
        assert text.count("```promql") >= 2
    if "`/readyz`" in text:
        assert READYZ.search(text), "how the operator is asked; the API server's own /readyz is another"
    assert text.rstrip().endswith(TAIL), "what to do when it does not help"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_a_link_leads_to_a_heading_that_there_is(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*\.md)(?:#([^)]+))?\)", page.read_text()):
        other = (page.parent / target).resolve()
        assert other.is_file(), target
        headings = re.findall(r"^#+ (.*)$", other.read_text(), re.MULTILINE)
        assert not anchor or anchor in {slug(heading) for heading in headings}, f"{target}#{anchor}"


def slug(heading: str) -> str:
    """As GitHub makes an anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_an_alert_that_fires_for_one_says_no_plural_of_it() -> None:
    """Where 1 is enough, the number stands alone: not `1 engines run`."""
    for alert in alerts():
        if alert.expr.endswith(("> 0", "== 1")):
            assert not re.search(r"\$value( \| printf \"%.0f\")? \}\} [a-z ]*s\b", alert.description), alert.name


def test_documents_say_how_many_alerts_there_are() -> None:
    for name in ("docs/monitoring.md", "CHANGELOG.md"):
        assert re.search(rf"\b{len(alerts())} alerts\b", (ROOT / name).read_text()), name


@pytest.mark.parametrize(
    ("page", "named_reasons"),
    [
        ("StartsFail", START_REASONS.split("|")),
        ("NoCapacity", CAPACITY_REASONS.split("|")),
        ("NodesLoseEngines", NODE_REASONS.split("|")),
        # The alert leaves GivesWay out, and two say that all is well.
        (
            "WarmPoolCannotFill",
            [
                reason.name
                for reason in problems.ALL
                if reason not in (problems.GIVES_WAY, problems.FILLED, problems.FILLING)
            ],
        ),
    ],
)
def test_a_page_has_each_reason_that_its_alert_is_for(page: str, named_reasons: list[str]) -> None:
    text = (ROOT / "docs/runbooks" / f"{page}.md").read_text()
    assert len(named_reasons) >= 3
    assert [reason for reason in named_reasons if f"`{reason}`" not in text] == []
