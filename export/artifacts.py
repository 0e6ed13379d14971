"""One export: from a training run to a folder of artifacts, whole or not at all."""

from __future__ import annotations

import importlib.metadata
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
from tqdm import tqdm

from detector.calibration import CalibrationCurve
from detector.errors import FileError, UsageError
from detector.manifest import Manifest, sha256
from detector.model_warnings import model_warnings
from detector.verdict import DEFAULT_THRESHOLD, ModelIdentity
from export import parity, pictures
from export.archive import write_archive
from export.checks import check_export
from export.graph import ScoringGraph
from export.onnx_model import opset_of, save_model, scores_to_onnx, with_curve
from export.reduced.noise import SAFETY, Noise, measure_noise
from export.reduced.precision import Photos, read_photos, reduce_precision
from export.run_folder import Run, read_run
from export.runners import Pixels, checkpoint_runner, onnx_runner, torchscript_runner
from export.torchscript import save_torchscript

ONNX, TORCHSCRIPT = "model.onnx", "model.pt"
REDUCED = {"int8": "model.int8.onnx", "fp16": "model.fp16.onnx"}
ARCHIVES = {
    ONNX: "detector-onnx.mar",
    TORCHSCRIPT: "detector-torchscript.mar",
    REDUCED["int8"]: "detector-int8.mar",
    REDUCED["fp16"]: "detector-fp16.mar",
}
_LIBRARIES = ("torch", "torchvision", "timm", "onnx", "onnxscript", "onnxruntime-gpu", "onnxruntime", "numpy", "pillow")


