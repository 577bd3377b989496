"""A real Prometheus on loopback, for tests: it scrapes given ports each second and evaluates given rules.

Must not know what it scrapes.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from tools.observability.prometheus import binary
from tools.testkit.servers.ports import reserved

# It is ready within 1 s here, and ten times as long on a busy machine.
START_SECONDS = 30.0
# How long a test waits for what the rules say over hours: windows and times that an expression must hold.
_WINDOWS = {"5m": "20s", "10m": "60s", "15m": "30s", "1h": "120s"}


def hurried(rules: str, thresholds: Mapping[str, str]) -> str:
    """The rule file with shorter windows and `for:`, for a test that provokes what they are about.

    `thresholds` replaces the end of an expression, such as "> 60", by the alert's name. What an alert asks for, its
    labels and its texts stay.
    """
    file = yaml.safe_load(rules)
    for rule in (one for group in file["groups"] for one in group["rules"]):
        windows = re.compile(r"\[(5m|10m|15m|1h)\]|offset (5m|10m|15m|1h)")
        rule["expr"] = windows.sub(lambda m: m[0].replace(m[1] or m[2], _WINDOWS[m[1] or m[2]]), rule["expr"])
        rule["for"] = "0s" if rule["for"] == "0m" else "2s"
        if rule["alert"] in thresholds:
            rule["expr"] = re.sub(r"[<>=]+ [0-9.]+$", thresholds[rule["alert"]], rule["expr"])
    return yaml.safe_dump(file, sort_keys=False)


@dataclass(frozen=True, slots=True)
class Sample:
    """One time series of an answer: its labels and its value."""

    labels: Mapping[str, str]
    value: float


class PrometheusServer:
    """As a context manager: runs within the block. `targets`: job to port of this machine."""

    def __init__(self, folder: Path, *, targets: Mapping[str, int], labels: Mapping[str, str], rules: str = "") -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._held: socket.socket | None = None
        self._url = ""
        jobs = [
            {
                "job_name": job,
                "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": dict(labels)}],
            }
            for job, port in targets.items()
        ]
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": jobs,
        }
        (folder / "rules.yaml").write_text(rules or "groups: []\n")
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))

    def __enter__(self) -> Self:
        self._held = reserved()
        port = self._held.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}"
        command = [
            str(binary("prometheus")),
            f"--config.file={self._folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--enable-feature=exemplar-storage",
            "--log.level=warn",
        ]
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder)
        deadline = time.monotonic() + START_SECONDS
        while True:
            with suppress(OSError), urllib.request.urlopen(f"{self._url}/-/ready", timeout=5) as answer:
                if answer.status == 200:
                    return self
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__(None, None, None)
                raise RuntimeError(f"prometheus: {(self._folder / 'prometheus.log').read_text()[-2000:]}")
            time.sleep(0.1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
        if self._held is not None:
            self._held.close()

    def query(self, expression: str, at: float | None = None) -> list[Sample]:
        """What it answers now, or for a moment in seconds of Unix; a number has no labels. Raises RuntimeError with its
        words for a bad expression."""
        moment = {} if at is None else {"time": str(at)}
        found = self._get("/api/v1/query", query=expression, **moment)
        if found["resultType"] == "scalar":
            return [Sample({}, float(found["result"][1]))]
        return [Sample(one["metric"], float(one["value"][1])) for one in found["result"]]

    def exemplars(self, expression: str, seconds: float = 600) -> list[Mapping[str, str]]:
        """The labels of the exemplars of the last `seconds`."""
        now = time.time()
        found = self._get("/api/v1/query_exemplars", query=expression, start=str(now - seconds), end=str(now))
        return [one["labels"] for series in found for one in series["exemplars"]]

    def fired(self) -> set[str]:
        """The alerts that fire, or have fired in the last 10 minutes."""
        return self._alerts('present_over_time(ALERTS{alertstate="firing"}[10m])')

    def firing(self) -> set[str]:
        """The alerts that fire now."""
        return self._alerts('ALERTS{alertstate="firing"}')

    def _alerts(self, expression: str) -> set[str]:
        return {sample.labels["alertname"] for sample in self.query(expression)}

    def healthy(self, at: float | None = None) -> set[str]:
        """The jobs whose last scrape succeeded, now or at a moment."""
        return {sample.labels["job"] for sample in self.query("up == 1", at)}

    def _get(self, path: str, **arguments: str) -> Any:
        url = f"{self._url}{path}?{urllib.parse.urlencode(arguments)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"prometheus refuses {arguments}: {error.read()[:2000]!r}") from None
