"""The service as its clients feel it: rate, errors, duration, where the time goes, and how full the servers are."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from k8s.monitoring.dashboards.panels import STATUS_COLORS, Query, board, density, lines, number

BURN = "unmask:errors:ratio_rate{window}{{*}} / on () group_left () (1 - unmask:objective_availability:ratio)"
QUANTILE = (
    "histogram_quantile({q}, sum by ({by}le) (rate(unmask_request_duration_seconds_bucket{{*}}[$__rate_interval]))) >= 0"
)


def service() -> Dashboard:
    """The dashboard `Unmask: service`."""
    return board(
        "unmask-service",
        "Unmask / Service",
        "What clients get: rate, errors, duration, stages and saturation.",
        {"Now": _now(), "Rate and errors": _rate_and_errors(), "Duration": _duration(), "Saturation": _saturation()},
    )


def _quantile(q: float, by: str = "") -> str:
    return QUANTILE.format(q=q, by=by)


def _now() -> list[object]:
    return [
        number("Servers ready", "Servers that take requests.", "sum(unmask_ready{*})"),
        number("Requests", "Answered and refused, per second.", "sum(unmask:requests:rate5m{*})", unit="reqps"),
        number(
            "Failed or refused",
            "Share of the requests of 5 minutes.",
            "sum(unmask:errors:rate5m{*}) / (sum(unmask:requests:rate5m{*}) > 0)",
            unit="percentunit",
            limits=(0.001, 0.01),
        ),
        number("99th percentile", "Of the time to an answer.", _quantile(0.99), unit="s", limits=(0.25, 1.0)),
        number(
            "Queue",
            "Share of the fullest queue that is taken.",
            "max(unmask:queue:saturation_ratio{*})",
            unit="percentunit",
            limits=(0.5, 0.8),
        ),
        number(
            "Error budget used",
            "Of what the availability objective allows to fail in 3 days.",
            "max(unmask:errors:ratio_rate3d{*}) / (1 - max(unmask:objective_availability:ratio))",
            unit="percentunit",
            limits=(0.5, 1.0),
        ),
    ]


def _rate_and_errors() -> list[object]:
    return [
        lines(
            "Requests by kind",
            "Answered and refused requests, by what was asked for and how.",
            Query("sum by (protocol, kind) (rate(unmask_requests_total{*}[$__rate_interval])) > 0", "{{protocol}} {{kind}}"),
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Requests by status",
            "HTTP status or gRPC code that the client got.",
            Query("sum by (code) (rate(unmask_requests_total{*}[$__rate_interval])) > 0", "{{code}}"),
            unit="reqps",
            stacked=True,
            colors=STATUS_COLORS,
        ),
        lines(
            "Failed and refused",
            "Share of the requests of 5 minutes. Refused ones are among the failed.",
            Query("unmask:errors:ratio_rate5m{*}", "failed or refused"),
            Query("unmask:refused:ratio_rate5m{*}", "refused"),
            unit="percentunit",
        ),
        lines(
            "Burn rate of the availability objective",
            "How many times faster than allowed requests fail. Alerts fire at 14.4, 6, 3 and 1, the longer the window.",
            *(Query(BURN.format(window=window), window) for window in ("5m", "1h", "6h", "1d", "3d")),
            limits=(1, 14.4),
            width=12,
        ),
        lines(
            "Photos",
            "Photos scored and failed, per second; a request may hold several.",
            Query("sum by (outcome) (rate(unmask_photos_total{*}[$__rate_interval]))", "{{outcome}}"),
            stacked=True,
            width=12,
        ),
    ]


def _duration() -> list[object]:
    answered = "sum(rate(unmask_request_duration_seconds_count{*}[$__rate_interval])) > 0"
    stages = "sum by (stage) (rate(unmask_stage_seconds_sum{*}[$__rate_interval]))"
    rest = (
        "clamp_min(sum(rate(unmask_request_duration_seconds_sum{*}[$__rate_interval]))"
        " - sum(rate(unmask_stage_seconds_sum{*}[$__rate_interval])), 0)"
    )
    return [
        lines(
            "Percentiles",
            "Time from a request's arrival to its answer, refused ones left out.",
            *(Query(_quantile(q), f"p{round(100 * q)}") for q in (0.5, 0.9, 0.99)),
            unit="s",
        ),
        lines(
            "99th percentile by protocol",
            "Time from a request's arrival to its answer, refused ones left out.",
            Query(_quantile(0.99, "protocol, "), "{{protocol}}"),
            unit="s",
        ),
        lines(
            "Slower than the objective",
            "Share of the answers of 5 minutes that took longer than the latency objective's time.",
            Query("unmask:slow:ratio_rate5m{*}", "slow"),
            Query("1 - unmask:objective_latency:ratio", "allowed"),
            unit="percentunit",
        ),
        lines(
            "Where the time goes",
            "Mean time per answered request, by stage. What is outside the workers and their queue is `rest`;"
            " together they are the mean duration.",
            Query(f"{stages} / on () group_left () ({answered})", "{{stage}}"),
            Query(f"{rest} / ({answered})", "rest"),
            unit="s",
            stacked=True,
            width=12,
        ),
        density(
            "Durations",
            "Answers per second by duration.",
            "sum by (le) (rate(unmask_request_duration_seconds_bucket{*}[$__rate_interval]))",
            unit="s",
        ),
    ]


def _saturation() -> list[object]:
    return [
        lines(
            "Queue",
            "Share of the queue's places that are taken, all servers together.",
            Query("unmask:queue:saturation_ratio{*}", "{{version}}"),
            unit="percentunit",
            limits=(0.8,),
            most=1,
        ),
        lines(
            "Queue at arrival",
            "How many requests a new one finds waiting, refused ones too.",
            *(
                Query(
                    f"histogram_quantile({q}, sum by (le) (rate(unmask_queue_depth_bucket{{*}}[$__rate_interval]))) >= 0",
                    f"p{round(100 * q)}",
                )
                for q in (0.5, 0.95)
            ),
        ),
        lines(
            "In the workers",
            "Requests that workers have in hand.",
            Query("sum(unmask_requests_in_progress{*})", "in progress"),
        ),
        lines(
            "Refused",
            "Requests that no worker took, per second.",
            Query("sum by (protocol) (rate(unmask_refused_duration_seconds_count{*}[$__rate_interval]))", "{{protocol}}"),
            unit="reqps",
        ),
        lines(
            "Time to a refusal",
            "99th percentile. A refusal that takes long costs the client its time and the server a connection.",
            Query(
                "histogram_quantile(0.99, sum by (le, protocol)"
                " (rate(unmask_refused_duration_seconds_bucket{*}[$__rate_interval]))) >= 0",
                "{{protocol}}",
            ),
            unit="s",
        ),
        lines(
            "Photos in a run of the model",
            "Mean. More photos in a run are more photos per second, at a longer time for each.",
            Query(
                "sum(rate(unmask_batch_photos_sum{*}[$__rate_interval]))"
                " / (sum(rate(unmask_batch_photos_count{*}[$__rate_interval])) > 0)",
                "photos",
            ),
        ),
    ]
