"""What the servers run on: workers, the JVM, the supervisor and GPUs."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from k8s.monitoring.dashboards.panels import Query, board, lines, rows_of

GPU_ROW = "GPU"


def resources() -> Dashboard:
    """The dashboard `Unmask: resources`."""
    return board(
        "unmask-resources",
        "Unmask / Resources",
        "Workers, JVM, supervisor and GPUs.",
        {"Workers": _workers(), "JVM and supervisor": _processes(), GPU_ROW: _gpu()},
    )


def _workers() -> list[object]:
    return [
        lines(
            "Workers",
            "Workers that have loaded the model, and how many there should be.",
            Query("sum(unmask_workers_ready{*})", "ready"),
            Query("sum(unmask_workers_wanted{*})", "wanted"),
        ),
        lines(
            "Restarts",
            "Workers replaced in 15 minutes, by reason.",
            Query("sum by (reason) (increase(unmask_worker_restarts_total{*}[15m]))", "{{reason}}"),
            stacked=True,
        ),
        lines(
            "Servers",
            "Servers that take requests, and those that are finishing before they stop.",
            Query("sum(unmask_ready{*})", "ready"),
            Query("sum(unmask_draining{*})", "draining"),
        ),
        lines(
            "Workers' CPU",
            "CPUs that each worker uses.",
            Query("rate(unmask_worker_cpu_seconds_total{*}[$__rate_interval])", "{{instance}} {{pid}}"),
        ),
        lines(
            "Workers' memory",
            "Resident memory of each worker.",
            Query("unmask_worker_resident_memory_bytes{*}", "{{instance}} {{pid}}"),
            unit="bytes",
        ),
        lines(
            "Runs of the model",
            "Per second, and the photos in them.",
            Query("sum(rate(unmask_inferences_total{*}[$__rate_interval]))", "runs"),
            Query("sum(rate(unmask_batch_photos_sum{*}[$__rate_interval]))", "photos"),
        ),
    ]


def _processes() -> list[object]:
    ours = "and on (namespace, job, instance) unmask_ready"  # other targets have a process_cpu_seconds_total, too
    return [
        lines(
            "JVM memory",
            "Of TorchServe's frontend, by area.",
            Query("sum by (area) (unmask_jvm_memory_bytes{*})", "{{area}}"),
            unit="bytes",
        ),
        lines(
            "Garbage collection",
            "Share of the time that the JVM spends on it.",
            Query("rate(unmask_jvm_gc_seconds_total{*}[$__rate_interval])", "{{instance}}"),
            unit="percentunit",
        ),
        lines("JVM threads", "Threads of TorchServe's frontend.", Query("unmask_jvm_threads{*}", "{{instance}}")),
        lines(
            "Supervisor's CPU",
            "CPUs that the supervisor uses.",
            Query(
                "rate(process_cpu_seconds_total{*}[$__rate_interval]) and on (namespace, job, instance) unmask_ready",
                "{{instance}}",
            ),
        ),
        lines(
            "Supervisor's memory",
            "Resident memory of the supervisor.",
            Query(f"process_resident_memory_bytes{{*}} {ours}", "{{instance}}"),
            unit="bytes",
        ),
        lines(
            "Records lost",
            "Lines on requests that never came, in 15 minutes: the counts of requests are too low by as many.",
            Query("sum by (source) (increase(unmask_records_lost_total{*}[15m]))", "{{source}}"),
            stacked=True,
        ),
        rows_of(
            "Builds",
            "What each server runs.",
            "unmask_build_info{*}",
            hidden=("service", "endpoint", "container"),
        ),
    ]


def _gpu() -> list[object]:
    return [
        lines(
            "GPU utilisation",
            "Share of the time in which a kernel runs.",
            Query("unmask_gpu_utilization_ratio{*}", "{{instance}} {{uuid}}"),
            unit="percentunit",
            most=1,
        ),
        lines(
            "GPU memory",
            "Used, and how much there is.",
            Query("unmask_gpu_memory_used_bytes{*}", "used, {{uuid}}"),
            Query("unmask_gpu_memory_total_bytes{*}", "total, {{uuid}}"),
            unit="bytes",
        ),
        lines("GPU power", "Power that is drawn.", Query("unmask_gpu_power_watts{*}", "{{instance}} {{uuid}}"), unit="watt"),
    ]
