"""The supervisor's own metrics, declared once each."""

from __future__ import annotations

from enum import Enum

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from detector.metrics import Declaration

REASONS = ("killed", "exited", "hung", "memory")
LABELS = ("real", "fake")
AREAS = ("heap_used", "heap_committed", "heap_max", "metaspace_used", "resident")


def _gauge(name: str, text: str, *labels: str, values: tuple[str, ...] = ()) -> Declaration:
    return Declaration("Gauge", f"unmask_{name}", text, labels, values=values)


def _counter(name: str, text: str, *labels: str, values: tuple[str, ...] = ()) -> Declaration:
    return Declaration("Counter", f"unmask_{name}", text, labels, values=values)


class SupervisorMetric(Enum):
    """Each metric that the supervisor knows by itself, beside those of its process (`process_*`)."""

    READY = _gauge("ready", "Whether the server takes requests (1) or not (0).")
    DRAINING = _gauge("draining", "Whether the server is finishing before it stops.")
    WORKERS_READY = _gauge("workers_ready", "Workers that have loaded the model.")
    WORKERS_WANTED = _gauge("workers_wanted", "Workers there should be.")
    RESTARTS = _counter("worker_restarts", "Workers that ended and had to be replaced, by reason.", "reason", values=REASONS)
    QUEUE_PENDING = _gauge("queue_pending", "Requests that wait for a worker.", "version")
    QUEUE_LIMIT = _gauge("queue_limit", "The most requests that may wait; further ones are refused.", "version")
    MODEL_INFO = _gauge(
        "model_info", "1 for each version.", "version", "backbone", "archive", "sha256", "threshold", "uncertain"
    )
    DEFAULT_VERSION = _gauge("default_version", "1 for the version that answers where a request names none.", "version")
    SCORE_REFERENCE = _gauge(
        "score_reference",
        "Share of the manifest's reference photos whose score lies above `lower` and up to `upper`.",
        *("version", "upper", "lower"),
    )
    SCORE_UNCERTAIN = _gauge(
        "score_uncertain",
        "1 for each bin of the reference that has scores in the model's band or, where it has none, within 0.1 of the "
        "threshold; 0 for the others.",
        *("version", "upper", "lower"),
    )
    BUILD_INFO = _gauge("build_info", "1, with what runs here.", "version", "python", "torchserve", "onnxruntime")
    WORKER_MEMORY = _gauge("worker_resident_memory_bytes", "Memory of a worker that is in RAM.", "pid")
    WORKER_CPU = _counter("worker_cpu_seconds", "CPU time that a worker has used.", "pid")
    JVM_MEMORY = _gauge("jvm_memory_bytes", "Memory of the JVM, by area.", "area", values=AREAS)
    JVM_THREADS = _gauge("jvm_threads", "Threads of the JVM.")
    JVM_GC = _counter("jvm_gc_seconds", "Time the JVM has spent collecting garbage.")
    GPUS_WANTED = _gauge("gpus_wanted", "GPUs that the workers are given; with `--device cuda` or `tensorrt` alone.")
    GPU_UTILIZATION = _gauge("gpu_utilization_ratio", "Share of the time in which the GPU computed.", "uuid", "name")
    GPU_MEMORY_USED = _gauge("gpu_memory_used_bytes", "GPU memory in use, by all processes.", "uuid", "name")
    GPU_MEMORY_TOTAL = _gauge("gpu_memory_total_bytes", "GPU memory that there is.", "uuid", "name")
    GPU_POWER = _gauge("gpu_power_watts", "Power that the GPU draws.", "uuid", "name")
    FEEDBACK = _counter("feedback", "Labels that came back, by the score that was given.", "version", "bin", "label")
    FEEDBACK_SCORE = _counter("feedback_score", "Sum of the scores of the photos whose labels came back.", "version", "bin")
    LOG_LINES_DROPPED = _counter("log_lines_dropped", "Log lines lost because they were written faster than read.")


def family(metric: SupervisorMetric) -> GaugeMetricFamily | CounterMetricFamily:
    """An empty family of a metric; `add_metric(labels, value)` adds a sample."""
    declared = metric.value
    kind = CounterMetricFamily if declared.kind == "Counter" else GaugeMetricFamily
    return kind(declared.name, declared.text, labels=list(declared.labels))
