"""Write what is generated here: prometheusrule.yaml from rules.yaml, and the dashboards' JSON. `make dashboards` runs it."""

from __future__ import annotations

from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
RULES = HERE / "rules.yaml"
PROMETHEUS_RULE = HERE / "prometheusrule.yaml"
HEADER = "# Written from rules.yaml by `make dashboards`: change it there.\n"


def prometheus_rule(rules: str) -> str:
    """The Prometheus operator's object with the groups of a rule file."""
    manifest = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "unmask"},
        "spec": yaml.safe_load(rules),
    }
    return HEADER + yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True, width=120)


def main() -> None:
    """Write all files."""
    PROMETHEUS_RULE.write_text(prometheus_rule(RULES.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
