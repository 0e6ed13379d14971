"""What the dashboards are made of: panels of one look, each with its queries, and the variables that all of them filter by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from grafana_foundation_sdk.builders import barchart, common, dashboard, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    GraphTresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    Threshold,
    ThresholdsMode,
    VariableHide,
    VariableRefresh,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

WHERE = 'namespace=~"$namespace",job=~"$job"'
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
WIDTH = 24
STATUS_COLORS = {
    "/^(200|OK)$/": "green",
    "/^(4..|CANCELLED|NOT_FOUND|INVALID_ARGUMENT|PERMISSION_DENIED)$/": "yellow",
    "/^(503|RESOURCE_EXHAUSTED)$/": "orange",
    "/^(50[0-24-9]|INTERNAL|UNAVAILABLE|UNKNOWN|DEADLINE_EXCEEDED|DATA_LOSS|ABORTED)$/": "red",
}
"""Of what clients got: a verdict, an error of theirs, a refusal, an error of the server's."""


class Query(NamedTuple):
    """A query, in which `{*` stands for the selected deployment's labels, and the legend of what it answers."""

    expression: str
    legend: str = "__auto"


def lines(
    title: str,
    text: str,
    *queries: Query,
    unit: str = "short",
    width: int = 8,
    stacked: bool = False,
    limits: tuple[float, ...] = (),
    most: float | None = None,
    colors: Mapping[str, str] | None = None,
) -> timeseries.Panel:
    """A panel of lines over time. stacked: as areas, one on the other. limits: dashed lines. most: the axis' upper end.
    colors: by a regular expression of the legend."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(text)
        .datasource(SOURCE)
        .unit(unit)
        .span(width)
        .height(8)
        .min(0)
        .line_width(1)
        .fill_opacity(60 if stacked else 8)
        .show_points(VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM).show_legend(True)
        )
    )
    if most is not None:
        panel = panel.max(most)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    if limits:
        panel = panel.thresholds(_thresholds(limits)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(GraphTresholdsStyleMode.DASHED)
        )
    for pattern, color in (colors or {}).items():
        fixed = DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": color})
        panel = panel.override_by_regexp(pattern, [fixed])
    for target in _targets(queries):
        panel = panel.with_target(target)
    return panel


def number(
    title: str, text: str, query: str, *, unit: str = "short", width: int = 4, limits: tuple[float, ...] = ()
) -> stat.Panel:
    """The latest value, large; orange and red above the limits."""
    return (
        stat.Panel()
        .title(title)
        .description(text)
        .datasource(SOURCE)
        .unit(unit)
        .span(width)
        .height(4)
        .graph_mode(BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(_thresholds(limits))
        .with_target(_targets([Query(query, title)])[0])
    )


def bins(title: str, text: str, label: str, *queries: Query, width: int = 12) -> barchart.Panel:
    """Bars side by side for each value of a label, as it is now."""
    panel = barchart.Panel().title(title).description(text).datasource(SOURCE).unit("percentunit").span(width).height(8).min(0)
    for target in _targets(queries):
        panel = panel.with_target(target.instant().format(PromQueryFormat.TABLE))
    names = {f"Value #{chr(65 + n)}": query.legend for n, query in enumerate(queries)}
    hidden = dict.fromkeys(("Time", *(f"Time {n + 1}" for n in range(len(queries)))), True)
    for name, options in (
        ("joinByField", {"byField": label, "mode": "outer"}),
        ("organize", {"excludeByName": hidden, "renameByName": names}),
        ("sortBy", {"sort": [{"field": label}]}),
    ):
        panel = panel.with_transformation(DataTransformerConfig(id_val=name, options=options))
    return panel.x_field(label)


def density(title: str, text: str, query: str, *, unit: str, width: int = 12) -> heatmap.Panel:
    """A histogram's buckets over time, the fuller the darker."""
    color = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Blues").steps(64)
    return (
        heatmap.Panel()
        .title(title)
        .description(text)
        .datasource(SOURCE)
        .span(width)
        .height(8)
        .color(color)
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .with_target(_targets([Query(query, "{{le}}")])[0].format(PromQueryFormat.HEATMAP))
    )


def rows_of(title: str, text: str, query: str, *, hidden: tuple[str, ...] = (), width: int = WIDTH) -> table.Panel:
    """A table of what a query answers now, without the labels that are hidden."""
    options = {"excludeByName": dict.fromkeys(("Time", "Value", "__name__", "job", "namespace", *hidden), True)}
    return (
        table.Panel()
        .title(title)
        .description(text)
        .datasource(SOURCE)
        .span(width)
        .height(6)
        .with_target(_targets([Query(query, "")])[0].instant().format(PromQueryFormat.TABLE))
        .with_transformation(DataTransformerConfig(id_val="organize", options=options))
    )


def board(uid: str, title: str, text: str, rows: dict[str, list[Any]]) -> dashboard.Dashboard:
    """A dashboard: a row for each title, with its panels."""
    made = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(text)
        .tags(["unmask"])
        .readonly()
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").type("prometheus").label("Prometheus"))
    )
    for name in ("namespace", "job"):
        made = made.with_variable(
            dashboard.QueryVariable(name)
            .label(name.capitalize())
            .datasource(SOURCE)
            .query(f"label_values(unmask_build_info, {name})")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .hide(VariableHide.DONT_HIDE)
            .include_all(True)
            .all_value(".*")
            .multi(True)
        )
    for row, panels in rows.items():
        made = made.with_row(dashboard.Row(row))
        for panel in panels:
            made = made.with_panel(panel)
    return made


def _targets(queries: Any) -> list[prometheus.Dataquery]:
    return [
        prometheus.Dataquery()
        .expr(query.expression.replace("{*", "{" + WHERE))
        .legend_format(query.legend)
        .ref_id(chr(65 + n))
        .datasource(SOURCE)
        for n, query in enumerate(queries)
    ]


def _thresholds(limits: tuple[float, ...]) -> dashboard.ThresholdsConfig:
    colors = ("orange", "red")[-len(limits) :] if limits else ()
    steps = [Threshold(value=None, color="green")]
    steps += [Threshold(value=limit, color=color) for limit, color in zip(limits, colors, strict=True)]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)
