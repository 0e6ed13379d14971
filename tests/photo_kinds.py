"""Photos as phones, browsers and editors write them: each kind made from a picture, beside what libvips makes of it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from tests.conftest import encode
from tests.mutated import chunk, png

# Primaries and white of each space as XYZ under D50, which ICC profiles are written in, and its gamma.
SPACES = {
    "Display P3": (((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)), 2.2),
    "Adobe RGB": (((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)), 2.19921875),
    "ProPhoto": (((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491)), 1.8),
    "sRGB": (((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)), None),
}


def icc(space: str) -> bytes:
    """A matrix profile of one of `SPACES`, or `grey` of gamma 1.8, or `inks` with a table (ICC.1:2010, version 2)."""
    tags = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78), b"cprt": b"text\0\0\0\0none\0"}
    tags[b"wtpt"] = _xyz((0.9642, 1.0, 0.8249))
    if space == "grey":
        return _profile(b"mntr", b"GRAY", b"XYZ ", tags | {b"kTRC": _curve(1.8)})
    if space == "inks":
        return _profile(b"prtr", b"CMYK", b"Lab ", tags | {b"A2B0": _inks(), b"A2B1": _inks()})
    primaries, gamma = SPACES[space]
    for name, primary in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True):
        tags[name] = _xyz(primary)
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(gamma)))


def _xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in values)


def _curve(gamma: float | None) -> bytes:
    if gamma is not None:
        return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    steps = np.linspace(0, 1, 1024)
    light = np.where(steps <= 0.04045, steps / 12.92, ((steps + 0.055) / 1.055) ** 2.4)
    return b"curv\0\0\0\0" + struct.pack(">I", 1024) + np.rint(light * 65535).astype(">u2").tobytes()


def _inks() -> bytes:
    """A table from four inks to Lab, in 8 bits: each ink takes light away, and the paper is a little yellow."""
    corners = np.stack(np.meshgrid(*[(0, 1)] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    cyan, magenta, yellow, black = corners.T
    light = 96 * (1 - 0.35 * cyan) * (1 - 0.45 * magenta) * (1 - 0.1 * yellow) * (1 - 0.85 * black)
    lab = np.stack(
        [light * 255 / 100, 128 + (60 * magenta - 35 * cyan) * (1 - black), 132 + (70 * yellow - 45 * cyan) * (1 - black)]
    )
    tables = bytes(range(256))
    head = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0])
    matrix = b"".join(struct.pack(">i", v << 16) for v in (1, 0, 0, 0, 1, 0, 0, 0, 1))
    return head + matrix + tables * 4 + np.rint(lab.T).astype(np.uint8).tobytes() + tables * 3


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    table, body, at = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", at + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = bytes(8) + b"\x02\x10\0\0" + kind + space + connection + bytes(12) + b"acsp" + bytes(28)
    head += struct.pack(">iii", round(0.9642 * 65536), 65536, round(0.8249 * 65536))
    rest = head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body
    return struct.pack(">I", len(rest)) + rest[4:]


def turned(photo: Image.Image, orientation: int, format: str = "JPEG", **options: Any) -> bytes:
    """The photo with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(photo, format, exif=exif.tobytes(), **options)


def with_chunks(data: bytes, *chunks: bytes) -> bytes:
    """A PNG with further chunks before its pixels."""
    return data[:33] + b"".join(chunks) + data[33:]


def deep(photo: Image.Image, colour: int, *chunks: bytes) -> bytes:
    """A PNG of sixteen bits a sample, of colour type 0 (grey), 2 (RGB) or 6 (RGB with alpha)."""
    mode = {0: "L", 2: "RGB", 6: "RGBA"}[colour]
    samples = np.asarray(photo.convert(mode)).astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    return png(photo.width, photo.height, colour, 16, rows, before=b"".join(chunks))


def with_alpha(photo: Image.Image) -> Image.Image:
    """The photo behind a gradient of alpha."""
    found = photo.convert("RGBA")
    found.putalpha(Image.linear_gradient("L").resize(photo.size))
    return found


