"""Explanations: the heatmap of a verdict as numbers, and as a picture over the photo."""

from __future__ import annotations

import struct
import zlib
from base64 import b64encode
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.display.overlay import overlaid
from detector.errors import ModelOutputError


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
    """A PNG file in base64 (W3C PNG specification), each byte as the difference from the pixel to the left.

    Pillow tries five such filters on every row, which takes three times as long for a file a sixth smaller, and was most of
    what an explanation cost. Compression looks for no repetitions, since photos have few.
    """
    height, width, channels = pixels.shape
    rows = pixels.reshape(height, width * channels)
    filtered = np.ones((height, 1 + width * channels), np.uint8)  # 1, the filter's number, begins each row
    filtered[:, 1:] = rows
    filtered[:, 1 + channels :] -= rows[:, :-channels]
    packer = zlib.compressobj(strategy=zlib.Z_HUFFMAN_ONLY)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits a channel, RGB
    parts = [(b"IHDR", header), (b"IDAT", packer.compress(filtered.tobytes()) + packer.flush()), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts]
    return b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)).decode("ascii")
