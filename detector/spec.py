"""The image spec: how a photo becomes the array that a model takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from detector.errors import FileError

RESIZE_RULES = ("crop", "stretch")
INTERPOLATIONS = ("bilinear", "bicubic", "lanczos")
COLORS = ("srgb", "stored")
PIXEL_BOUNDS = ("max_pixels", "max_jpeg_pixels")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ImageSpec:
    """How photos are resized and normalised, the same in training and in serving.

    size: height and width in pixels of the square that the model sees.
    resize: `crop` takes the largest centred square and scales it; `stretch` scales both sides on their own.
    interpolation: antialiased filter, one of `bilinear`, `bicubic`, `lanczos`.
    mean, std: per RGB channel on a 0–1 scale, applied inside the graph; the defaults are ImageNet's
        (He et al., arXiv 1512.03385, as used by torchvision and timm).
    color: `srgb` converts what an embedded colour profile describes to sRGB; `stored` takes the numbers in the file as they
        are, as every model did before there was a choice.
    max_pixels: width x height above which a photo is refused by its header; WebP, AVIF and HEIC count double, since they take
        twice the memory. max_jpeg_pixels: the same for a JPEG, which is decoded at a fraction of its size.

    Raises `FileError` for values that can't be used.
    """

    size: int = 128
    resize: str = "crop"
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    color: str = "srgb"
    max_pixels: int = 100_000_000
    max_jpeg_pixels: int = 200_000_000

    def __post_init__(self) -> None:
        problems = []
        if not isinstance(self.size, int) or not 16 <= self.size <= 2048:
            problems.append(f"size must be a whole number from 16 to 2048, not {self.size!r}")
        if self.resize not in RESIZE_RULES:
            problems.append(f"resize must be one of {', '.join(RESIZE_RULES)}, not {self.resize!r}")
        if self.interpolation not in INTERPOLATIONS:
            problems.append(f"interpolation must be one of {', '.join(INTERPOLATIONS)}, not {self.interpolation!r}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            problems.append("mean and std need three numbers each, std above zero")
        if self.color not in COLORS:
            problems.append(f"color must be one of {', '.join(COLORS)}, not {self.color!r}")
        for name in PIXEL_BOUNDS:
            if not isinstance(bound := getattr(self, name), int) or bound < 1:
                problems.append(f"{name} must be a whole number above zero, not {bound!r}")
        if problems:
            raise FileError("image spec: " + "; ".join(problems))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the decoded array: (height, width, 3)."""
        return (self.size, self.size, 3)

    def bounded(self, *, max_pixels: int = 0, max_jpeg_pixels: int = 0) -> ImageSpec:
        """The same with other bounds on pixels, where they are not 0: what a photo becomes does not depend on them."""
        return replace(self, max_pixels=max_pixels or self.max_pixels, max_jpeg_pixels=max_jpeg_pixels or self.max_jpeg_pixels)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON and for checkpoints."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ImageSpec:
        """Inverse of `to_dict`. Raises `FileError` for an unknown key, which would change pixels silently.

        Without `color` it is `stored`: the dictionary is of a model that was trained before there was a choice, and so are the
        bounds on pixels, which no choice had set.
        """
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise FileError(f"image spec: unknown keys {', '.join(unknown)}")
        plain: dict[str, Any] = {"color": "stored", **values}
        if "color" not in values:
            plain.pop("max_pixels", None)
        for key in plain.keys() & {"mean", "std"}:
            plain[key] = tuple(float(v) for v in plain[key])
        return cls(**plain)
