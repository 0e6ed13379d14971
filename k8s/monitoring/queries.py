"""The dashboards as Grafana reads them: each panel with its queries, whose variables are filled in here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GRAFANA = Path(__file__).resolve().parent / "grafana"


@dataclass(frozen=True)
class Target:
    """One query. name: what its legend calls a series, with labels in braces. instant: it asks for now alone."""

    expression: str
    name: str
    instant: bool


@dataclass(frozen=True)
class Panel:
    """A panel. row: the title of its row. place: x, y, width and height on Grafana's grid of 24 columns. limits: of its
    thresholds. stacked: whether its areas are piled up. colors: of its series, by a regular expression of their legend."""

    board: str
    row: str
    title: str
    type: str
    unit: str
    place: tuple[int, int, int, int]
    targets: tuple[Target, ...]
    limits: tuple[float, ...]
    stacked: bool
    most: float | None
    colors: dict[str, str]


def boards() -> list[str]:
    """The names of the dashboards' files, without `.json`."""
    return sorted(path.stem for path in GRAFANA.glob("*.json"))


def panels(board: str, window: str) -> Iterator[Panel]:
    """Every panel of a dashboard, for all deployments. window: what Grafana would put in place of `$__rate_interval`."""
    row = ""
    for panel in json.loads((GRAFANA / f"{board}.json").read_text(encoding="utf-8"))["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
            continue
        place, defaults = panel["gridPos"], panel.get("fieldConfig", {}).get("defaults", {})
        steps = defaults.get("thresholds", {}).get("steps", [])
        custom = defaults.get("custom", {})
        yield Panel(
            board,
            row,
            panel["title"],
            panel["type"],
            defaults.get("unit", "short"),
            (place["x"], place["y"], place["w"], place["h"]),
            tuple(_target(target, window) for target in panel["targets"]),
            tuple(step["value"] for step in steps if step["value"] is not None),
            custom.get("stacking", {}).get("mode") == "normal",
            defaults.get("max"),
            {
                each["matcher"]["options"].strip("/"): each["properties"][0]["value"]["fixedColor"]
                for each in panel.get("fieldConfig", {}).get("overrides", [])
            },
        )


def _target(target: dict[str, Any], window: str) -> Target:
    expression = target["expr"].replace("$__rate_interval", window).replace("$namespace", ".*").replace("$job", ".*")
    return Target(expression, target["legendFormat"], bool(target.get("instant")))
