"""A load test: what Locust's users measure, beside what the servers say of the same time."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from k8s.monitoring.dashboards.panels import Query, board, lines, number

CLIENTS = "histogram_quantile({q}, sum by (le, protocol) (rate(locust_response_seconds_bucket[$__rate_interval]))) >= 0"
SERVERS = "histogram_quantile({q}, sum by (le) (rate(unmask_request_duration_seconds_bucket{{*}}[$__rate_interval]))) >= 0"


def load_test() -> Dashboard:
    """The dashboard `Unmask: load test`."""
    return board(
        "unmask-load-test",
        "Unmask / Load test",
        "What Locust measures (`--prometheus-port`), beside what the servers say.",
        {"Now": _now(), "Clients": _clients(), "Clients and servers": _both()},
    )


def _now() -> list[object]:
    failed = "sum(rate(locust_failures_total[$__rate_interval])) / (sum(rate(locust_requests_total[$__rate_interval])) > 0)"
    return [
        number("Users", "Users that Locust runs.", "sum(locust_users)", width=6),
        number("Running", "Whether a test runs.", "max(locust_running)", width=6),
        number("Requests", "Per second, over ten seconds.", "sum(locust_requests_per_second)", unit="reqps", width=6),
        number("Failed", "Share of the requests.", failed, unit="percentunit", width=6, limits=(0.001, 0.01)),
    ]


def _clients() -> list[object]:
    return [
        lines(
            "Requests",
            "Requests per second, by protocol and what was asked for.",
            Query("sum by (protocol, name) (rate(locust_requests_total[$__rate_interval]))", "{{name}}"),
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Failures",
            "Failed requests per second, by protocol.",
            Query("sum by (protocol) (rate(locust_failures_total[$__rate_interval]))", "{{protocol}}"),
            unit="reqps",
            stacked=True,
        ),
        lines("Users", "Users that Locust runs.", Query("sum(locust_users)", "users")),
    ]


def _both() -> list[object]:
    return [
        lines(
            "Median",
            "As clients measured it, and from arrival to answer in the server: the difference is the network and the client.",
            Query(CLIENTS.format(q=0.5), "client, {{protocol}}"),
            Query(SERVERS.format(q=0.5), "server"),
            unit="s",
        ),
        lines(
            "99th percentile",
            "As clients measured it, and from arrival to answer in the server.",
            Query(CLIENTS.format(q=0.99), "client, {{protocol}}"),
            Query(SERVERS.format(q=0.99), "server"),
            unit="s",
        ),
        lines(
            "Requests on both sides",
            "Per second, as clients sent them and as servers counted them.",
            Query("sum(rate(locust_requests_total[$__rate_interval]))", "clients"),
            Query("sum(rate(unmask_requests_total{*}[$__rate_interval]))", "servers"),
            unit="reqps",
        ),
    ]
