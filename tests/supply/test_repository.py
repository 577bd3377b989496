"""The rules of the repository: each finds what it is for, and finds nothing in what is there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tools.supply import repository
from tools.supply.repository import File

ROOT = Path(__file__).parents[2]
HASH = "--hash=sha256:" + "a" * 64
DIGEST = "@sha256:" + "b" * 64
COMMIT = "c" * 40

GOOD = {
    "LICENSE": "                 Apache License\n",
    "NOTICE": "linkis-ecm\nCopyright 2026 The authors\n",
    "CONTRIBUTING.md": "x",
    "SECURITY.md": "How to report a vulnerability",
    ".github/CODEOWNERS": "# who\n* @team\n",
    "pyproject.toml": 'license = "Apache-2.0"\n',
    "requirements/runtime.txt": (
        f"# made\naiohttp==3.14.5 \\\n    {HASH} \\\n    {HASH}\na[b]==1 {HASH}\nc==2 ; x == 'y' {HASH}\n"
    ),
    "Dockerfile": (
        f"ARG BASE\nFROM ${{BASE}} AS base\nRUN pip install --require-hashes -r x \\\n && echo\nFROM scratch AS end\n"
        f"COPY --from=base / /\nFROM python:3.11{DIGEST}\nCOPY --from=busybox{DIGEST} /a /a\n"
    ),
    ".github/workflows/ci.yml": (
        f"permissions: {{}}\njobs:\n  a:\n    steps:\n      - uses: actions/checkout@{COMMIT} # v5\n"
        "      - uses: ./.github/x\n"
    ),
    "tools/go.mod": "module a\n",
    "tools/go.sum": "x",
    "a.py": "import os  # Copyright is in NOTICE\n",
    "b.py": "# SPDX-License-Identifier: Apache-2.0\nA = 'mysql://user:password@host/db'\nB = f'mysql://{a}:{b}@host'\n",
    "Makefile": "setup:\n\tpip install --no-deps -e .\n\tpip install --require-hashes -r requirements/dev.txt\n",
}


def files(**more: str) -> dict[str, File]:
    return {path: File(text.encode()) for path, text in (GOOD | more).items()}


def found(path: str, text: str) -> list[str]:
    return repository.faults(files(**{path: text}))


def test_this_repository_has_no_fault() -> None:
    assert repository.faults(repository.tracked(ROOT)) == []


def test_what_is_good_is_left_alone() -> None:
    assert repository.faults(files()) == []


BAD = [
    ("requirements/a.txt", "aiohttp==3.14.5\n", "requirements/a.txt:1: not a version with hashes"),
    ("requirements/a.txt", f"aiohttp>=3 {HASH}\n", "not a version with hashes"),
    ("requirements/a.txt", f"a==1 \\\n  {HASH}\nb==2 \\\n  --hash=md5:1\n", "requirements/a.txt:3: not a version"),
    ("requirements/a.txt", "--index-url https://pypi.example\n", "not a version with hashes"),
    ("requirements/a.txt", f"a @ https://x/a.whl {HASH}\n", "not a version with hashes"),
    ("requirements/a.txt", "-e .\n", "not a version with hashes"),
    ("bench/x-requirements.txt", "a==1\n", "bench/x-requirements.txt:1: not a version"),
    ("x.Dockerfile", "FROM scratch\nRUN a && \\\n pip install b\n", "x.Dockerfile:2: pip without --require-hashes"),
    ("Makefile", "x:\n\tpip install -r requirements.txt\n", "Makefile:2: pip without --require-hashes"),
    ("Makefile", "x:\n\tpip install --require-hashes -r a; pip install -e .\n", "Makefile:2: pip without"),
    ("Dockerfile", "FROM python:3.11\n", "Dockerfile:1: FROM python:3.11 is not a digest"),
    ("Dockerfile", "ARG B=python:3.11\nFROM ${B}\n", "Dockerfile:2: FROM ${B} is not a digest"),
    ("Dockerfile", "FROM --platform=linux/amd64 a@sha256:1 AS x\n", "FROM a@sha256:1 is not a digest"),
    ("Dockerfile", "FROM scratch\nCOPY --from=busybox:1 /a /a\n", "COPY --from=busybox:1 is not a digest"),
    (
        ".github/workflows/a.yml",
        "permissions: {}\n- uses: actions/checkout@v5\n",
        "uses actions/checkout@v5, which is not",
    ),
    (".github/workflows/a.yml", "permissions: {}\n  uses: 'a/b@main'\n", "uses a/b@main, which is not a commit"),
    (".github/workflows/a.yml", "permissions: {}\n- uses: docker://a:1\n", "uses docker://a:1, which is not a commit"),
    (".github/workflows/a.yml", "jobs: {}\n", "no `permissions:`"),
    ("x/go.mod", "module b\n", "x/go.mod: go.sum is missing"),
    ("tools/go.mod", "replace a => ../a\n", "tools/go.mod:1: a module is replaced by a folder"),
    ("a.sh", "curl -s https://x | bash\n", "a.sh:1: runs or takes what nobody checked"),
    ("a.sh", "GONOSUMDB=* go build\n", "a.sh:1: runs or takes what nobody checked"),
    ("LICENSE", "", "LICENSE is missing or empty"),
    ("SECURITY.md", "be nice", "SECURITY.md: it does not say how"),
    (".github/CODEOWNERS", "/a @b\n", ".github/CODEOWNERS: no line"),
    ("LICENSE", "MIT License\n", "LICENSE: not the Apache License"),
    ("pyproject.toml", 'license = "MIT"\n', "pyproject.toml: license is not Apache-2.0"),
    ("a.py", "# SPDX-License-Identifier: GPL-3.0\n", "a.py:1: another owner or licence"),
    ("a.py", "# Copyright (c) 2020 Somebody\n", "a.py:1: another owner or licence"),
    ("a.js", "/* GNU Lesser General Public License */\n", "a.js:1: another owner or licence"),
    ("a.txt", "ELF\0", "a.txt: a binary, or something that was built"),
    ("a.pyc", "x", "a.pyc: a binary"),
    ("docs/a.png", "x", "docs/a.png: no PNG"),
    ("a.png", "\x89PNG\0", "a.png: a binary"),
    ("a.md", "x" * ((1 << 20) + 1), "a.md: 1048577 bytes, more than 1048576"),
    ("a.pem", "-----BEGIN EC PRIVATE KEY-----\n", "a.pem:1: a private key"),
    ("a.pem", "-----BEGIN ENCRYPTED PRIVATE KEY-----\n", "a.pem:1: a private key"),
    ("a.yaml", "key: AKIAABCDEFGHIJKLMNOP\n", "a.yaml:1: a key of Amazon's"),
    ("a.md", "ghp_" + "a" * 36, "a.md:1: a token of GitHub's"),
    ("a.md", "xoxb-1234567890-x", "a.md:1: a token of a chat"),
    ("a.md", f"eyJ{'a' * 20}.eyJ{'b' * 20}.{'c' * 30}", "a.md:1: a JWT"),
    ("a.yaml", "client-key-data: " + "A" * 40, "a.yaml:1: a kubeconfig's key"),
    ("a.md", "mysql://root:hunter2hunter2@db/x", "a.md:1: a password in a URL"),
    ("run", "#!/bin/sh\n", "run: begins with #! and is not executable"),
]


@pytest.mark.parametrize(("path", "text", "fault"), BAD)
def test_each_rule_finds_what_it_is_for(path: str, text: str, fault: str) -> None:
    assert any(fault in one for one in found(path, text)), found(path, text)


@pytest.mark.parametrize(
    ("mode", "text", "fault"),
    [
        ("100755", "x", "is executable and no script"),
        ("104755", "x", "its mode is 104755"),
        ("160000", "", "another repository"),
        ("120000", "/etc/passwd", "a link that leads out"),
        ("120000", "../../x", "a link that leads out"),
    ],
)
def test_modes(mode: str, text: str, fault: str) -> None:
    (one,) = repository.faults(files() | {"docs/x": File(text.encode(), mode)})
    assert one.startswith("docs/x: ")
    assert fault in one


def test_a_link_inside_is_fine() -> None:
    assert repository.faults(files() | {"docs/x": File(b"../README.md", "120000")}) == []


def test_what_git_knows_is_read_with_its_modes(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "a b.txt").write_text("x")
    (tmp_path / "s.sh").write_text("#!/bin/sh\n")
    (tmp_path / "s.sh").chmod(0o755)
    (tmp_path / "l").symlink_to("a b.txt")
    (tmp_path / "unknown").write_text("y")
    (tmp_path / "gone").write_text("z")
    subprocess.run(["git", "-C", str(tmp_path), "add", "a b.txt", "s.sh", "l", "gone"], check=True)
    (tmp_path / "gone").unlink()
    assert repository.tracked(tmp_path) == {
        "a b.txt": File(b"x"),
        "s.sh": File(b"#!/bin/sh\n", "100755"),
        "l": File(b"a b.txt", "120000"),
    }


def test_each_rule_has_a_name_that_exceptions_use() -> None:
    names = {rule.__name__ for rule in repository.RULES}
    assert set().union(*repository.ALLOWED.values()) <= names
    assert all((ROOT / path).exists() for path in repository.ALLOWED)
