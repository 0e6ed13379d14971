"""Recalibrate artifacts: curve, threshold and band that their run has now, in place of those they were exported with."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import onnx

from detector.errors import UsageError
from detector.manifest import Manifest
from detector.model_warnings import model_warnings
from detector.verdict import DEFAULT_THRESHOLD
from export import parity
from export.archive import extract_archive
from export.artifacts import (
    ARCHIVES,
    ONNX,
    REDUCED,
    TORCHSCRIPT,
    install,
    pack,
    parity_pictures,
    training_record,
)
from export.checks import check_recalibrate
from export.errors import ParityError
from export.graph import ScoringGraph
from export.onnx_model import opset_of, save_model, with_curve, without_curve
from export.run_folder import Run, read_run
from export.runners import checkpoint_runner, onnx_runner, torchscript_runner


def recalibrate_artifacts(
    artifacts: Path, run: Path, *, threshold: float | None = None, photos: Path | None = None
) -> Manifest:
    """Swap the calibration in a folder that `export_run` wrote for the one `run` has now; returns the new manifest.

    The weights of both models are those that were there, bit by bit; the curve in the graph, both archives, hashes, parity
    and the metrics that the run reports now are new. The curve's steps are widened to the float noise measured at export,
    which is the weights' own. What the folder held stays as it was until everything new is proven.
    Raises `UsageError` when the artifacts are not that run's best checkpoint, `ParityError` when its weights give other
    scores, `FileError` for what can't be read or has changed.
    """
    check_recalibrate(artifacts, run, threshold=threshold, photos=photos)
    before = Manifest.load(artifacts / "manifest.json")
    before.verify(artifacts)
    source = read_run(run)
    _require_same(before, source, run)
    images, shown = parity_pictures(source, photos)
    with tempfile.TemporaryDirectory(dir=artifacts.parent, prefix=f".{artifacts.name}-") as scratch:
        work = Path(scratch)
        extract_archive(artifacts / ARCHIVES[TORCHSCRIPT], work / "torchscript")
        (work / "torchscript" / TORCHSCRIPT).rename(work / TORCHSCRIPT)
        curve = source.curve.with_max_slope(before.parity["max_slope"]["limit"])
        precisions = dict(before.precision)
        for name in (ONNX, *(REDUCED[precision] for precision in precisions)):
            model = onnx.load(artifacts / name)
            properties = {entry.key: entry.value for entry in model.metadata_props}
            save_model(with_curve(without_curve(model), curve, opset_of(model)), work / name, properties)
        for precision, measured in precisions.items():
            path = work / REDUCED[precision]
            precisions[precision] = measured | parity.compare_reduced(onnx_runner(path), path, images, curve)
            precisions[precision] |= {"bytes": path.stat().st_size}
        graph = ScoringGraph(source.checkpoint.build(), source.checkpoint.image_spec)
        runners = [checkpoint_runner(graph), onnx_runner(work / ONNX), torchscript_runner(work / TORCHSCRIPT)]
        found = parity.measure_parity(runners, images, curve, [work / ONNX])
        try:
            found.require()
        except ParityError as error:
            raise ParityError(f"{artifacts}: not recalibrated; {error.message}") from None
        report = found.to_dict() | {
            "pictures": shown,
            "noise": before.parity["noise"],
            "max_slope": before.parity["max_slope"] | {"before": source.curve.max_slope, "after": curve.max_slope},
            "knots": {"before": len(source.curve.x), "after": len(curve.x)},
        }
        chosen = threshold if threshold is not None else source.threshold or DEFAULT_THRESHOLD
        band = source.uncertain if threshold is None else None
        manifest = replace(
            before,
            curve=curve,
            calibration_method=source.method,
            threshold=chosen,
            uncertain=band,
            training=training_record(source, "best", threshold),
            metrics=source.metrics,
            reference_scores=source.reference_scores,
            warnings=model_warnings(source.metrics, chosen, band),
            parity=report,
            precision=precisions,
        )
        manifest = pack(work, manifest)
        install(work, artifacts)
    return manifest


def _require_same(manifest: Manifest, source: Run, run: Path) -> None:
    """Raise `UsageError` unless the artifacts were made from this run's best checkpoint."""
    trained = manifest.training
    problems = []
    if trained.get("checkpoint") != "best":
        problems.append(f"they hold the {trained.get('checkpoint')} checkpoint, and the curve was fitted to the best")
    if trained.get("fingerprint") != source.checkpoint.fingerprint:
        problems.append("they were trained on other photos")
    if manifest.image_spec != source.checkpoint.image_spec or manifest.model.backbone != source.checkpoint.model_config.name:
        problems.append("they hold another network")
    if problems:
        raise UsageError(
            f"these artifacts are not of {run}: {'; '.join(problems)}; `unmask export --run {run}` makes new ones"
        )
