"""The dashboards' JSON is what their code writes, and a Grafana can lay it out."""

from __future__ import annotations

import json
import subprocess

import pytest
import yaml

from k8s.monitoring.queries import boards, panels
from k8s.monitoring.render import GRAFANA, HERE, dashboards
from tests.k8s.test_manifests import kustomize_command


def test_the_json_is_what_the_code_writes():
    pytest.importorskip("grafana_foundation_sdk", reason="Grafana's foundation SDK needs Python 3.11", exc_type=ImportError)
    written = {path.name: path.read_text(encoding="utf-8") for path in GRAFANA.iterdir()}
    assert written == dashboards(), "make dashboards"


@pytest.mark.parametrize("board", boards())
def test_panels_have_titles_of_their_own_and_lie_beside_each_other(board):
    found = list(panels(board, "1m"))
    assert len({(panel.row, panel.title) for panel in found}) == len(found) > 5
    cells = [(x + i, y + j) for p in found for x, y, w, h in [p.place] for i in range(w) for j in range(h)]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    assert all(target.expression and "$" not in target.expression for panel in found for target in panel.targets)


def test_rules_and_dashboards_render_for_the_operator_and_grafanas_sidecar():
    command = kustomize_command()
    if command is None:
        pytest.skip("neither kustomize nor kubectl is installed")
    done = subprocess.run([*command, str(HERE)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    rendered = list(yaml.safe_load_all(done.stdout))
    (rule,) = [each for each in rendered if each["kind"] == "PrometheusRule"]
    maps = [each for each in rendered if each["kind"] == "ConfigMap"]
    assert rule["spec"] == yaml.safe_load((HERE / "rules.yaml").read_text(encoding="utf-8"))
    assert {each["metadata"]["labels"]["grafana_dashboard"] for each in maps} == {"1"}
    data = {name: json.loads(text) for each in maps for name, text in each["data"].items()}
    assert set(data) == {f"{board}.json" for board in boards()}
    assert len({each["uid"] for each in data.values()}) == len(data)
    assert {each["metadata"]["namespace"] for each in rendered} == {"unmask"}
