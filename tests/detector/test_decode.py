"""decode_image: every kind of photo becomes the same array, and everything else its own error."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageFilter

from detector import ImageError, ImageSpec, decode_image, decode_photo
from detector.errors import CorruptImage, ImageTooSmall, UniformImage
from tests.conftest import ROOT, encode

SPEC = ImageSpec(size=64)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """A smooth 96x80 RGB picture, so that a lossy encode stays near it."""
    rng = np.random.default_rng(1)
    small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    return np.asarray(small.resize((96, 80), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(2)))


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


@pytest.mark.parametrize(
    ("format", "options", "tolerance"),
    [("PNG", {}, 0), ("JPEG", {"quality": 95}, 2), ("WEBP", {"lossless": True}, 0), ("JPEG", {"progressive": True}, 4)],
)
def test_the_three_formats_give_the_same_pixels(picture, format, options, tolerance):
    decoded = decode_image(encode(picture, format, **options), SPEC)
    assert decoded.dtype == np.uint8
    assert decoded.shape == SPEC.shape
    assert decoded.flags.c_contiguous
    assert difference(decoded, decode_image(encode(picture), SPEC)) <= tolerance


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "RGBA", "CMYK", "I;16"])
def test_every_colour_mode_becomes_rgb(picture, mode):
    image = Image.fromarray(picture)
    if mode == "I;16":
        grey = np.asarray(image.convert("L")).astype(np.uint16) * 257
        data, expected = encode(Image.fromarray(grey)), image.convert("L").convert("RGB")
    elif mode == "CMYK":
        data, expected = encode(image.convert("CMYK"), "JPEG", quality=98), image
    else:
        converted = image.convert(mode)
        data, expected = encode(converted), converted.convert("RGBA").convert("RGB")
    assert difference(decode_image(data, SPEC), decode_image(encode(expected), SPEC)) < 3


def test_transparency_is_flattened_on_white(picture):
    picture = picture.copy()
    picture[40:] = (10, 20, 30)
    upper = Image.fromarray(picture)
    upper.paste("white", (0, 40, 96, 80))
    expected = decode_image(encode(upper), SPEC)
    clear = np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])
    clear[40:, :, 3] = 0
    assert difference(decode_image(encode(clear), SPEC), expected) < 1
    assert difference(decode_image(encode(picture, transparency=(10, 20, 30)), SPEC), expected) < 1
    palette = Image.fromarray(picture).quantize(64)
    alphas = bytearray(b"\xff" * 64)
    alphas[palette.getpixel((0, 70))] = 0
    assert difference(decode_image(encode(palette, transparency=bytes(alphas)), SPEC), expected) < 8


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("resize", ["crop", "stretch"])
def test_exif_orientation_is_applied(picture, orientation, resize):
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    upright = Image.fromarray(picture)
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = upright.transpose(undo) if undo is not None else upright
    spec = ImageSpec(size=64, resize=resize)
    assert difference(decode_image(encode(turned, exif=exif.tobytes()), spec), decode_image(encode(upright), spec)) < 0.5


def test_damaged_exif_does_not_cost_the_photo(picture):
    data = encode(picture, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 30)
    assert decode_image(data, SPEC).shape == SPEC.shape


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_an_animation_gives_its_first_frame(picture, format):
    first, second = Image.fromarray(picture), Image.fromarray(255 - picture)
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(first, format, save_all=True, append_images=[second], duration=50, **options)
    assert difference(decode_image(data, SPEC), decode_image(encode(first), SPEC)) < 1


def test_crop_takes_the_centre_and_stretch_takes_all():
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:, 40:80] = 255
    assert decode_image(encode(wide), ImageSpec(size=32, resize="crop")).mean() > 250
    assert 70 < decode_image(encode(wide), ImageSpec(size=32, resize="stretch")).mean() < 100


def test_scaled_jpeg_decoding_stays_near_full_decoding(photos):
    """256 px to 64 px decodes at a quarter size in the DCT; the pixels stay those of a full decode and a resize."""
    for data in photos[:10]:
        full = Image.open(BytesIO(data)).convert("RGB")
        assert difference(decode_image(data, SPEC), decode_image(encode(full), SPEC)) < 4


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "lanczos"])
def test_each_interpolation_gives_the_asked_size(picture, name):
    assert decode_image(encode(picture), ImageSpec(size=48, interpolation=name)).shape == (48, 48, 3)


@pytest.mark.parametrize(("size", "cropped"), [((100, 100), 0), ((400, 300), 0.25), ((300, 400), 0.25), ((64, 640), 0.9)])
def test_it_is_told_how_much_of_the_photo_the_crop_left_out(size, cropped):
    photo = decode_photo(encode(Image.linear_gradient("L").resize(size), "JPEG"), SPEC)
    assert (photo.format, photo.width, photo.height, photo.orientation) == ("JPEG", *size, 1)
    assert photo.cropped == pytest.approx(cropped)
    assert decode_photo(encode(Image.linear_gradient("L").resize(size)), ImageSpec(size=64, resize="stretch")).cropped == 0


@pytest.mark.parametrize(("sides", "fine"), [((32, 32), True), ((31, 400), False), ((400, 31), False), ((1, 1), False)])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_picture_too_small_to_judge_is_refused(sides, fine, format):
    data = encode(Image.linear_gradient("L").resize(sides).convert("RGB"), format)
    if fine:
        assert decode_image(data, SPEC).shape == SPEC.shape
    else:
        with pytest.raises(ImageTooSmall, match=f"{sides[0]}x{sides[1]} pixels.*at least 32"):
            decode_image(data, SPEC)


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (9, 90, 200)])
def test_a_picture_of_one_colour_is_refused_and_its_colour_named(colour):
    with pytest.raises(UniformImage, match=re.escape(f"rgb{colour}")):
        decode_image(encode(Image.new("RGB", (40, 50), colour)), SPEC)
    nearly = Image.new("RGB", (64, 64), colour)
    nearly.putpixel((20, 63), (10, 10, 10))
    assert decode_image(encode(nearly), SPEC).shape == SPEC.shape


def test_what_is_wholly_transparent_is_white_and_so_of_one_colour(picture):
    with pytest.raises(UniformImage, match="255, 255, 255"):
        decode_image(encode(np.dstack([picture, np.zeros(picture.shape[:2], np.uint8)])), SPEC)


def png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    end = b"\0\0\0\0IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + chunk + end


def jpeg_with_sides(data: bytes, width: int, height: int) -> bytes:
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


REFUSED = {
    "nothing": (lambda jpeg, png: b"", "empty_image", 400),
    "text": (lambda jpeg, png: b"hello, this is no photo", "unsupported_format", 415),
    "html": (lambda jpeg, png: b"<!doctype html><p>hello", "unsupported_format", 415),
    "zip": (lambda jpeg, png: b"PK\x03\x04" + bytes(range(100)), "unsupported_format", 415),
    "gif": (lambda jpeg, png: encode(Image.new("P", (8, 8)), "GIF"), "unsupported_format", 415),
    "bmp": (lambda jpeg, png: encode(Image.new("RGB", (8, 8)), "BMP"), "unsupported_format", 415),
    "tiff": (lambda jpeg, png: encode(Image.new("RGB", (8, 8)), "TIFF"), "unsupported_format", 415),
    "noise": (lambda jpeg, png: bytes(range(128, 256)), "unsupported_format", 415),
    "truncated jpeg": (lambda jpeg, png: jpeg[: len(jpeg) // 2], "truncated_image", 422),
    "truncated png": (lambda jpeg, png: png[: len(png) // 2], "truncated_image", 422),
    "jpeg header alone": (lambda jpeg, png: jpeg[:30], "truncated_image", 422),
    "truncated webp": (lambda jpeg, png: encode(Image.open(BytesIO(png)), "WEBP")[:-100], "truncated_image", 422),
    "damaged webp": (lambda jpeg, png: b"RIFF\x18\0\0\0WEBPVP8 " + bytes(16), "corrupt_image", 422),
    "png with a damaged end": (lambda jpeg, png: png[:-300] + bytes(200) + png[-100:], "corrupt_image", 422),
    "png signature alone": (lambda jpeg, png: png[:8], "truncated_image", 422),
    "damaged png": (lambda jpeg, png: png[:60] + bytes(200) + png[260:], "corrupt_image", 422),
    "huge png": (lambda jpeg, png: png_header(50_000, 50_000), "image_too_large", 413),
    "large png": (lambda jpeg, png: png_header(10_001, 10_000), "image_too_large", 413),
    "huge jpeg": (lambda jpeg, png: jpeg_with_sides(jpeg, 60_000, 60_000), "image_too_large", 413),
    "huge webp": (lambda jpeg, png: b"RIFF\x0a\x10\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff" * 6, "image_too_large", 413),
    "zero-sided png": (lambda jpeg, png: png_header(0, 20), "zero_sized_image", 422),
    "zero-sided jpeg": (lambda jpeg, png: jpeg_with_sides(jpeg, 0, 20), "zero_sized_image", 422),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_photo_is_refused_with_its_own_code(picture, name):
    make, code, status = REFUSED[name]
    with pytest.raises(ImageError) as caught:
        decode_image(make(encode(picture, "JPEG"), encode(picture)), SPEC)
    assert (caught.value.code, caught.value.status) == (code, status), caught.value.message
    assert caught.value.message


def test_a_jpeg_of_more_scans_than_any_encoder_writes_is_refused_before_it_is_decoded(picture):
    """libjpeg goes over every pixel once for each scan, and a scan can be ten bytes: a megabyte took it minutes."""
    data = encode(picture, "JPEG", progressive=True)
    scan, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    scans = data.count(b"\xff\xda")
    assert decode_image(data[:end] + data[scan:end] * (50 - scans) + data[end:], SPEC).shape == SPEC.shape
    with pytest.raises(CorruptImage, match="more than 50 scans"):
        decode_image(data[:end] + data[scan:end] * (51 - scans) + data[end:], SPEC)


@pytest.mark.parametrize("part", ["fill", "comment", "chunk"])
def test_a_file_in_absurdly_many_parts_is_refused(picture, part):
    """Pillow steps over each in Python: 16 MiB of them took it seven seconds."""
    empty = struct.pack(">I4sI", 0, b"teSt", zlib.crc32(b"teSt"))
    data, start = (encode(picture), 33) if part == "chunk" else (encode(picture, "JPEG"), 2)
    parts = {"fill": b"\xff", "comment": b"\xff\xfe\0\2", "chunk": empty}[part]
    assert decode_image(data[:start] + parts * 1000 + data[start:], SPEC).shape == SPEC.shape
    with pytest.raises(CorruptImage, match="more than 100000"):
        decode_image(data[:start] + parts * 100_000 + data[start:], SPEC)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("tail", [b"\0", b"\xff\xda\0\2", b"\xff\xd8\xff"], ids=["zeros", "scans", "photos"])
def test_what_follows_a_photo_in_its_file_does_not_matter(picture, format, tail):
    """Phones append a video, and programs padding."""
    data = encode(picture, format)
    assert (decode_image(data + tail * 300_000, SPEC) == decode_image(data, SPEC)).all()


def test_a_thumbnails_scans_are_not_the_photos(picture):
    exif = b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + b"\xff\xda" * 1000
    assert decode_image(encode(picture, "JPEG", exif=exif), SPEC).shape == SPEC.shape


def test_a_photo_can_not_write_to_the_log():
    """Pillow warns of every EXIF entry that points outside, and there may be 65,535."""
    entries = b"".join(struct.pack("<HHII", tag, 7, 2**30, 8) for tag in range(700, 900))
    exif = b"II*\0\x08\0\0\0" + struct.pack("<H", 200) + entries + bytes(4)
    data = encode(Image.linear_gradient("L"), exif=exif)
    code = "import sys; from detector import *; decode_image(sys.stdin.buffer.read(), ImageSpec())"
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, cwd=ROOT, check=True)
    assert done.stderr == b""


def test_a_refusal_names_what_it_was_and_what_is_accepted():
    with pytest.raises(ImageError, match=r"a GIF; JPEG, PNG, WebP"):
        decode_image(encode(Image.new("P", (8, 8)), "GIF"), SPEC)


def test_the_pixel_bound_is_the_specs(picture):
    with pytest.raises(ImageError, match="96x80 pixels; at most 7000"):
        decode_image(encode(picture), ImageSpec(size=64, max_pixels=7_000))


def test_bytes_bytearray_and_memoryview_are_taken(picture):
    data = encode(picture)
    for kind in (bytes, bytearray, memoryview):
        assert (decode_image(kind(data), SPEC) == decode_image(data, SPEC)).all()


def test_random_damage_never_escapes_as_another_error(photos):
    """300 photos with flipped, cut or repeated bytes decode or raise an ImageError, nothing else."""
    rng = np.random.default_rng(7)
    sources = [*photos[:5], encode(Image.open(BytesIO(photos[0]))), encode(Image.open(BytesIO(photos[1])), "WEBP")]
    refused = 0
    for i in range(300):
        data = bytearray(sources[i % len(sources)])
        for at in rng.integers(0, len(data), rng.integers(1, 20)):
            data[at] = rng.integers(0, 256)
        if i % 3 == 0:
            data = data[: rng.integers(0, len(data))]
        try:
            assert decode_image(data, SPEC).shape == SPEC.shape
        except ImageError:
            refused += 1
    assert refused > 50
