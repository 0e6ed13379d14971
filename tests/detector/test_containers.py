"""AVIF and HEIC: read, bounded by what their codecs' headers say, and harmless when they are damaged."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from benchmarks.photos import drawn_photos
from detector import ImageError, ImageSpec, decode_image, decode_photo
from detector.decode import ACCEPTED_FORMATS, boxes, opening
from detector.errors import ImageTooLarge, TruncatedImage, UnsupportedFormat
from tests.conftest import encode

SPEC = ImageSpec(size=64)
SMALL = ImageSpec(size=64, max_pixels=60_000)  # of which these formats may use half


def avif(picture: Image.Image, **options: object) -> bytes:
    if "AVIF" not in ACCEPTED_FORMATS:
        pytest.skip("this Pillow has no AVIF")
    return encode(picture, "AVIF", **{"quality": 80, "speed": 10} | options)


def heic(picture: Image.Image, **options: object) -> bytes:
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    out = BytesIO()
    heif.from_pillow(picture).save(out, quality=80, **options)
    return out.getvalue()


Make = Callable[..., bytes]


@pytest.fixture(params=[avif, heic], ids=["avif", "heic"])
def make(request) -> Make:
    return request.param


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.open(BytesIO(drawn_photos(1, seed=5)[0].data)).convert("RGB").resize((200, 192))


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_a_picture_is_read(make, picture, mode):
    photo = decode_photo(make(picture.convert(mode)), SPEC)
    assert photo.format == {avif: "AVIF", heic: "HEIF"}[make]
    assert (photo.width, photo.height) == picture.size
    assert difference(photo.pixels, decode_image(encode(picture.convert(mode)), SPEC)) < 3


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_turned_picture_stands_upright(make, picture, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270, 8: Image.Transpose.ROTATE_90}[orientation]
    found = decode_image(make(picture, exif=exif.tobytes()), SPEC)
    assert difference(found, decode_image(encode(picture.transpose(turned)), SPEC)) < 3


def sizes_replaced(data: bytes, width: int, height: int) -> bytes:
    found, at = bytearray(data), 0
    while (at := data.find(b"ispe", at + 1)) > 0:
        found[at + 8 : at + 16] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return bytes(found)


def test_a_picture_is_bounded_by_what_its_file_says(make, picture):
    with pytest.raises(ImageTooLarge, match="60000x60000 pixels; at most 50000000"):
        decode_image(sizes_replaced(make(picture), 60_000, 60_000), SPEC)


def test_a_picture_is_bounded_by_what_its_codec_says(make, picture):
    """Decoders allocate for the codec's header, whatever the file says of the size."""
    with pytest.raises(ImageTooLarge, match="200x192 pixels; at most 30000"):
        decode_image(sizes_replaced(make(picture), 40, 40), SMALL)


@pytest.mark.parametrize("size", [(64, 64), (200, 33), (1027, 40)])
def test_the_codecs_header_is_read_as_it_is_written(size):
    sides: list[tuple[int, int]] = []
    picture = Image.linear_gradient("L").resize(size).convert("RGB")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boxes, "_check", lambda width, height, spec: sides.append((width, height)))
        boxes.check_outline(avif(picture), SPEC)
    assert len(sides) >= 2
    assert set(sides) == {size}


def test_of_a_sequence_the_still_picture_is_taken(picture):
    data = avif(picture, save_all=True, append_images=[picture.transpose(Image.Transpose.ROTATE_180)] * 2, duration=50)
    assert data[8:12] == b"avis"
    assert difference(decode_image(data, SPEC), decode_image(encode(picture), SPEC)) < 3


def test_a_sequence_alone_is_refused_by_its_name(picture):
    with pytest.raises(UnsupportedFormat, match="a sequence of images without a still one"):
        decode_image(avif(picture).replace(b"meta", b"free", 1), SPEC)


def test_without_its_reader_a_heic_is_refused_by_its_name_with_the_remedy(monkeypatch):
    monkeypatch.setattr(opening, "_heif_reader", lambda: None)
    for brands in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1\0\0\0\0heic"):
        data = (16 + len(brands)).to_bytes(4, "big") + b"ftyp" + brands[:4] + bytes(4) + brands[4:].lstrip(b"\0")
        with pytest.raises(UnsupportedFormat, match=r"this is a HEIC; JPEG.*pillow-heif"):
            decode_image(data + bytes(100), SPEC)


def test_a_truncated_picture_is_refused(make, picture):
    data = make(picture)
    for at in (len(data) - 1, len(data) - 200, len(data) // 2):
        with pytest.raises(ImageError) as caught:
            decode_image(data[:at], SPEC)
        assert isinstance(caught.value, TruncatedImage), (at, caught.value.message)


def test_a_damaged_picture_is_decoded_or_refused_and_nothing_else(make, picture):
    data, rng, refused = make(picture), np.random.default_rng(2), 0
    head = data.index(b"mdat")
    for n in range(150):
        changed = bytearray(data)
        for at in rng.integers(4, head if n % 2 else len(data), rng.integers(1, 9)):
            changed[at] = (0, 255, 127, rng.integers(256))[rng.integers(4)]
        try:
            assert (
                decode_image(bytes(changed[: len(data) if n % 5 else rng.integers(8, len(data))]), SMALL).shape == SPEC.shape
            )
        except ImageError:
            refused += 1
    assert refused > 60