def export_run(
    run: Path,
    out: Path,
    *,
    checkpoint: str = "best",
    name: str = "detector",
    version: str = "1.0",
    threshold: float | None = None,
    opset: int = 18,
    photos: Path | None = None,
    precisions: Sequence[str] = (),
    data: Path | None = None,
    allow_faulty: bool = False,
    require_auc: float | None = None,
) -> Manifest:
    """Export `run`'s checkpoint ("best" or "final") into `out` and return the manifest written there.

    threshold: calibrated probability from which on a photo is Fake; None takes the run's, or 0.5, and its band. photos:
    folder whose photos the parity gate scores; None takes the run's validation photos where they still are, or drawn pictures.
    precisions: "int8", "fp16", for models with fewer bits beside the float32 one, chosen and judged on the labelled photos in
    `data`; None takes those that the run was trained on.
    allow_faulty: export a run that faults were injected into all the same; its manifest says so. require_auc: the lower end of
    the 95 % interval of AUC on the run's validation photos must be that high.
    What `out` held stays as it was until everything new is proven.
    Raises `AucTooLow`, `ParityError` when the runtimes disagree, `PrecisionError` when fewer bits change the answers,
    `FileError` for what can't be read, `UsageError` for a bad argument.
    """
    check_export(
        run,
        out,
        checkpoint=checkpoint,
        name=name,
        version=version,
        threshold=threshold,
        opset=opset,
        photos=photos,
        data=data,
        require_auc=require_auc,
    )
    source = read_run(run, checkpoint)
    if source.checkpoint.faults and not allow_faulty:
        named = ", ".join(f"{key} {value}" for key, value in source.checkpoint.faults.items())
        raise UsageError(f"{run}: was trained with faults on purpose ({named}); --allow-faulty exports it all the same")
    images, shown = parity_pictures(source, photos)
    wanted = [precision for precision in REDUCED if precision in precisions]
    labelled = _labelled(source, data) if wanted else None
    chosen = threshold if threshold is not None else source.threshold or DEFAULT_THRESHOLD
    band = source.uncertain if threshold is None else None
    plan = Manifest(
        model=ModelIdentity(name, version, source.checkpoint.model_config.name),
        image_spec=source.checkpoint.image_spec,
        curve=source.curve,
        calibration_method=source.method,
        threshold=chosen,
        files={},
        libraries=_libraries(),
        training=training_record(source, checkpoint, threshold),
        metrics=source.metrics,
        parity={"pictures": shown},
        reference_scores=source.reference_scores,
        uncertain=band,
        warnings=model_warnings(source.metrics, chosen, band),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        work = Path(scratch)
        manifest, scores = _build(source, plan, images, work, opset)
        if labelled is not None:
            for precision in wanted:
                manifest = _add(precision, manifest, scores, labelled, images, work)
        manifest = pack(work, manifest)
        install(work, out)
    return manifest


def _build(source: Run, plan: Manifest, images: Pixels, work: Path, opset: int) -> tuple[Manifest, onnx.ModelProto]:
    """Make, measure and prove both float32 models in `work`; returns the manifest without hashes, and the graph without curve.

    `plan` is the manifest without curve and parity too.
    """
    spec = plan.image_spec
    properties = {**plan.model.to_dict(), "fingerprint": source.checkpoint.fingerprint}
    with tqdm(total=4, desc="tracing", unit="step") as steps:
        graph = ScoringGraph(source.checkpoint.build(), spec)
        save_torchscript(graph, spec, work / TORCHSCRIPT)
        scores = scores_to_onnx(graph, spec, opset)
        save_model(scores, work / "scores.onnx", properties)
        steps.update()
        steps.set_description("measuring float noise")
        eager, script = checkpoint_runner(graph), torchscript_runner(work / TORCHSCRIPT)
        noise = measure_noise([eager, onnx_runner(work / "scores.onnx"), script], images)
        steps.update()
        steps.set_description("fusing the curve")
        curve = source.curve.with_max_slope(noise.max_slope)
        save_model(with_curve(scores, curve, opset), work / ONNX, properties)
        steps.update()
        steps.set_description("proving parity")
        found = parity.measure_parity([eager, onnx_runner(work / ONNX), script], images, curve, [work / ONNX])
        found.require()
        report = found.to_dict() | plan.parity | _noise_report(noise, source.curve, curve)
        steps.update()
    return replace(plan, curve=curve, parity=report), scores


def _add(
    precision: str, manifest: Manifest, scores: onnx.ModelProto, labelled: Photos, images: Pixels, work: Path
) -> Manifest:
    """Write the model with fewer bits into `work`, with the same curve; returns the manifest with what was measured."""
    model, report = reduce_precision(precision, scores, labelled)
    path = work / REDUCED[precision]
    properties = {entry.key: entry.value for entry in scores.metadata_props}
    save_model(with_curve(model, manifest.curve, opset_of(model)), path, properties | {"precision": precision})
    report |= parity.compare_reduced(onnx_runner(path), path, images, manifest.curve) | {"bytes": path.stat().st_size}
    return replace(manifest, precision=manifest.precision | {precision: report})


def _labelled(source: Run, data: Path | None) -> Photos:
    if (folder := data or source.data) is None:
        raise UsageError(
            "fewer bits are chosen and judged on labelled photos, and the run's are gone; name some with --data DIR"
        )
    return read_photos(folder, source.checkpoint.image_spec, label_names=source.checkpoint.arguments.get("labels"))


def models_of(manifest: Manifest) -> list[str]:
    """File names of the models that artifacts with this manifest hold, the TorchScript archive's included."""
    return [ONNX, TORCHSCRIPT, *(REDUCED[precision] for precision in REDUCED if precision in manifest.precision)]


def files_of(manifest: Manifest) -> list[str]:
    """File names of those artifacts, the manifest aside; TorchScript lies in its archive alone."""
    models = models_of(manifest)
    return [name for name in models if name != TORCHSCRIPT] + [ARCHIVES[name] for name in models]


def pack(work: Path, manifest: Manifest) -> Manifest:
    """Write an archive for each model in `work`, and the manifest with the hashes of them all; returns it."""
    for model in models_of(manifest):
        write_archive(work / ARCHIVES[model], work / model, manifest)
    manifest = replace(manifest, files={name: sha256(work / name) for name in files_of(manifest)})
    manifest.save(work / "manifest.json")
    return manifest


def training_record(source: Run, checkpoint: str, threshold: float | None) -> dict[str, Any]:
    """What a manifest says of the training; also how threshold or band were chosen, unless `threshold` was given instead."""
    record = {"fingerprint": source.checkpoint.fingerprint, "checkpoint": checkpoint, "arguments": source.arguments}
    if source.checkpoint.faults:
        record["faults"] = source.checkpoint.faults
    chosen = {"threshold_choice": source.threshold_choice, "band_choice": source.band_choice} if threshold is None else {}
    return record | {name: choice for name, choice in chosen.items() if choice}


def install(work: Path, out: Path) -> None:
    """Move the files over, and take away an earlier export's that have no successor. The manifest is first out and last in: a
    folder without one is refused, never half trusted."""
    names = files_of(Manifest.load(work / "manifest.json"))
    out.mkdir(exist_ok=True)
    (out / "manifest.json").unlink(missing_ok=True)
    for name in {ONNX, *REDUCED.values(), *ARCHIVES.values()}.difference(names):
        (out / name).unlink(missing_ok=True)
    for name in (*names, "manifest.json"):
        (work / name).replace(out / name)


def parity_pictures(source: Run, photos: Path | None) -> tuple[Pixels, str]:
    """Pictures for the parity gate, and where they are from."""
    spec = source.checkpoint.image_spec
    if photos is not None:
        return pictures.photos_in(photos, spec), "given photos"
    if source.photos is not None:
        try:
            return pictures.photos_in(source.photos, spec), "the run's photos"
        except FileError:
            pass  # fewer are left there than the gate needs
    return pictures.drawn(spec), "drawn pictures"


def _noise_report(noise: Noise, before: CalibrationCurve, after: CalibrationCurve) -> dict[str, Any]:
    measured = {"logit": noise.logit, "raw_prob": noise.raw_prob, "ways": noise.ways}
    return {
        "noise": {**measured, "safety": SAFETY, "bound": noise.bound},
        "max_slope": {"before": before.max_slope, "limit": noise.max_slope, "after": after.max_slope},
        "knots": {"before": len(before.x), "after": len(after.x)},
    }


def _libraries() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # onnxruntime comes as one of two packages
    return versions
