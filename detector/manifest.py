"""The manifest of exported artifacts: model, image spec, calibration curve, threshold and the SHA-256 of each file."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, SupportsFloat

from detector.calibration import CalibrationCurve
from detector.errors import FileError
from detector.files import read_json, shown, write_json
from detector.spec import ImageSpec
from detector.verdict import FAKE, REAL, Band, ModelIdentity, Verdict

FORMAT = 1
WITH_BAND = 2  # an earlier release would pass over the band, and answer Real or Fake where this one says Uncertain


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file. Raises `OSError` when it can't be read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class Manifest:
    """Contents of `manifest.json`.

    files: SHA-256 by name of each file beside the manifest. labels: the two classes; a probability of 1 means the second.
    threshold: calibrated probability at or above which the prediction is Fake. uncertain: band of calibrated probabilities
    around it in which the prediction is Uncertain, where the model has one. libraries: versions that the export used.
    training: data fingerprint and arguments. metrics: of the run, with confidence intervals. parity: largest measured
    differences between checkpoint, ONNX and TorchScript. precision: differences of the int8 and fp16 models, where there are
    any, from float32. reference_scores: histogram of calibrated scores on held-out data, {"edges": [...], "counts": [...]},
    to compare production scores with. warnings: what its metrics say against it, see `detector.model_warnings`.
    """

    model: ModelIdentity
    image_spec: ImageSpec
    curve: CalibrationCurve
    threshold: float
    files: dict[str, str]
    calibration_method: str = "none"
    labels: tuple[str, str] = (REAL, FAKE)
    libraries: dict[str, str] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    parity: dict[str, Any] = field(default_factory=dict)
    precision: dict[str, Any] = field(default_factory=dict)
    reference_scores: dict[str, Any] = field(default_factory=dict)
    uncertain: Band | None = None
    warnings: list[dict[str, str]] = field(default_factory=list)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Manifest:
        """Read and validate a manifest. Raises `FileError` that names the file and what is wrong."""
        path = Path(path)
        values = read_json(path, hint="`unmask export` writes it")
        try:
            if values["format"] not in (FORMAT, WITH_BAND):
                raise FileError(f"format is {values['format']!r}; this release reads {FORMAT} and {WITH_BAND}")
            threshold = float(values["threshold"])
            if not 0 < threshold < 1:
                raise FileError(f"threshold is {threshold}; it must lie between 0 and 1")
            band = Band.from_list(values.get("uncertain"))
            if band is not None and not band.lower <= threshold <= band.upper:
                raise FileError(f"threshold is {threshold}; it must lie in the band, {band.lower} to {band.upper}")
            real, fake = values["labels"]
            return cls(
                model=ModelIdentity(**values["model"]),
                image_spec=ImageSpec.from_dict(values["image_spec"]),
                curve=CalibrationCurve.from_dict(values["calibration"]),
                calibration_method=values["calibration"].get("method", "none"),
                threshold=threshold,
                files={str(k): str(v) for k, v in values["files"].items()},
                labels=(real, fake),
                uncertain=band,
                **{
                    k: values.get(k, {})
                    for k in ("libraries", "training", "metrics", "parity", "precision", "reference_scores")
                },
                warnings=[{k: str(warning[k]) for k in ("code", "message")} for warning in values.get("warnings", [])],
            )
        except FileError as error:
            raise FileError(f"{shown(path)}: {error.message}") from None
        except KeyError as error:
            raise FileError(f"{shown(path)}: the key {error} is missing") from None
        except (TypeError, ValueError, AttributeError):
            raise FileError(f"{shown(path)}: is not a manifest of this project") from None

    def verdict(
        self,
        logit: SupportsFloat,
        raw_prob: SupportsFloat,
        calibrated_prob: SupportsFloat,
        *,
        device: str,
        use_calibrator: bool = True,
        cropped: float | None = None,
        request_id: str | None = None,
    ) -> Verdict:
        """The verdict on one photo from its outputs of the scoring graph, by this model's threshold and band.

        device: where the graph ran, `cpu` or `cuda:N`. cropped: of `DecodedPhoto`. Raises `ModelOutputError` when a score is
        not finite.
        """
        return Verdict.from_scores(
            logit=float(logit),
            raw_prob=float(raw_prob),
            calibrated_prob=float(calibrated_prob),
            threshold=self.threshold,
            model=self.model,
            model_device=device,
            use_calibrator=use_calibrator,
            cropped=cropped,
            request_id=request_id,
            band=self.uncertain,
        )

    def to_dict(self) -> dict[str, Any]:
        """The manifest as JSON values."""
        return {
            "format": WITH_BAND if self.uncertain else FORMAT,
            "model": self.model.to_dict(),
            "image_spec": self.image_spec.to_dict(),
            "labels": list(self.labels),
            "threshold": self.threshold,
            **({"uncertain": self.uncertain.to_list()} if self.uncertain else {}),
            "calibration": {"method": self.calibration_method, **self.curve.to_dict()},
            "files": self.files,
            "libraries": self.libraries,
            "training": self.training,
            "metrics": self.metrics,
            "parity": self.parity,
            "precision": self.precision,
            "reference_scores": self.reference_scores,
            "warnings": self.warnings,
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the manifest whole or not at all. Raises `FileError` when it can't be written."""
        write_json(Path(path), self.to_dict())

    def verify(self, directory: str | os.PathLike[str], only: tuple[str, ...] | None = None) -> None:
        """Compare files in `directory` with their SHA-256. only: names of files to compare; all without it.

        Raises `FileError` for a file that is missing, changed, unreadable or not listed.
        """
        directory = Path(directory)
        for name in only if only is not None else sorted(self.files):
            if name not in self.files:
                raise FileError(f"{name}: is not listed in the manifest")
            if Path(name).name != name:
                raise FileError(f"{name!r}: a manifest lists plain file names only")
            path = directory / name
            if not path.is_file():
                raise FileError(f"{name}: is missing, though the manifest lists it")
            try:
                found = sha256(path)
            except OSError as error:
                raise FileError(f"{shown(path)}: can't be read ({error.strerror or error})") from None
            if found != self.files[name]:
                raise FileError(f"{name}: SHA-256 is {found[:12]}…, the manifest says {self.files[name][:12]}…")
