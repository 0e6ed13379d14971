"""What NVIDIA's management library says of each GPU; nothing where there is no GPU or no driver."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client.core import Metric

from serve.metrics.declared import SupervisorMetric, family


class GpuMetrics:
    """The GPUs' metrics. library: `pynvml`, or what stands in for it."""

    def __init__(self, library: Any = None) -> None:
        self._library = _library() if library is None else library
        self._begun = False

    def collect(self) -> Iterable[Metric]:
        """One family for each kind of value that a GPU gives. One that is lost, or does not give a value, is not in it."""
        nvml = self._library
        if nvml is None:
            return []
        try:
            if not self._begun:  # again at the next look where it fails: a driver may be loaded later
                nvml.nvmlInit()
                self._begun = True
            handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        except nvml.NVMLError:
            return []
        values: dict[SupervisorMetric, Callable[[Any], float]] = {
            SupervisorMetric.GPU_UTILIZATION: lambda gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
            SupervisorMetric.GPU_MEMORY_USED: lambda gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used,
            SupervisorMetric.GPU_MEMORY_TOTAL: lambda gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).total,
            SupervisorMetric.GPU_POWER: lambda gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
        }
        families = {metric: family(metric) for metric in values}
        for gpu in handles:
            with contextlib.suppress(nvml.NVMLError):
                labels = [nvml.nvmlDeviceGetUUID(gpu), nvml.nvmlDeviceGetName(gpu)]
                for metric, read in values.items():
                    with contextlib.suppress(nvml.NVMLError):
                        families[metric].add_metric(labels, read(gpu))
        return [each for each in families.values() if each.samples]


def _library() -> Any:
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml
