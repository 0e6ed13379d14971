"""Errors of the benchmarks, each with its stable code."""

from __future__ import annotations

from detector.errors import UnmaskError


class MetricsUnreachable(UnmaskError):
    """The server's metrics page can't be read."""

    code = "metrics_unreachable"
    status = 503


class LoadFailed(UnmaskError):
    """The load generator ended before it could report."""

    code = "load_failed"


class GeneratorSaturated(UnmaskError):
    """The load generator could not keep to its plan, so that its numbers would be its own and not the server's."""

    code = "generator_saturated"


class OverLimit(UnmaskError):
    """The server does not keep to the limit of latency at any rate."""

    code = "over_limit"


class SideFailed(UnmaskError):
    """One side of a training comparison ended with an error."""

    code = "comparison_failed"


class TrainingFailed(UnmaskError):
    """A training run for the results page ended with an error."""

    code = "training_failed"
