"""Draw a heatmap over its photo, for training reports and the server's explanations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

STRENGTH = 0.6  # opacity where a map is strongest
RED, BLUE = (213, 94, 0), (0, 114, 178)  # Okabe and Ito's vermilion and blue, distinct to the colour-blind


def overlaid(photo: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Draw a class-activation map, float32[h, w], over its photo, uint8[H, W, 3]: red is evidence for fake, blue for real.

    The largest absolute value has the opacity `STRENGTH`, others in proportion, and zero none. Returns uint8[H, W, 3].
    """
    size = (photo.shape[1], photo.shape[0])
    largest = max(float(np.abs(heat).max()), 1e-12)
    smooth = np.asarray(Image.fromarray(heat / np.float32(largest)).resize(size, Image.Resampling.BICUBIC))
    alpha = Image.fromarray((255 * STRENGTH * np.clip(np.abs(smooth), 0, 1)).round().astype(np.uint8))
    sign = Image.fromarray(np.where(smooth > 0, np.uint8(255), np.uint8(0)))
    colour = Image.composite(Image.new("RGB", size, RED), Image.new("RGB", size, BLUE), sign)
    return np.asarray(Image.composite(colour, Image.fromarray(photo), alpha))
