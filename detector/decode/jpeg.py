"""JPEG: the frame and the scans of a file, what decoding it costs, and whether a file without an end is whole."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageChops, JpegImagePlugin

from detector.decode.bounds import MAX_PARTS, check_parts, check_sides
from detector.errors import ImageTooLarge, UnsupportedFormat
from detector.spec import ImageSpec

SIGNATURE = b"\xff\xd8"
ACCEPTED = "JPEG with 8 bits a sample in 1, 3 or 4 components, baseline or progressive, is accepted"
# libjpeg passes over the whole picture once for each scan, and a scan may be ten bytes: a megabyte of scans takes minutes.
# Encoders write about ten; the progressive mode can use fewer than thirty in four components.
MAX_SCANS = 50
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # neither a stuffed byte, nor a restart, nor fill (T.81 B.1.1)
_SOI, _EOI, _SOS, _TEM, _JPEG_LS = 0xD8, 0xD9, 0xDA, 0x01, 0xF7
_FRAMES = (frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}) | {_JPEG_LS}
_PROGRESSIVE, _ARITHMETIC = frozenset({0xC2, 0xCA}), frozenset({0xC9, 0xCA})
_LOSSLESS, _HIERARCHICAL = frozenset({0xC3, 0xC7, 0xCB, 0xCF}), frozenset({0xC5, 0xC6, 0xCD, 0xCE})
_PADDING = 16  # zeros at the end of a file: more of them than a scan ends in
_ALL = 2**64 - 1  # coefficients
_CHECKED_PIXELS = 25_000_000  # decoded twice to see whether a file without an end is whole


@dataclass
class Jpeg:
    """What the markers of a file say. process: its frame's marker. sampling: each component's factors, across and down.

    missing: for each component, by its number in the frame, a bit for each of the 64 coefficients whose last bit no scan has.
    interleaved: whether the first scan has every component. ended: whether the end of the image is marked.
    """

    process: int = 0
    precision: int = 0
    width: int = 0
    height: int = 0
    sampling: dict[int, tuple[int, int]] = field(default_factory=dict)
    missing: dict[int, int] = field(default_factory=dict)
    interleaved: bool = True
    scans: int = 0
    ended: bool = False

    @property
    def arithmetic(self) -> bool:
        """Whether it is coded arithmetically, which few decoders read."""
        return self.process in _ARITHMETIC


def outline(data: bytes, spec: ImageSpec) -> Jpeg:
    """Check the frame, the segments and bytes before the first scan, the scans, and the cost (ITU-T T.81 B.2).

    Raises `ImageError`; a damaged or truncated file may pass, since the decoder's errors describe it better.
    """
    jpeg, at, parts = Jpeg(), 2, 0
    while marker := _MARKER.search(data, at):
        kind, gap, at = data[marker.end() - 1], marker.start() - at, marker.end()
        if jpeg.scans and kind == _EOI:
            jpeg.ended = True
            break
        if not jpeg.scans:
            parts += gap + 1
            check_parts(parts, MAX_PARTS, "JPEG", "segments")
        if kind in (_SOI, _EOI, _TEM):  # markers without a segment
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        if kind in _FRAMES and not jpeg.scans:
            _frame(jpeg, kind, data[at + 2 : at + length], spec)
        if kind == _SOS:
            jpeg.scans += 1
            check_parts(jpeg.scans, MAX_SCANS, "JPEG", "scans")
            _scan(jpeg, data[at + 2 : at + length])
        at += max(2, length)
    if not jpeg.scans:
        check_parts(parts + len(data) - at, MAX_PARTS, "JPEG", "segments")
    if jpeg.sampling:
        _check_cost(jpeg, spec)
    return jpeg


def _frame(jpeg: Jpeg, kind: int, segment: bytes, spec: ImageSpec) -> None:
    """Take over the frame header. Raises `UnsupportedFormat`, naming it, for a kind that is not read."""
    if len(segment) < 6:
        return
    precision, height, width, components = struct.unpack_from(">BHHB", segment)
    name = ""
    if kind == _JPEG_LS:
        name = "a JPEG-LS"
    elif kind in _LOSSLESS:
        name = "a lossless JPEG"
    elif kind in _HIERARCHICAL:
        name = "a hierarchical JPEG"
    elif precision != 8:
        name = f"a {precision}-bit JPEG"
    elif components not in (1, 3, 4):
        name = f"a JPEG of {components} components"
    if name:
        raise UnsupportedFormat(f"this is {name}; {ACCEPTED}")
    check_sides(width, height, spec.max_jpeg_pixels)
    jpeg.process, jpeg.precision, jpeg.width, jpeg.height = kind, precision, width, height
    jpeg.sampling = {segment[i]: (segment[i + 1] >> 4, segment[i + 1] & 15) for i in range(6, len(segment) - 2, 3)}
    jpeg.missing = dict.fromkeys(jpeg.sampling, _ALL)


def _scan(jpeg: Jpeg, segment: bytes) -> None:
    """Take over a scan header: which coefficients of which components it makes complete."""
    count = segment[0] if segment else 0
    if len(segment) < 4 + 2 * count:
        return
    first, last, bits = segment[1 + 2 * count : 4 + 2 * count]
    components = segment[1 : 1 + 2 * count : 2]
    jpeg.interleaved = jpeg.interleaved and (jpeg.scans > 1 or count == len(jpeg.sampling))
    if jpeg.process not in _PROGRESSIVE:
        first, last, bits = 0, 63, 0
    if bits & 15 == 0:
        for component in components:
            jpeg.missing[component] = jpeg.missing.get(component, 0) & ~((2 << last) - (1 << first))


def _check_cost(jpeg: Jpeg, spec: ImageSpec) -> None:
    """Check what decoding holds in memory, against what the largest photo of other formats takes. Raises `ImageTooLarge`."""
    scale = min(jpeg.width, jpeg.height) // spec.size
    scale = next((s for s in (8, 4, 2) if scale >= s), 1)
    width, height = -(-jpeg.width // scale), -(-jpeg.height // scale)
    if width * height > spec.max_pixels:
        raise ImageTooLarge(
            f"the image has {jpeg.width}x{jpeg.height} pixels, and {width}x{height} as it is decoded; "
            f"at most {spec.max_pixels} (width x height) are accepted"
        )
    if jpeg.process not in _PROGRESSIVE and jpeg.interleaved:
        return
    # libjpeg keeps every coefficient, two bytes each, until the last scan; scaled decoding does not help.
    across, down = (max(1, *factors, 1) for factors in zip(*jpeg.sampling.values(), strict=True))
    share = sum(a * d for a, d in jpeg.sampling.values()) / (across * down)
    held = int(2 * share * jpeg.width * jpeg.height)
    if held > 4 * spec.max_pixels:
        raise ImageTooLarge(
            f"the image has {jpeg.width}x{jpeg.height} pixels in a progressive JPEG, whose decoder keeps {held / 1e6:.0f} MB; "
            f"at most {int(2 * spec.max_pixels / share)} pixels of this kind are accepted; save it as a baseline JPEG"
        )


def completed(data: bytes, jpeg: Jpeg) -> bytes | None:
    """A file without an end of image, with one; None where the picture itself is not whole.

    The picture is whole when no bit of it comes from beyond the end of the file: it then decodes to the same pixels whatever
    follows. Zeros that pad the file do not count as a part of it.
    """
    if not jpeg.scans or any(jpeg.missing.values()):
        return None
    end = len(data.rstrip(b"\0"))
    if len(data) - end < _PADDING:
        end = len(data)
    body = data[:end]
    # A last 0xFF is half of the lost marker; before a zero it is data, of which the zero is a part.
    body = body + b"\0" if body.endswith(b"\xff") and data[end : end + 1] == b"\0" else body.rstrip(b"\xff")
    finished = body + b"\xff\xd9"
    try:
        one, other = _decoded(finished, jpeg), _decoded(body + _noise() + b"\xff\xd9", jpeg)
    except MemoryError:
        raise
    except Exception:  # the picture is damaged besides: its decoder says so when it is decoded
        return None
    return finished if ImageChops.difference(one, other).getbbox() is None else None


def _decoded(data: bytes, jpeg: Jpeg) -> Image.Image:
    image = JpegImagePlugin.JpegImageFile(BytesIO(data))
    scale = next(s for s in (1, 2, 4, 8) if jpeg.width * jpeg.height <= _CHECKED_PIXELS * s * s or s == 8)
    image.draft("RGB", (jpeg.width // scale, jpeg.height // scale))
    image.load()
    return image


@cache
def _noise() -> bytes:
    """Bytes that are no marker and decode to anything but what zeros do."""
    return np.random.default_rng(0).integers(0, 255, 2**16, dtype=np.uint8).tobytes()
