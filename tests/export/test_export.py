"""Export: what it writes, that all runtimes agree on it, and that a photo gets one answer whatever batch it travels in."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from detector import CalibrationCurve, Manifest, decode_image
from detector.scorer import Scorer, open_session
from detector.tolerance import CURVE, HEATMAP, LOGIT, PROBABILITY, disagreement
from export import export_run
from export.archive import extract_archive
from export.torchscript import load_torchscript
from tests.conftest import write_run

pytestmark = pytest.mark.slow

OUTPUTS = ["logit", "raw_prob", "calibrated_prob", "heatmap"]


@pytest.fixture(scope="module")
def manifest(artifacts) -> Manifest:
    return Manifest.load(artifacts / "manifest.json")


@pytest.fixture(scope="module")
def images(manifest, photos) -> np.ndarray:
    return np.stack([decode_image(p, manifest.image_spec) for p in photos])


@pytest.fixture(scope="module")
def session(artifacts) -> onnxruntime.InferenceSession:
    return open_session(artifacts / "model.onnx")


@pytest.fixture(scope="module")
def other_export(tmp_path_factory, photos):
    """A small ResNet's final checkpoint, under another name into a folder that is not there yet."""
    run, out = tmp_path_factory.mktemp("resnet"), tmp_path_factory.mktemp("there") / "not" / "yet"
    write_run(run, "test_resnet", photos, size=64)
    (run / "best_model.pth").rename(run / "final_model.pth")
    return out, export_run(run, out, checkpoint="final", name="Other-1", version="2.0.1", threshold=0.3)


def test_the_folder_holds_the_four_files_and_nothing_else(artifacts, manifest):
    names = {"model.onnx", "manifest.json", "detector-onnx.mar", "detector-torchscript.mar"}
    assert {p.name for p in artifacts.iterdir()} == names
    assert not list(artifacts.parent.glob(".artifacts-*")), "what was assembled beside it is taken away"
    assert set(manifest.files) == names - {"manifest.json"}
    manifest.verify(artifacts)


def test_the_graph_takes_decoded_pixels_in_any_number_and_gives_four_outputs(session, images):
    [given] = session.get_inputs()
    assert (given.name, given.type, given.shape[1:]) == ("images", "tensor(uint8)", [128, 128, 3])
    assert [o.name for o in session.get_outputs()] == OUTPUTS
    for n in (1, 2, 5, 16):
        logit, raw_prob, calibrated, heatmap = session.run(OUTPUTS, {"images": images[:n]})
        assert logit.shape == raw_prob.shape == calibrated.shape == (n,)
        assert heatmap.shape == (n, 4, 4)
        assert {v.dtype for v in (logit, raw_prob, calibrated, heatmap)} == {np.dtype(np.float32)}


def test_the_model_says_what_it_is_and_not_where_it_was_made(artifacts, manifest):
    model = onnx.load(artifacts / "model.onnx", load_external_data=False)
    properties = {p.key: p.value for p in model.metadata_props}
    assert properties == {
        "name": "detector",
        "version": "1.0",
        "backbone": "mobilenetv3_small_050",
        "fingerprint": manifest.training["fingerprint"],
    }
    assert not any(i.data_location for i in model.graph.initializer)
    everything = (artifacts / "model.onnx").read_bytes() + (artifacts / "manifest.json").read_bytes()
    assert b".py" not in everything
    assert str(artifacts.parent).encode() not in everything


def test_one_photo_gets_one_answer_whatever_batch_it_travels_in(session, images, manifest, run_dir):
    """On a curve that rises by a tenth within one float32, which as it came gives two answers."""
    alone = [np.concatenate(v) for v in zip(*(session.run(OUTPUTS, {"images": i[None]}) for i in images), strict=True)]
    for batch in (2, 7, 8, 50):
        parts = [session.run(OUTPUTS, {"images": images[i : i + batch]}) for i in range(0, len(images), batch)]
        _, _, calibrated, _ = (np.concatenate(v) for v in zip(*parts, strict=True))
        assert not disagreement(calibrated, alone[2], PROBABILITY)
    fitted = CalibrationCurve.from_dict(json.loads((run_dir / "calibration.json").read_text()))
    step, noise = fitted.x[9], np.float32(manifest.parity["noise"]["bound"])
    assert abs(fitted([step + noise])[0] - fitted([step - noise])[0]) > 0.05
    assert abs(manifest.curve([step + noise / 2])[0] - manifest.curve([step - noise / 2])[0]) < 1e-3


