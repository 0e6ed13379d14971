"""`unmask export`, `verify` and `recalibrate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from detector.files import shown
from unmask.parameters import AsJson, Fraction, Switch

Precision = Literal["fp32", "int8", "fp16"]
Artifacts = Annotated[Path, Parameter(help="Folder that `unmask export` wrote.")]


def export(
    *,
    run: Path,
    out: Path,
    checkpoint: Literal["best", "final"] = "best",
    name: str = "detector",
    version: str = "1.0",
    threshold: Fraction | None = None,
    opset: int = 18,
    photos: Path | None = None,
    precision: Annotated[tuple[Precision, ...], Parameter(consume_multiple=True)] = ("fp32",),
    data: Path | None = None,
    allow_faulty: Switch = False,
    require_auc: Fraction | None = None,
    json_: AsJson = False,
) -> int:
    """Write ONNX, TorchScript and archives from a run, proven equal to it.

    Parameters
    ----------
    run
        Folder that `unmask train` wrote.
    out
        Folder to write; it is made when it is not there.
    checkpoint
        Which checkpoint; final is exported without calibration, since the curve was fitted to best.
    name
        Model name that TorchServe registers.
    version
        Model version.
    threshold
        Call a photo Fake from this calibrated probability, and none Uncertain (default: the run's threshold and band, or 0.5).
    opset
        ONNX operator set.
    photos
        Photos for the parity check (default: the run's, or drawn pictures).
    precision
        Models to write: float32 always, and beside it int8 for CPUs with VNNI or fp16 for GPUs.
    data
        Labelled photos to choose and evaluate int8 and fp16 on (default: the run's).
    allow_faulty
        Export a run with injected faults all the same.
    require_auc
        Refuse unless the lower end of the 95 % interval of the run's AUC is at least this.
    """
    from export.checks import check_export

    asked: dict[str, Any] = {
        "checkpoint": checkpoint,
        "name": name,
        "version": version,
        "threshold": threshold,
        "opset": opset,
        "photos": photos,
        "data": data,
        "require_auc": require_auc,
    }
    check_export(run, out, **asked)
    from export.artifacts import export_run
    from export.summary import summary

    manifest = export_run(run, out, precisions=precision, allow_faulty=allow_faulty, **asked)
    if json_:
        written = {"out": shown(out), "files": manifest.files, "parity": manifest.parity, "warnings": manifest.warnings}
        print(json.dumps(written | ({"precision": manifest.precision} if manifest.precision else {}), indent=2))
    else:
        print(summary(manifest, out))
    return 0


def verify(artifacts: Artifacts, /, *, photos: Path | None = None, json_: AsJson = False) -> int:
    """Check the hashes and the parity of exported artifacts.

    Parameters
    ----------
    photos
        Photos to compare on (default: drawn pictures).
    """
    from export.checks import check_verify

    check_verify(artifacts, photos=photos)
    from export.summary import verify_summary
    from export.verify import verify_artifacts

    report = verify_artifacts(artifacts, photos)
    print(json.dumps(report, indent=2) if json_ else verify_summary(report, artifacts))
    return 0 if report["ok"] else 1


def recalibrate(
    artifacts: Artifacts,
    /,
    *,
    run: Path,
    threshold: Fraction | None = None,
    photos: Path | None = None,
    json_: AsJson = False,
) -> int:
    """Give artifacts the calibration that their run has now.

    Parameters
    ----------
    run
        The run that they were exported from.
    threshold
        Call a photo Fake from this calibrated probability, and none Uncertain (default: the run's threshold and band).
    photos
        Photos for the parity check (default: the run's, or drawn pictures).
    """
    from export.checks import check_recalibrate

    check_recalibrate(artifacts, run, threshold=threshold, photos=photos)
    from export.recalibrate import recalibrate_artifacts
    from export.summary import summary

    manifest = recalibrate_artifacts(artifacts, run, threshold=threshold, photos=photos)
    if json_:
        band = manifest.uncertain.to_list() if manifest.uncertain else None
        changed = {"calibration": manifest.calibration_method, "threshold": manifest.threshold, "uncertain": band}
        changed["warnings"] = manifest.warnings
        print(json.dumps({"out": shown(artifacts), **changed, "files": manifest.files, "parity": manifest.parity}, indent=2))
    else:
        print(summary(manifest, artifacts))
    return 0
