"""PNG: what is beside the picture in the file never costs the picture, and what belongs to it is read strictly."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from detector.decode.bounds import MAX_PARTS, check_parts, check_sides
from detector.decode.color import MOST_PROFILE_BYTES
from detector.errors import CorruptImage, UnsupportedFormat
from detector.spec import ImageSpec

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _PALETTE = 0, 2, 3  # colour types (PNG specification, 11.2.2)
_READ = frozenset({b"tRNS", b"eXIf", b"iCCP", b"gAMA", b"sRGB"})


@dataclass(frozen=True)
class Png:
    """A PNG file as it is decoded, and what its chunks say about the picture.

    data: the file without the chunks that decoding does not need. depth: bits of a sample. profile: ICC profile. gamma: of
    gAMA, None under a profile or an sRGB chunk. key: the samples that are transparent in a grey or RGB picture.
    """

    data: bytes
    depth: int = 8
    profile: bytes | None = None
    gamma: float | None = None
    key: tuple[int, ...] | None = None


def outline(data: bytes, spec: ImageSpec) -> Png:
    """Check the header's sides and the number of chunks, and take out what the picture does not need.

    Of the ancillary chunks `_READ` are used, where their checksum is right; a damaged one, a text and an animation are
    skipped, and so nothing in them is ever inflated. Raises `ImageError`.
    """
    if data[12:16] == b"CgBI":
        raise UnsupportedFormat("this is a PNG as Apple's Xcode packs it (CgBI); standard PNG is accepted")
    if len(data) < 29:
        return Png(data)
    if data[12:16] != b"IHDR":
        raise CorruptImage("the PNG file is damaged: it does not begin with its header")
    check_sides(int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big"), spec.max_pixels)
    depth, colour = data[24], data[25]
    kept: list[tuple[int, int]] = []  # slices of `data`
    found: dict[bytes, bytes] = {}
    at, start, parts, pixels = 8, 0, 0, False
    while at + 8 <= len(data):
        name, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
        parts += 1
        check_parts(parts, MAX_PARTS, "PNG", "chunks")
        if name == b"IEND":
            kept.append((start, end))
            break
        pixels = pixels or name == b"IDAT"
        # Bit 5 of a name's first byte tells what may be ignored (PNG specification, 5.4). A name of other bytes is damage.
        if name.isalpha() and name[0] & 0x20:
            right = name in _READ and name not in found and _right(data, at, end) and (not pixels or name == b"eXIf")
            if right:
                found[name] = data[at + 8 : end - 4]
            if not (right and (name == b"eXIf" or (name == b"tRNS" and colour == _PALETTE and end - at <= 12 + 256))):
                kept.append((start, at))
                start = end
        at = end
    else:
        kept.append((start, len(data)))
    return Png(
        data if start == 0 else b"".join(data[a:b] for a, b in kept),
        depth,
        profile := _profile(found.get(b"iCCP", b"")),
        None if profile or b"sRGB" in found else _gamma(found.get(b"gAMA", b"")),
        _key(found.get(b"tRNS", b""), colour, depth),
    )


def _right(data: bytes, at: int, end: int) -> bool:
    """Whether a chunk is whole and its checksum is right."""
    return end <= len(data) and zlib.crc32(data[at + 4 : end - 4]).to_bytes(4, "big") == data[end - 4 : end]


def _profile(chunk: bytes) -> bytes | None:
    """The profile in an iCCP chunk, None where it is damaged or larger than any in use (PNG specification, 11.3.2.3)."""
    name, _, rest = chunk.partition(b"\0")
    if not rest or len(name) > 79 or rest[0] != 0:
        return None
    inflater = zlib.decompressobj()
    try:
        profile = inflater.decompress(rest[1:], MOST_PROFILE_BYTES + 1)
    except zlib.error:
        return None
    return profile if inflater.eof and len(profile) <= MOST_PROFILE_BYTES else None


def _gamma(chunk: bytes) -> float | None:
    return int.from_bytes(chunk, "big") / 100_000 if len(chunk) == 4 else None


def _key(chunk: bytes, colour: int, depth: int) -> tuple[int, ...] | None:
    """The transparent samples, of which the low `depth` bits count (PNG specification, 11.3.2.1)."""
    if (colour, len(chunk)) not in ((_GREY, 2), (_RGB, 6)):
        return None
    return tuple(int.from_bytes(chunk[i : i + 2], "big") & ((1 << depth) - 1) for i in range(0, len(chunk), 2))