def test_onnx_torchscript_and_manifest_curve_agree_on_every_photo(artifacts, session, images, manifest, tmp_path):
    extract_archive(artifacts / "detector-torchscript.mar", tmp_path)
    module = load_torchscript(tmp_path / "model.pt")
    with torch.no_grad():
        script_logit, script_map = (v.numpy() for v in module(torch.from_numpy(images)))
        script_raw = torch.sigmoid(torch.from_numpy(script_logit)).numpy()
    logit, raw_prob, calibrated, heatmap = session.run(OUTPUTS, {"images": images})
    assert logit.std() > 1, "photos must differ for this to mean something"
    assert not disagreement(script_logit, logit, LOGIT)
    assert not disagreement(script_map, heatmap, HEATMAP)
    assert not disagreement(manifest.curve(script_raw), calibrated, PROBABILITY)
    assert not disagreement(manifest.curve(raw_prob), calibrated, CURVE)


def test_the_manifest_carries_what_was_measured(manifest, run_dir):
    parity = manifest.parity
    assert parity["photos"] >= 32
    assert parity["tolerance"]["logit"] == {"atol": LOGIT.atol, "rtol": LOGIT.rtol}
    assert parity["tolerance"]["heatmap"] == {"atol": HEATMAP.atol, "rtol": HEATMAP.rtol}
    measured = parity["logit"]["onnx"]
    assert 0 < measured["difference"] < measured["bound"]
    assert measured["fraction"] == pytest.approx(measured["difference"] / measured["bound"])
    assert parity["curve"]["points"] == 3 * len(manifest.curve.x) + 3
    assert parity["curve"]["difference"] <= parity["curve"]["bound"] == CURVE.atol
    assert parity["noise"]["raw_prob"] > 0
    assert parity["max_slope"]["before"] > 1e6 > parity["max_slope"]["limit"] >= manifest.curve.max_slope
    assert parity["max_slope"]["limit"] * parity["noise"]["bound"] == pytest.approx(1e-3)
    assert parity["knots"] == {"before": 20, "after": len(manifest.curve.x)}


def test_the_manifest_carries_the_runs_account_of_itself(manifest, run_dir):
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert manifest.metrics == metrics["validation"]
    assert manifest.reference_scores == metrics["reference_scores"]
    assert manifest.training["fingerprint"] == metrics["fingerprint"]
    assert manifest.training["arguments"]["seed"] == 7
    assert manifest.calibration_method == "isotonic"
    assert {"torch", "onnx", "numpy", "python"} <= set(manifest.libraries)


def test_the_final_checkpoint_goes_out_uncalibrated_since_the_curve_was_fitted_to_the_best(other_export, photos):
    out, manifest = other_export
    assert (manifest.calibration_method, manifest.metrics) == ("none", {})
    verdict = Scorer(out / "model.onnx").score(photos[0])
    assert not disagreement(verdict.calibrated, verdict.raw_prob, CURVE)


def test_name_version_and_threshold_go_where_they_are_read(other_export, photos):
    out, manifest = other_export
    assert (manifest.model.name, manifest.model.version, manifest.threshold) == ("Other-1", "2.0.1", 0.3)
    scorer = Scorer(out / "model.onnx")
    verdicts = [scorer.score(p) for p in photos]
    assert {v.prediction for v in verdicts} == {"Real", "Fake"}
    assert all((v.prediction == "Fake") == (v.calibrated >= 0.3) for v in verdicts)
    assert verdicts[0].model.version == "2.0.1"


def test_another_backbone_at_another_size_exports_by_the_same_path(squeezenet_run, tmp_path, photos):
    manifest = export_run(squeezenet_run, tmp_path / "out")
    assert manifest.model.backbone == "torchvision/squeezenet1_1"
    assert manifest.parity["heatmap"]["onnx"]["fraction"] <= 1
    scorer = Scorer(tmp_path / "out" / "model.onnx")
    assert {scorer.score(p).prediction for p in photos} == {"Real", "Fake"}
