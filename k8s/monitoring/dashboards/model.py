"""The model: what it says, whether that has changed, whether it is right, and how versions compare."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from k8s.monitoring.dashboards.panels import Query, bins, board, density, lines, rows_of


def model() -> Dashboard:
    """The dashboard `Unmask: model`."""
    return board(
        "unmask-model",
        "Unmask / Model",
        "Verdicts, scores against the manifest's reference, labels that came back, and versions side by side.",
        {"Verdicts": _verdicts(), "Drift": _drift(), "Labels": _labels(), "Versions": _versions()},
    )


def _verdicts() -> list[object]:
    photos = "sum(rate(unmask_photos_total{*}[$__rate_interval])) > 0"
    return [
        lines(
            "Verdicts",
            "Share of the photos, by what came of them.",
            Query(
                f"sum by (outcome) (rate(unmask_photos_total{{*}}[$__rate_interval])) / on () group_left () ({photos})",
                "{{outcome}}",
            ),
            unit="percentunit",
            stacked=True,
            most=1,
            width=12,
        ),
        lines(
            "Photos that failed",
            "Photos per second without a verdict, by error code.",
            Query("sum by (code) (rate(unmask_photo_errors_total{*}[$__rate_interval])) > 0", "{{code}}"),
            stacked=True,
            width=12,
        ),
    ]


def _drift() -> list[object]:
    return [
        bins(
            "Scores and their reference",
            "Share of the scores of 6 hours in each bin, named by its upper edge, beside that of the held-out photos."
            " From 500 scores on.",
            "le",
            Query("avg by (le) (unmask:score:ratio6h{*})", "now"),
            Query("avg by (le) (unmask:score_reference:ratio{*})", "reference"),
        ),
        density(
            "Scores",
            "Photos per second by calibrated probability.",
            "sum by (le) (rate(unmask_score_bucket{*}[$__rate_interval]))",
            unit="short",
        ),
        lines(
            "Population stability index",
            "Of the scores of 6 hours against the reference: 0.1 is a moderate shift, 0.25 a large one.",
            Query("unmask:score:psi{*}", "{{version}}"),
            limits=(0.1, 0.25),
            width=12,
        ),
        lines(
            "Uncertain",
            "Share of the answers of an hour that are Uncertain. Beside it, of the scores of 6 hours and of the held-out"
            " photos, the share in bins that touch the model's band or, without one, lie within 0.1 of the threshold.",
            Query(
                'sum(rate(unmask_photos_total{*,outcome="uncertain"}[1h]))'
                ' / (sum(rate(unmask_photos_total{*,outcome!="error"}[1h])) > 0)',
                "Uncertain",
            ),
            Query("unmask:score_uncertain:ratio6h{*}", "scores, {{version}}"),
            Query(
                "sum by (version) (avg by (version, upper, lower) (unmask_score_reference{*})"
                " * avg by (version, upper, lower) (unmask_score_uncertain{*}))",
                "reference, {{version}}",
            ),
            unit="percentunit",
            width=12,
        ),
    ]


def _labels() -> list[object]:
    def share(part: str) -> str:
        labels = "sum by (bin) (unmask:feedback_labels:increase7d{*}) > 0"
        return f"sum by (bin) (unmask:feedback_{part}:increase7d{{*}}) / ({labels})"

    return [
        bins(
            "Reliability",
            "For the labels of 7 days, in each bin of scores: the mean score, and the share of fakes. They are equal when the"
            " scores are probabilities.",
            "bin",
            Query(share("score"), "mean score"),
            Query(share("fakes"), "fakes"),
        ),
        lines(
            "Calibration error and Brier score",
            "By the labels of 7 days, from 200 labels on. The expected calibration error alerts above 0.15.",
            Query("unmask:feedback:calibration_error{*}", "calibration error, {{version}}"),
            Query("unmask:feedback:brier_score{*}", "Brier score, {{version}}"),
            limits=(0.15,),
            width=8,
        ),
        lines(
            "Labels",
            "Labels of 7 days, by version.",
            Query("sum by (version) (unmask:feedback_labels:increase7d{*})", "{{version}}"),
            width=4,
        ),
    ]


def _versions() -> list[object]:
    return [
        lines(
            "Answered by each version",
            "Requests per second.",
            Query(
                "sum by (version) (rate(unmask_request_duration_seconds_count{*}[$__rate_interval]))",
                "{{version}}",
            ),
            unit="reqps",
            stacked=True,
            width=6,
        ),
        lines(
            "Errors of each version",
            "Share of its requests of 30 minutes, refusals left out. From 100 requests on.",
            Query("unmask:version_errors:ratio_rate30m{*}", "{{version}}"),
            unit="percentunit",
            width=6,
        ),
        lines(
            "Duration of each version",
            "95th percentile over 30 minutes. From 100 requests on.",
            Query("unmask:version_duration_seconds:p95_30m{*}", "{{version}}"),
            unit="s",
            width=6,
        ),
        lines(
            "Mean score of each version",
            "Mean calibrated probability of fake. Two versions that get the same photos should agree.",
            Query(
                "sum by (version) (rate(unmask_score_sum{*}[$__rate_interval]))"
                " / (sum by (version) (rate(unmask_score_count{*}[$__rate_interval])) > 0)",
                "{{version}}",
            ),
            most=1,
            width=6,
        ),
        rows_of(
            "Models",
            "What each server holds.",
            "unmask_model_info{*}",
            hidden=("service", "endpoint", "container"),
            width=16,
        ),
        lines(
            "Default version",
            "Servers that answer with a version where the client names none.",
            Query("sum by (version) (unmask_default_version{*})", "{{version}}"),
            stacked=True,
            width=8,
        ),
    ]
