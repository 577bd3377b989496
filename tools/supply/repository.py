"""What the repository must hold for its supply chain: pins, owners, licence, no binaries, no secrets, plain file modes.

Needs no network. `faults` is pure: files by path in, sentences out. Each rule is a function of its own. Where a finding
is wanted (a test's input), the file is named in ALLOWED with the rule's name; there is no mark for a single line.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# The largest file is requirements/dev.txt with 0.3 MiB.
FILE_MAX_BYTES = 1 << 20
REQUIRED = ("LICENSE", "NOTICE", "SECURITY.md", "CONTRIBUTING.md", ".github/CODEOWNERS")
# Inputs of tests, and this file's own patterns.
ALLOWED = {
    "tests/store/test_schema.py": frozenset({"secrets"}),
    "tests/supply/test_repository.py": frozenset({"secrets", "downloads", "licences"}),
    "tools/supply/repository.py": frozenset({"secrets", "downloads", "licences"}),
}


@dataclass(frozen=True)
class File:
    """A tracked file: its mode as git has it ("100644"), and its content (a link's: where it leads)."""

    data: bytes
    mode: str = "100644"

    @property
    def text(self) -> str:
        return self.data.decode(errors="replace")


Files = Mapping[str, File]
Rule = Callable[[Files], Iterator[str]]


def _matching(files: Files, pattern: str) -> Iterator[tuple[str, File]]:
    return ((path, file) for path, file in sorted(files.items()) if re.search(pattern, path))


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers; one that ends with a backslash goes on in the next."""
    begun, parts = 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        begun = begun if parts else number
        if line.endswith("\\"):
            parts.append(line[:-1])
        else:
            yield begun, "".join([*parts, line]).strip()
            parts = []
    if parts:
        yield begun, "".join(parts).strip()


def requirements(files: Files) -> Iterator[str]:
    """Each pin is one version with hashes, and no line names a registry, a URL or a folder."""
    pin = re.compile(r"[A-Za-z0-9._-]+(\[[a-z0-9,_-]+\])?==[^\s;]+( ;[^-]+)?(\s+--hash=sha256:[0-9a-f]{64})+")
    for path, file in _matching(files, r"(^|/)(requirements/[^/]+|[^/]*-?requirements)\.txt$"):
        for number, line in _logical_lines(file.text):
            if line and not line.startswith("#") and not pin.fullmatch(line):
                yield f"{path}:{number}: not a version with hashes: {line[:60]}"


def installs(files: Files) -> Iterator[str]:
    """Whatever installs Python packages wants hashes, or takes our own folder without dependencies."""
    for path, file in _matching(files, r"(^|/)(Makefile|[^/]*Dockerfile|[^/]+\.sh|run|[^/]+\.ya?ml)$"):
        for number, line in _logical_lines(file.text):
            for command in re.findall(r"\bpip3?\b[^&|;]*?\b(?:install|download) [^&|;]*", line):
                if "--require-hashes" not in command and not re.search(r"--no-deps -e \.(\s|$)", command):
                    yield f"{path}:{number}: pip without --require-hashes"


def bases(files: Files) -> Iterator[str]:
    """An image is built from a digest, from an earlier stage, from nothing, or from an argument without a default."""
    for path, file in _matching(files, r"(^|/)([^/]*\.)?Dockerfile$"):
        known = {"scratch"}
        for number, line in _logical_lines(file.text):
            if match := re.match(r"ARG (\w+)(=(\S+))?", line):
                if not match[2] or "@sha256:" in match[3]:
                    known |= {f"${{{match[1]}}}", f"${match[1]}"}
            elif match := re.match(r"FROM (?:--\S+ )*(\S+)(?: AS (\S+))?", line, re.IGNORECASE):
                if match[1] not in known and not re.search(r"@sha256:[0-9a-f]{64}$", match[1]):
                    yield f"{path}:{number}: FROM {match[1]} is not a digest"
                known.add(match[2] or "")
            for source in re.findall(r"--from=(\S+)", line):
                if source not in known and not re.search(r"@sha256:[0-9a-f]{64}$", source):
                    yield f"{path}:{number}: COPY --from={source} is not a digest"


def actions(files: Files) -> Iterator[str]:
    """A step of a workflow is named by its commit, and a workflow says which rights its token has."""
    for path, file in _matching(files, r"^\.github/(workflows|actions)/.*\.ya?ml$"):
        for number, line in enumerate(file.text.splitlines(), 1):
            if match := re.match(r"\s*(?:- )?uses:\s*['\"]?([^\s'\"#]+)", line):
                used = match[1]
                if not used.startswith("./") and not re.search(r"@([0-9a-f]{40}|sha256:[0-9a-f]{64})$", used):
                    yield f"{path}:{number}: uses {used}, which is not a commit"
        if path.startswith(".github/workflows/") and not re.search(r"^permissions:", file.text, re.MULTILINE):
            yield f"{path}: no `permissions:` at the top, so its token has the repository's default rights"


def modules(files: Files) -> Iterator[str]:
    """A Go module has its sums, and replaces none of its modules."""
    for path, file in _matching(files, r"(^|/)go\.mod$"):
        if str(PurePosixPath(path).with_name("go.sum")) not in files:
            yield f"{path}: go.sum is missing beside it"
        for number, line in enumerate(file.text.splitlines(), 1):
            if re.match(r"\s*replace\b.*=>\s*[./]", line):
                yield f"{path}:{number}: a module is replaced by a folder"


def downloads(files: Files) -> Iterator[str]:
    """Nothing that is downloaded is run unseen."""
    pattern = re.compile(
        r"\b(curl|wget)\b[^\n|]*\|\s*(sudo )?(ba|z|da)?sh\b|GOFLAGS=-mod=mod|GONOSUM(DB|CHECK)=|GOFLAGS=-insecure"
    )
    for path, file in _matching(files, r"(^|/)(Makefile|[^/]*Dockerfile|run|[^/]+\.(sh|py|ya?ml))$"):
        for number, line in enumerate(file.text.splitlines(), 1):
            if match := pattern.search(line):
                yield f"{path}:{number}: runs or takes what nobody checked: {match[0][:40]}"


def required(files: Files) -> Iterator[str]:
    """The files that tell others who owns what, under which licence, and how to report; they are not empty."""
    for path in REQUIRED:
        if path not in files or not files[path].data.strip():
            yield f"{path} is missing or empty"
    owners = files.get(".github/CODEOWNERS", File(b"")).text
    if not re.search(r"^\*\s+@\S+", owners, re.MULTILINE):
        yield ".github/CODEOWNERS: no line `* @owners` for what no other line names"
    if not re.search(r"(?i)report.*vulnerabilit", files.get("SECURITY.md", File(b"")).text):
        yield "SECURITY.md: it does not say how to report a vulnerability"


VENDORED = "operator/linkis_ecm/gateway/pages/console/vendor/"


def licences(files: Files) -> Iterator[str]:
    """One licence, in LICENSE and pyproject.toml; no header repeats it, and none names another one or another owner."""
    if "Apache License" not in files.get("LICENSE", File(b"")).text[:200]:
        yield "LICENSE: not the Apache License"
    if not re.search(r'^license = "Apache-2.0"$', files.get("pyproject.toml", File(b"")).text, re.MULTILINE):
        yield "pyproject.toml: license is not Apache-2.0"
    header = re.compile(
        r"SPDX-License-Identifier:(?!\s*Apache-2\.0\s*$)|Copyright (\(c\)|©|\d{4})|GNU (\w+ )?General Public", re.I
    )
    for path, file in _matching(files, r"\.(py|js|css|html|sh|go|ya?ml|toml|mako)$|Dockerfile$|Makefile$"):
        # Libraries of others: tests/supply/test_vendor.py holds their hashes and their licences.
        if path.startswith(VENDORED):
            continue
        for number, line in enumerate(file.text.splitlines()[:30], 1):
            if header.search(line):
                yield f"{path}:{number}: another owner or licence than the repository's"


# A screenshot of a page, which its tests make anew.
PICTURE_MAX_BYTES = 150 << 10


def binaries(files: Files) -> Iterator[str]:
    """Source alone: nothing that was compiled or packed, and nothing too large to read."""
    for path, file in sorted(files.items()):
        if path.startswith("docs/") and path.endswith(".png"):
            if len(file.data) > PICTURE_MAX_BYTES or not file.data.startswith(b"\x89PNG\r\n\x1a\n"):
                yield f"{path}: no PNG of at most {PICTURE_MAX_BYTES} bytes"
            continue
        if b"\0" in file.data[:8192] or re.search(
            r"\.(py[co]|so|dll|exe|jar|class|whl|zip|t?gz|tar|o|a|min\.js)$", path
        ):
            yield f"{path}: a binary, or something that was built"
        elif len(file.data) > FILE_MAX_BYTES:
            yield f"{path}: {len(file.data)} bytes, more than {FILE_MAX_BYTES}"


_SECRETS = {
    "a private key": r"-----BEGIN ([A-Z]+ )*PRIVATE KEY-----",
    "a key of Amazon's": r"\b(AKIA|ASIA)[0-9A-Z]{16}\b",
    "a token of GitHub's": r"\b(gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{40})",
    "a token of a chat or package index": r"\bxox[abpr]-[0-9A-Za-z-]{10}|\bpypi-AgEI\w{20}|\bnpm_[A-Za-z0-9]{36}\b",
    "a JWT": r"\beyJ[\w-]{15,}\.eyJ[\w-]{15,}\.[\w-]{20,}",
    "a kubeconfig's key": r"client-key-data:\s*[A-Za-z0-9+/]{40}",
    "a password in a URL": r"\b[a-z][a-z0-9+]*://[^\s/:@{}<$\"']+:(?!(password|PASSWORD|secret|pw|\.\.\.|…|\*+)@)[^\s/:@{}<$\"'%]{8,}@",
}


def secrets(files: Files) -> Iterator[str]:
    """Nothing that looks like a credential."""
    patterns = {what: re.compile(pattern) for what, pattern in _SECRETS.items()}
    for path, file in sorted(files.items()):
        for number, line in enumerate(file.text.splitlines(), 1):
            yield from (f"{path}:{number}: {what}" for what, pattern in patterns.items() if pattern.search(line))


def modes(files: Files) -> Iterator[str]:
    """Executable is what begins with #! and nothing else; links stay inside; no repository is nested."""
    for path, file in sorted(files.items()):
        script = file.data.startswith(b"#!")
        if file.mode == "160000":
            yield f"{path}: another repository"
        elif file.mode == "120000":
            target = file.text
            parts = PurePosixPath(path).parent.parts
            if target.startswith("/") or target.split("/").count("..") > len(parts):
                yield f"{path}: a link that leads out of the repository"
        elif file.mode not in ("100644", "100755"):
            yield f"{path}: its mode is {file.mode}"
        elif script != (file.mode == "100755"):
            yield f"{path}: " + ("begins with #! and is not executable" if script else "is executable and no script")


RULES: tuple[Rule, ...] = (
    requirements, installs, bases, actions, modules, downloads, required, licences, binaries, secrets, modes,
)  # fmt: skip


def faults(files: Files) -> list[str]:
    """All faults of all rules, but for the files that are allowed to have them."""
    found = list[str]()
    for rule in RULES:
        seen = {path: file for path, file in files.items() if rule.__name__ not in ALLOWED.get(path, ())}
        found += rule(seen)
    return found


def tracked(root: Path) -> dict[str, File]:
    """The files that git knows, with their present content; one that was deleted and is not committed is left out."""
    command = ["git", "-C", str(root), "ls-files", "-s", "-z"]
    listed = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout.decode()
    files = dict[str, File]()
    for line in filter(None, listed.split("\0")):
        about, name = line.split("\t", 1)
        path, mode = root / name, about.split()[0]
        if mode == "120000":
            files[name] = File(str(path.readlink()).encode(), mode)
        elif mode == "160000":
            files[name] = File(b"", mode)
        elif path.exists():
            files[name] = File(path.read_bytes(), mode)
    return files
