"""Explanations: the heatmap as numbers, and over the photo."""

from __future__ import annotations

from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from detector import decode_image
from detector.scorer import Scorer
from detector.tolerance import HEATMAP_IN_JSON, disagreement
from detector.verdict import ModelOutputError
from handlers.core import Core
from handlers.explain import explanation
from handlers.forms.base import Item

GREY = np.full((64, 64, 3), 128, np.uint8)


def picture(explained) -> np.ndarray:
    image = Image.open(BytesIO(b64decode(explained["overlay_png"], validate=True)))
    assert image.format == "PNG"
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
def test_the_numbers_are_the_graphs_heatmap_and_the_picture_the_photo_that_the_model_saw(request, kind, photos, artifacts):
    engine = request.getfixturevalue(f"{kind}_engine")
    explained = Core(engine).answer([Item({"data": photos[0]}, explain=True)])[0].body["explanation"]
    pixels = decode_image(photos[0], engine.manifest.image_spec)
    heat = Scorer(artifacts / "model.onnx", threads=1).heatmaps(pixels[None])[0]
    assert not disagreement(explained["heatmap"], heat, HEATMAP_IN_JSON)
    assert explained["range"] == [np.min(explained["heatmap"]), np.max(explained["heatmap"])]
    shown = picture(explained)
    assert shown.shape == pixels.shape
    assert np.corrcoef(shown.mean(axis=2).ravel(), pixels.mean(axis=2).ravel())[0, 1] > 0.5


def test_red_speaks_for_fake_blue_for_real_and_zero_for_nothing():
    heat = np.zeros((8, 8), np.float32)
    heat[0, 0], heat[7, 7] = 2, -1
    shown = picture(explanation(GREY, heat))
    assert shown[0, 0, 0] > shown[0, 0, 2] + 80
    assert shown[-1, -1, 2] > shown[-1, -1, 0] + 20
    assert (shown[28:36, 28:36] == 128).all()
    assert (picture(explanation(GREY, np.zeros((4, 4), np.float32))) == 128).all()


def test_only_the_pattern_shows_not_its_size():
    heat = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    assert (picture(explanation(GREY, heat)) == picture(explanation(GREY, 1e-6 * heat))).all()


def test_no_picture_is_made_of_nan():
    with pytest.raises(ModelOutputError):
        explanation(GREY, np.full((2, 2), np.nan, np.float32))
