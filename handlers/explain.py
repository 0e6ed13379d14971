"""What a verdict rests on: the heatmap as numbers, and as a picture over the photo."""

from __future__ import annotations

import zlib
from base64 import b64encode
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detector.overlay import overlaid
from detector.verdict import ModelOutputError


def explanation(photo: NDArray[np.uint8], heat: NDArray[np.float32]) -> dict[str, Any]:
    """The JSON of an explanation, from a photo as the model saw it, uint8[H, W, 3], and its heatmap, float32[h, w].

    Above zero speaks for fake, below for real. Raises `ModelOutputError` when the map is not finite.
    """
    if not np.isfinite(heat).all():
        raise ModelOutputError("the model gave a heatmap that is not of numbers")
    rows = [[float(f"{value:.4g}") for value in row] for row in heat.tolist()]
    flat = [value for row in rows for value in row]
    return {"heatmap": rows, "range": [min(flat), max(flat)], "overlay_png": _png(overlaid(photo, heat))}


def _png(pixels: NDArray[np.uint8]) -> str:
    """Base64. Photos have few repeated stretches: to look for none of them is quicker, and the file no larger."""
    out = BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_type=zlib.Z_HUFFMAN_ONLY)
    return b64encode(out.getvalue()).decode("ascii")
