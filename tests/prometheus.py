"""A real Prometheus that scrapes one server several times a second, with the project's rules in quick motion."""

from __future__ import annotations

import contextlib
import json
import math
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import yaml

from tests.conftest import ROOT
from tests.waiting import awaited

SCRAPE_SECONDS = 0.25
SHORTEST_WINDOW = 8 * SCRAPE_SECONDS  # `rate` needs two samples, and a busy machine skips some
PATIENCE = 180.0  # seconds; only a hang is that slow
RULES = ROOT / "k8s" / "monitoring" / "rules.yaml"
_DURATION = r"(?:\d+(?:ms|[smhdwy]))+"
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604_800, "y": 31_536_000}
# The labels that a Prometheus beside the ServiceMonitor gives to each series of a pod.
LABELS = {"namespace": "unmask", "pod": "detector-0", "service": "detector-pods", "job": "detector-pods", "instance": "pod"}


def seconds(duration: str) -> float:
    """The seconds of a Prometheus duration such as `1h30m`."""
    return sum(int(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+)(ms|[smhdwy])", duration))


def _shorter(duration: str, factor: float, shortest: float = 0.0) -> str:
    return f"{math.ceil(1000 * max(shortest, seconds(duration) / factor))}ms"


def scaled(expression: str, factor: float) -> str:
    """A query whose windows and offsets are that many times shorter."""

    def window(match: re.Match[str]) -> str:
        step = f":{_shorter(match['step'], factor, SCRAPE_SECONDS)}" if match["step"] else match["colon"] or ""
        return f"[{_shorter(match['range'], factor, SHORTEST_WINDOW)}{step}]"

    ranges = rf"\[\s*(?P<range>{_DURATION})\s*(?P<colon>:)?\s*(?P<step>{_DURATION})?\s*\]"
    query = re.sub(ranges, window, expression)
    return re.sub(rf"\boffset\s+({_DURATION})", lambda m: f"offset {_shorter(m[1], factor)}", query)


@dataclass(frozen=True)
class Alert:
    """One alerting rule. severity and runbook_url: as its labels and annotations say, empty where they do not."""

    name: str
    expression: str
    severity: str
    runbook_url: str


def rule_groups() -> list[dict[str, Any]]:
    """The project's groups of rules."""
    groups: list[dict[str, Any]] = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return groups


def alerts() -> list[Alert]:
    """The project's alerting rules."""
    return [
        Alert(
            rule["alert"],
            rule["expr"],
            rule.get("labels", {}).get("severity", ""),
            rule.get("annotations", {}).get("runbook_url", ""),
        )
        for group in rule_groups()
        for rule in group["rules"]
        if "alert" in rule
    ]


def quick_rules(factor: float) -> dict[str, Any]:
    """The project's rules with each window, offset and waiting time that many times shorter, evaluated at each scrape."""
    groups = []
    for group in rule_groups():
        rules = []
        for rule in group["rules"]:
            quick = rule | {"expr": scaled(str(rule["expr"]), factor)}
            for field in {"for", "keep_firing_for"} & set(rule):
                quick[field] = _shorter(str(rule[field]), factor)
            rules.append(quick)
        groups.append({"name": group["name"], "rules": rules})
    return {"groups": groups}


class Prometheus:
    """Debian's `prometheus` in a folder of its own, on a free port of 127.0.0.1.

    factor: how many times shorter the rules' windows are than in production.
    """

    def __init__(self, folder: Path, factor: float) -> None:
        folder.mkdir(parents=True)
        self._targets, self.factor = folder / "targets.json", factor
        self._aim([])
        (folder / "rules.yaml").write_text(yaml.safe_dump(quick_rules(factor)))
        every = f"{round(1000 * SCRAPE_SECONDS)}ms"
        config = {
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{"job_name": "server", "file_sd_configs": [{"files": ["targets.json"]}]}],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--web.listen-address=127.0.0.1:0",
                # A series that is gone is over after five minutes in production.
                f"--query.lookback-delta={_shorter('5m', factor, SHORTEST_WINDOW)}",
                "--log.level=warn",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self.url = ""
        self._http = httpx.Client(timeout=30, trust_env=False)  # one for all: making one takes longer than most queries
        try:
            self._await_ready()
        except BaseException:
            self.close()
            raise

    def _await_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            assert self.process.poll() is None, Path(self._log.name).read_text()
            assert time.monotonic() < deadline, "Prometheus does not get ready"
            listening = [
                c.laddr.port for c in psutil.Process(self.process.pid).net_connections("tcp") if c.status == psutil.CONN_LISTEN
            ]
            if listening:
                self.url = f"http://127.0.0.1:{listening[0]}"
                with contextlib.suppress(httpx.HTTPError):
                    if httpx.get(f"{self.url}/-/ready", timeout=5, trust_env=False).status_code == 200:
                        return
            time.sleep(0.05)

    def watch(self, supervisor_url: str, **others: str) -> None:
        """Scrape the supervisor at this address, other jobs at theirs, and nothing else."""
        jobs = [{"targets": [urlsplit(url).netloc], "labels": {"job": job}} for job, url in others.items()]
        self._aim([{"targets": [urlsplit(supervisor_url).netloc], "labels": LABELS}, *jobs])

    def _aim(self, targets: list[dict[str, Any]]) -> None:
        partial = self._targets.with_suffix(".partial")
        partial.write_text(json.dumps(targets))
        partial.replace(self._targets)

    def _get(self, path: str, **parameters: str) -> Any:
        answer = self._http.get(f"{self.url}/api/v1/{path}", params=parameters).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> float | None:
        """The sum of what a query answers now, None where it answers nothing."""
        values = self.values(expression)
        return sum(values) if values else None

    def values(self, expression: str) -> list[float]:
        """What a query answers now, the value of each series."""
        data = self._get("query", query=expression)
        samples = [data["result"]] if data["resultType"] == "scalar" else [each["value"] for each in data["result"]]
        return [float(value) for _, value in samples]

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        return {each["labels"]["alertname"] for each in self._get("alerts")["alerts"] if each["state"] == "firing"}

    def awaited(self, condition: str, what: str) -> float:
        """Wait until a query with a comparison answers something; the seconds that it took."""
        return await_(lambda: self.query(condition) is not None, what, hint=lambda: self.query(condition))

    def scrapes(self, count: int = 2) -> None:
        """Wait for so many more scrapes, good or not."""
        query = f'count_over_time(up{{instance="{LABELS["instance"]}"}}[1h])'
        start = self.query(query) or 0
        await_(lambda: (self.query(query) or 0) >= start + count, f"{count} scrapes")

    def close(self) -> None:
        """End it."""
        self._http.close()
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()


def await_(condition: Callable[[], object], what: str, patience: float = PATIENCE, hint: Callable[[], object] = str) -> float:
    """Wait until a condition holds; the seconds that it took. `what` says it in the error, `hint` what was seen instead."""
    start = time.monotonic()
    awaited(condition, patience=patience, hint=lambda: f"{what} {hint()}")
    return time.monotonic() - start
