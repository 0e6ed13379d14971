"""What is served, as metrics: each version's archive, threshold and reference scores, and the libraries that run it."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version

from prometheus_client.core import Metric
from prometheus_client.utils import floatToGoString

from detector.manifest import Manifest
from serve.metrics.declared import SupervisorMetric, family
from serve.settings import Settings

RUNTIMES = ("onnxruntime-gpu", "onnxruntime")
NEAR = 0.1  # where a model has no band: a score this near to the threshold may as well be on its other side


class ModelMetrics:
    """Metrics that stay the same while a server runs. manifests: by version. release: of Unmask itself."""

    def __init__(self, settings: Settings, manifests: Mapping[str, Manifest], release: str) -> None:
        self._families = _families(settings, manifests, release)

    def collect(self) -> Iterable[Metric]:
        """`unmask_model_info`, `unmask_build_info`, and of the scores' reference, where the manifest has one, its bins."""
        return self._families


def _families(settings: Settings, manifests: Mapping[str, Manifest], release: str) -> list[Metric]:
    info, build = family(SupervisorMetric.MODEL_INFO), family(SupervisorMetric.BUILD_INFO)
    reference, uncertain = family(SupervisorMetric.SCORE_REFERENCE), family(SupervisorMetric.SCORE_UNCERTAIN)
    for name, manifest in manifests.items():
        sha256 = manifest.files[settings.archive_name]
        band = manifest.uncertain
        said = "-".join(map(_bound, band.to_list())) if band else ""
        info.add_metric([name, manifest.model.backbone, settings.archive, sha256, _bound(manifest.threshold), said], 1)
        low, high = band.to_list() if band else (manifest.threshold - NEAR, manifest.threshold + NEAR)
        edges, counts = manifest.reference_scores.get("edges", []), manifest.reference_scores.get("counts", [])
        for lower, upper, count in zip(edges, edges[1:], counts, strict=False):
            labels = [name, _bound(upper), _bound(lower)]
            reference.add_metric(labels, count / max(sum(counts), 1))
            # Known from outside by labels alone, of which PromQL makes no numbers.
            uncertain.add_metric(labels, lower < high and upper > low and low < high)
    build.add_metric([release, platform.python_version(), _installed("torchserve"), _installed(*RUNTIMES)], 1)
    return [each for each in (info, reference, uncertain, build) if each.samples]


def _bound(value: float) -> str:
    """A number as the histograms' label `le` has it."""
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]


def _installed(*packages: str) -> str:
    """The version of the first of these packages that is installed; empty without."""
    for package in packages:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return ""
