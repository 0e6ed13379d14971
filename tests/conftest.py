"""What tests share: real photos when they lie beside the checkout, drawn ones otherwise, and artifacts made once a run."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real photos beside the checkout; a test that needs it is skipped without."""
    directory = ROOT.parent / "shared"
    if not (directory / "data").is_dir():
        pytest.skip("no real photos beside this checkout (../shared/data)")
    return directory


@pytest.fixture(scope="session")
def photo_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Fifty photos: real ones where there are any, smooth random pictures as JPEG otherwise."""
    faces = ROOT.parent / "shared" / "data" / "faces" / "Validation"
    if faces.is_dir():
        return [p for label in ("Fake", "Real") for p in sorted((faces / label).iterdir())[:25]]
    directory = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(50):
        picture = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize((256, 256))
        picture.filter(ImageFilter.GaussianBlur(i % 5)).save(directory / f"{i:02d}.jpg", quality=80 + i % 16)
    return sorted(directory.iterdir())


@pytest.fixture(scope="session")
def photos(photo_files: list[Path]) -> list[bytes]:
    """The fifty photos' bytes."""
    return [p.read_bytes() for p in photo_files]


def encode(pixels: np.ndarray | Image.Image, format: str = "PNG", **options: object) -> bytes:
    """A picture's bytes in `format`."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    out = BytesIO()
    image.save(out, format, **options)
    return out.getvalue()
