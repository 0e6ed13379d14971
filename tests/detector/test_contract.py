"""Spec, verdict and manifest: valid values pass, everything else is refused by name."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import detector
from detector import Band, CalibrationCurve, FileError, ImageSpec, Manifest, ModelIdentity, Verdict, error_body, sha256
from detector.errors import ModelOutputError, TruncatedImage

IDENTITY = ModelIdentity("detector", "1.0", "efficientnet_b0")


def verdict(**changes: object) -> Verdict:
    scores = {"logit": 2.5178, "raw_prob": 0.9254, "calibrated_prob": 0.938}
    scores |= {"threshold": 0.5, "model": IDENTITY, "model_device": "cpu"}
    return Verdict.from_scores(**{**scores, **changes})


def test_importing_the_contract_needs_neither_torch_nor_onnxruntime():
    code = "import sys, detector; sys.exit(len({'torch', 'onnxruntime', 'sklearn', 'tqdm'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_public_names_are_those_listed_once_each():
    assert len(set(detector.__all__)) == len(detector.__all__)
    assert [name for name in detector.__all__ if not hasattr(detector, name)] == []


def test_a_spec_survives_json():
    spec = ImageSpec(size=224, resize="stretch", interpolation="bicubic", max_pixels=10)
    assert ImageSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize(
    "change",
    [{"size": 3}, {"resize": "pad"}, {"interpolation": "area"}, {"std": (0, 1, 1)}, {"max_pixels": 0}, {"color": "p3"}],
)
def test_a_spec_that_cannot_work_is_refused(change):
    with pytest.raises(FileError, match=next(iter(change))):
        ImageSpec(**change)


def test_a_spec_from_before_there_was_a_choice_of_colour_keeps_its_meaning():
    old = {"size": 64, "resize": "crop", "interpolation": "bilinear", "max_pixels": 50_000_000}
    assert ImageSpec.from_dict(old) == ImageSpec(size=64, color="stored")
    assert ImageSpec().color == "srgb"


def test_a_spec_with_an_unknown_key_is_refused():
    with pytest.raises(FileError, match="sharpen"):
        ImageSpec.from_dict({"size": 64, "sharpen": True})


def test_a_verdict_is_the_documented_json():
    assert verdict(request_id="r1", cropped=0.4375).to_dict() == {
        "ok": True,
        "prediction": "Fake",
        "logit": 2.5178,
        "raw_prob": 0.9254,
        "calibrated": 0.938,
        "percent": 93.8,
        "confidence": 0.938,
        "used_calibrator": True,
        "threshold": 0.5,
        "model": {"name": "detector", "version": "1.0", "backbone": "efficientnet_b0"},
        "model_device": "cpu",
        "cropped": 0.438,
        "request_id": "r1",
    }


def test_the_threshold_decides_and_belongs_to_fake():
    assert verdict(calibrated_prob=0.5).prediction == "Fake"
    assert verdict(calibrated_prob=0.49999).prediction == "Real"


def test_confidence_is_of_what_the_verdict_says_and_percent_is_of_fake():
    real = verdict(calibrated_prob=float(np.float32(0.2)))
    assert (real.prediction, real.percent, real.to_dict()["confidence"]) == ("Real", 20.0, 0.8)
    assert verdict(calibrated_prob=0.2, threshold=0.1).confidence == 0.2


def test_without_the_calibrator_the_raw_probability_decides():
    answer = verdict(raw_prob=0.2, calibrated_prob=0.9, use_calibrator=False)
    assert (answer.prediction, answer.calibrated, answer.used_calibrator) == ("Real", 0.2, False)


def test_a_photo_in_the_band_is_uncertain_and_the_band_is_said():
    band = Band(0.3, 0.7)
    words = {p: verdict(calibrated_prob=p, band=band).prediction for p in (0.29, 0.3, 0.5, 0.69, 0.7)}
    assert words == {0.29: "Real", 0.3: "Uncertain", 0.5: "Uncertain", 0.69: "Uncertain", 0.7: "Fake"}
    unsure = verdict(calibrated_prob=0.4, band=band)
    assert unsure.to_dict()["uncertain"] == [0.3, 0.7]
    assert unsure.confidence == 0.6
    assert verdict(calibrated_prob=0.5, band=Band(0.5, 0.5)).prediction == "Fake"
    assert verdict(calibrated_prob=0.49, band=Band(0.5, 0.5)).prediction == "Real"


def test_the_raw_probability_is_never_uncertain():
    raw = verdict(raw_prob=0.4, calibrated_prob=0.5, band=Band(0.3, 0.7), use_calibrator=False)
    assert raw.prediction == "Real"
    assert "uncertain" not in raw.to_dict()


@pytest.mark.parametrize("ends", [(0.7, 0.3), (0, 0.5), (0.5, 1), (float("nan"), 0.5)])
def test_what_is_no_band_is_refused(ends):
    with pytest.raises(FileError, match="the band"):
        Band(*ends)


@pytest.mark.parametrize("score", ["logit", "raw_prob", "calibrated_prob"])
def test_no_label_is_made_of_nan(score):
    with pytest.raises(ModelOutputError):
        verdict(**{score: float("nan")})


def test_an_error_has_a_code_a_message_and_a_status():
    assert error_body(TruncatedImage("cut"), "r2") == {
        "ok": False,
        "error": {"code": "truncated_image", "message": "cut"},
        "status": 422,
        "request_id": "r2",
    }


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    (tmp_path / "model.onnx").write_bytes(b"weights")
    return Manifest(
        model=IDENTITY,
        image_spec=ImageSpec(size=96),
        curve=CalibrationCurve(np.array([0.1, 0.9]), np.array([0.0, 1.0])),
        calibration_method="isotonic",
        threshold=0.4,
        files={"model.onnx": sha256(tmp_path / "model.onnx")},
        metrics={"auc": {"value": 0.9, "low": 0.8, "high": 0.95}},
    )


def test_a_manifest_survives_its_file(manifest, tmp_path):
    manifest.save(tmp_path / "manifest.json")
    again = Manifest.load(tmp_path / "manifest.json")
    assert again.to_dict() == manifest.to_dict()
    assert again.image_spec == manifest.image_spec
    assert {p.name for p in tmp_path.iterdir()} == {"manifest.json", "model.onnx"}
    assert (again.uncertain, manifest.to_dict()["format"]) == (None, 1)


def test_a_manifest_with_a_band_survives_its_file_in_a_format_that_earlier_releases_refuse(manifest, tmp_path):
    replace(manifest, uncertain=Band(0.35, 0.65)).save(tmp_path / "manifest.json")
    again = Manifest.load(tmp_path / "manifest.json")
    assert again.uncertain == Band(0.35, 0.65)
    assert again.to_dict()["format"] == 2
    assert again.verdict(0.0, 0.5, 0.5, device="cpu").prediction == "Uncertain"


def test_a_manifest_that_can_not_be_written_leaves_the_old_one(manifest, tmp_path):
    manifest.save(tmp_path / "manifest.json")
    before = (tmp_path / "manifest.json").read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        replace(manifest, metrics={"auc": float("nan")}).save(tmp_path / "manifest.json")
    assert (tmp_path / "manifest.json").read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"manifest.json", "model.onnx"}
    with pytest.raises(FileError, match=r"nowhere/manifest\.json: can't be written"):
        manifest.save(tmp_path / "nowhere" / "manifest.json")


def test_a_changed_or_missing_file_is_refused(manifest, tmp_path):
    manifest.verify(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"weightz")
    with pytest.raises(FileError, match=r"model\.onnx: SHA-256"):
        manifest.verify(tmp_path)
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(FileError, match="missing"):
        manifest.verify(tmp_path)
    with pytest.raises(FileError, match="not listed"):
        manifest.verify(tmp_path, only=("other.onnx",))


def test_a_manifest_can_not_point_outside_its_folder(manifest, tmp_path):
    with pytest.raises(FileError, match="plain file names"):
        replace(manifest, files={"../secret": "00"}).verify(tmp_path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda v: v.pop("threshold"), "threshold"),
        (lambda v: v.update(threshold=1.5), "between 0 and 1"),
        (lambda v: v.update(format=9), "format"),
        (lambda v: v.update(uncertain=[0.5, 0.6]), "must lie in the band"),
        (lambda v: v.update(uncertain=[0.6, 0.2]), "the lower end first"),
        (lambda v: v.update(uncertain=0.4), "not a manifest"),
        (lambda v: v["calibration"].update(x=[1, 0]), "calibration curve"),
        (lambda v: v.update(model={"name": 1}), "not a manifest"),
        (lambda v: v.update(files=[]), "not a manifest"),
    ],
)
def test_a_manifest_that_cannot_be_right_is_refused_by_name(manifest, tmp_path, edit, message):
    values = json.loads(json.dumps(manifest.to_dict()))
    edit(values)
    (tmp_path / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(FileError, match=r"manifest\.json.*" + message):
        Manifest.load(tmp_path / "manifest.json")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_no_manifest_is_refused(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(FileError, match=r"manifest\.json"):
        Manifest.load(tmp_path / "manifest.json")
