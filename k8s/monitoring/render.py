"""Write what is generated here: prometheusrule.yaml from rules.yaml, and the dashboards' JSON. `make dashboards` runs it."""

from __future__ import annotations

from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
RULES = HERE / "rules.yaml"
PROMETHEUS_RULE = HERE / "prometheusrule.yaml"
GRAFANA = HERE / "grafana"
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


def dashboards() -> dict[str, str]:
    """Each dashboard's file name and JSON. Needs Grafana's foundation SDK, and with it Python 3.11."""
    from grafana_foundation_sdk.cog.encoder import JSONEncoder

    from k8s.monitoring.dashboards.load import load_test
    from k8s.monitoring.dashboards.model import model
    from k8s.monitoring.dashboards.resources import resources
    from k8s.monitoring.dashboards.service import service

    made = [each().build() for each in (service, model, resources, load_test)]
    encoder = JSONEncoder(sort_keys=True, indent=1)
    return {f"{str(each.uid).removeprefix('unmask-')}.json": encoder.encode(each) + "\n" for each in made}


def main() -> None:
    """Write all files."""
    PROMETHEUS_RULE.write_text(prometheus_rule(RULES.read_text(encoding="utf-8")), encoding="utf-8")
    GRAFANA.mkdir(exist_ok=True)
    for name, text in dashboards().items():
        (GRAFANA / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
