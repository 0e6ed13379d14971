"""The checkpoint in PyTorch, the local scorer and TorchServe over REST and gRPC give one answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from detector import CalibrationCurve, Manifest, decode_image
from detector.scorer import Scorer
from detector.tolerance import LOGIT, PROBABILITY, disagreement
from training.models.checkpoint import load_checkpoint


def checkpoint_answers(run_dir, manifest: Manifest, photos: list[bytes]) -> list[dict]:
    """Straight from the weights in PyTorch, calibrated with the manifest's curve."""
    model = load_checkpoint(run_dir / "best_model.pth").build()
    spec = manifest.image_spec
    images = torch.from_numpy(np.stack([decode_image(p, spec) for p in photos])).permute(0, 3, 1, 2).float()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (spec.mean, spec.std))
    with torch.inference_mode():
        logit = model((images / 255 - mean) / std)
    calibrated = manifest.curve(torch.sigmoid(logit).numpy())
    return [
        {"logit": float(a), "calibrated": float(c), "prediction": "Fake" if c >= manifest.threshold else "Real"}
        for a, c in zip(logit, calibrated, strict=True)
    ]


@pytest.mark.parametrize("way", ["scorer", "rest", "grpc"])
def test_every_way_to_score_agrees_with_the_checkpoint(way, run_dir, artifacts, server, photos):
    manifest = Manifest.load(artifacts / "manifest.json")
    assert isinstance(manifest.curve, CalibrationCurve)
    if way == "scorer":
        scorer = Scorer(artifacts / "model.onnx")
        answers = [scorer.score(p).to_dict() for p in photos]
    else:
        answers = [server.predict(p, grpc=way == "grpc") for p in photos]
    expected = checkpoint_answers(run_dir, manifest, photos)
    assert {e["prediction"] for e in expected} == {"Real", "Fake"}, "both labels must occur for this to mean something"
    for answer, truth in zip(answers, expected, strict=True):
        assert not disagreement(answer["logit"], truth["logit"], LOGIT)
        assert not disagreement(answer["calibrated"], truth["calibrated"], PROBABILITY)
        assert answer["prediction"] == truth["prediction"]