def without_end(data: bytes) -> bytes:
    """A JPEG without its last marker."""
    assert data.endswith(b"\xff\xd9")
    return data[:-2]


BAD_TEXT = chunk(b"tEXt", b"Comment\0hello")[:-1] + b"\0"
BIG_TEXT = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(8 * 2**20)))
BIG_PROFILE = chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(8 * 2**20)))
# All but `PNG of gamma 1`, which browsers convert and libvips does not.
KINDS: dict[str, Callable[[Image.Image], bytes]] = {
    "JPEG": lambda p: encode(p, "JPEG", quality=90),
    "JPEG 4:4:4": lambda p: encode(p, "JPEG", quality=90, subsampling=0),
    "progressive JPEG": lambda p: encode(p, "JPEG", quality=90, progressive=True),
    "JPEG without its end": lambda p: without_end(encode(p, "JPEG", quality=90)),
    "grey JPEG": lambda p: encode(p.convert("L"), "JPEG", quality=90),
    "JPEG turned by EXIF": lambda p: turned(p, 6, quality=90),
    "JPEG in Display P3": lambda p: encode(p, "JPEG", quality=90, icc_profile=icc("Display P3")),
    "JPEG in Adobe RGB": lambda p: encode(p, "JPEG", quality=90, icc_profile=icc("Adobe RGB")),
    "JPEG in inks": lambda p: encode(p.convert("CMYK"), "JPEG", quality=90, icc_profile=icc("inks")),
    "grey JPEG with a profile": lambda p: encode(p.convert("L"), "JPEG", quality=90, icc_profile=icc("grey")),
    "JPEG with a damaged profile": lambda p: encode(p, "JPEG", quality=90, icc_profile=b"damaged" * 30),
    "PNG": encode,
    "PNG in Display P3": lambda p: encode(p, icc_profile=icc("Display P3")),
    "PNG in ProPhoto": lambda p: encode(p, icc_profile=icc("ProPhoto")),
    "PNG with alpha": lambda p: encode(with_alpha(p)),
    "PNG with alpha in Display P3": lambda p: encode(with_alpha(p), icc_profile=icc("Display P3")),
    "PNG with a damaged text": lambda p: with_chunks(encode(p), BAD_TEXT),
    "PNG with a large text": lambda p: with_chunks(encode(p), BIG_TEXT),
    "PNG with a large profile": lambda p: with_chunks(encode(p), BIG_PROFILE),
    "palette PNG": lambda p: encode(p.quantize(64)),
    "PNG of 16 bits": lambda p: deep(p, 2),
    "grey PNG of 16 bits": lambda p: deep(p, 0),
    "WebP": lambda p: encode(p, "WEBP", quality=90),
    "lossless WebP in Display P3": lambda p: encode(p, "WEBP", lossless=True, icc_profile=icc("Display P3")),
    "AVIF": lambda p: encode(p, "AVIF", quality=85, speed=10),
    "AVIF in Display P3": lambda p: encode(p, "AVIF", quality=85, speed=10, icc_profile=icc("Display P3")),
}


def by_libvips(data: bytes, size: int) -> Image.Image:
    """What libvips makes of a photo: upright, in sRGB, on white.

    A JPEG is decoded at a fraction of its size, as libvips does for a thumbnail, never under `size` pixels; others are whole.
    """
    import pyvips

    image = pyvips.Image.new_from_buffer(data, "")
    fraction = next((n for n in (8, 4, 2) if min(image.width, image.height) >= n * size), 1)
    if image.get("vips-loader").startswith("jpeg"):
        image = pyvips.Image.new_from_buffer(data, "", shrink=fraction)
    image = image.autorot()
    if image.get_typeof("icc-profile-data"):
        image = image.icc_transform("srgb", embedded=True, intent="relative")
    if image.interpretation != "srgb":
        image = image.colourspace("srgb")
    if image.hasalpha():
        image = image.flatten(background=255)
    return Image.fromarray(image.cast("uchar").numpy()).convert("RGB")
