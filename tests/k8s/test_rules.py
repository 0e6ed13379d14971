"""The rules: Prometheus accepts them, each alert is shown firing and not firing, and the operator's object holds the same."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from handlers.metrics import Metric
from k8s.monitoring.queries import boards, panels
from k8s.monitoring.render import HERE, PROMETHEUS_RULE, RULES, prometheus_rule
from serve.metrics.declared import SupervisorMetric
from serve.records.metrics import RequestMetric

NAME = re.compile(r"\b(?:unmask_\w+|(?:instance|unmask):[\w:]+)")
TESTS = HERE / "rules_test.yaml"
SERIES = re.compile(r"(\w+)\{(.*)\}")
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")


@pytest.fixture(scope="module")
def alerts() -> list[dict[str, Any]]:
    """Every alerting rule."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


@pytest.fixture(scope="module")
def cases() -> list[dict[str, Any]]:
    """Every group of promtool's tests."""
    return yaml.safe_load(TESTS.read_text(encoding="utf-8"))["tests"]


def promtool(*arguments: object) -> None:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_promtool_accepts_the_rules():
    promtool("check", "rules", "--lint-fatal", RULES)


@needs_promtool
def test_alerts_fire_when_they_should_and_only_then():
    promtool("test", "rules", TESTS)


def test_the_operators_object_is_what_the_rules_say():
    assert PROMETHEUS_RULE.read_text(encoding="utf-8") == prometheus_rule(RULES.read_text(encoding="utf-8")), "make dashboards"


def test_each_alert_says_what_it_is_and_where_to_read_on(alerts):
    for alert in alerts:
        assert alert["labels"]["severity"] in {"critical", "warning", "info"}
        assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
        assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{alert['alert'].lower()}"


def test_rules_and_dashboards_ask_for_what_is_measured_or_recorded():
    known = set()
    for declared in (each.value for metrics in (Metric, RequestMetric, SupervisorMetric) for each in metrics):
        endings = {"Counter": ("_total",), "Histogram": ("_bucket", "_sum", "_count"), "Gauge": ("",)}[declared.kind]
        known |= {declared.name + ending for ending in endings}
    rules = [rule for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]
    known |= {rule["record"] for rule in rules if "record" in rule}
    queries = [rule["expr"] for rule in rules]
    queries += [target.expression for board in boards() for panel in panels(board, "1m") for target in panel.targets]
    for query in queries:
        assert set(NAME.findall(query)) <= known, query


def test_each_alert_is_shown_firing_and_not_firing(alerts, cases):
    """Not firing means: a deployment with metrics of the same names, for which promtool expects no such alert."""
    for alert in alerts:
        own = {"alertname": alert["alert"]} | alert["labels"]
        fires, silent = False, False
        for case in cases:
            metrics = metrics_by_namespace(case["input_series"])
            for check in case["alert_rule_test"]:
                if check["alertname"] != alert["alert"]:
                    continue
                firing = {
                    each["exp_labels"].get("namespace")
                    for each in check["exp_alerts"]
                    if alert["labels"].items() <= each["exp_labels"].items()
                }
                fires |= bool(firing)
                if firing:
                    shown = [names for namespace, names in metrics.items() if namespace in firing]
                    others = [names for namespace, names in metrics.items() if namespace not in firing]
                    silent |= any(names <= other for names in shown for other in others)
                silent |= alert["alert"] == "UnmaskMetricsAbsent" and not firing and bool(metrics)
        assert fires, f"no test in which {own} fires"
        assert silent, f"no test in which {own} does not fire"


def metrics_by_namespace(series: list[dict[str, str]]) -> dict[str, set[str]]:
    """The names of the metrics that each namespace of a test has."""
    found: dict[str, set[str]] = {}
    for each in series:
        match = SERIES.fullmatch(each["series"])
        assert match, each
        labels = dict(re.findall(r'(\w+)="([^"]*)"', match[2]))
        found.setdefault(labels["namespace"], set()).add(match[1])
    return found
