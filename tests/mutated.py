"""Photos as odd cameras, broken uploads and attackers send them: drawn from a seed, then mutated.

`python -m tests.mutated OUT.npz` decodes them all within bounded memory and writes what became of each.
"""

from __future__ import annotations

import io
import resource
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageCms

from benchmarks.photos import drawn_photos
from detector import ACCEPTED_FORMATS, ImageError, ImageSpec, decode_image

SPEC = ImageSpec()
SIDE = 7000  # of a bomb: 49 megapixels are accepted in every format
MEMORY = 1536 * 2**20  # bytes of address space for the interpreter, numpy, and one bomb of any kind
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
Rng = np.random.Generator
SIGNATURES = (
    b"\xff\xd8\xff\xe0",
    b"\x89PNG\r\n\x1a\n",
    b"RIFF\x10\x10\0\0WEBPVP8 ",
    b"GIF89a",
    b"BM",
    b"PK\x03\x04",
    b"%PDF-1.7",
)


@dataclass(frozen=True)
class Mutant:
    """One file and the kind it is of."""

    kind: str
    data: bytes


def corpus(count: int = 2000, seed: int = 0) -> list[Mutant]:
    """`count` files, the kinds in turn, the same for the same seed. The slow kinds come only every 20th time."""
    rng = np.random.default_rng(seed)
    photos = [Image.open(io.BytesIO(p.data)).convert("RGB") for p in drawn_photos(24, seed=seed)]
    made: list[Mutant] = []
    for round_ in range(count):
        for kind, make in (KINDS | SLOW if round_ % 20 == 0 else KINDS).items():
            made.append(Mutant(kind, make(rng, photos[rng.integers(len(photos))])))
            if len(made) == count:
                return made
    return made


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    """A picture's bytes in `format`."""
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def any_format(rng: Rng, photo: Image.Image) -> bytes:
    """The photo in a format and with options of chance."""
    return [
        lambda: encoded(photo, "JPEG", quality=int(rng.integers(30, 96)), progressive=bool(rng.integers(2))),
        lambda: encoded(photo.resize((96, 80)), "PNG", compress_level=int(rng.integers(0, 7))),
        lambda: encoded(photo.resize((120, 90)), "WEBP", quality=int(rng.integers(20, 90)), method=0),
        lambda: encoded(photo.resize((64, 64)), "WEBP", lossless=True, method=0),
        lambda: encoded(photo.resize((72, 64)), "AVIF" if "AVIF" in ACCEPTED_FORMATS else "PNG", quality=60, speed=10),
    ][rng.integers(5)]()


def _whole(rng: Rng, photo: Image.Image) -> bytes:
    return any_format(rng, photo)


def _other_mode(rng: Rng, photo: Image.Image) -> bytes:
    mode = ("CMYK", "L", "1", "P", "LA", "RGBA", "I;16")[rng.integers(7)]
    if mode == "I;16":
        return encoded(Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257), "PNG")
    return encoded(photo.resize((120, 160)).convert(mode), "JPEG" if mode == "CMYK" else "PNG")


def _deep_png(rng: Rng, photo: Image.Image) -> bytes:
    """Sixteen bits a channel, in colour, which Pillow reads and does not write; sometimes with alpha or a colour key."""
    colour = (2, 4, 6)[rng.integers(3)]
    channels = {2: 3, 4: 2, 6: 4}[colour]
    rows = rng.integers(0, 65536, (40, 36, channels)).astype(">u2")
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    key = chunk(b"tRNS", bytes(6)) if colour == 2 and rng.integers(2) else b""
    return png(36, 40, colour, 16, raw, before=key)


def _animated(rng: Rng, photo: Image.Image) -> bytes:
    frames = [photo.resize((64, 48)).rotate(90 * i) for i in range(3)]
    return encoded(frames[0], ("PNG", "WEBP")[rng.integers(2)], save_all=True, append_images=frames[1:], duration=40)


def _with_profile(rng: Rng, photo: Image.Image) -> bytes:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    if rng.integers(2):
        profile = bytes(_flip(rng, bytearray(profile), 20))
    return encoded(photo.resize((128, 128)), ("JPEG", "PNG", "WEBP")[rng.integers(3)], icc_profile=profile)


def _turned(rng: Rng, photo: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = int(rng.integers(0, 12))  # four of them mean nothing
    block = bytearray(exif.tobytes())
    if rng.integers(2):
        block = block[:6] + _flip(rng, block[6:], 3)
    return encoded(photo.crop((0, 0, 256, 200)), ("JPEG", "WEBP")[rng.integers(2)], exif=bytes(block))


def _odd_sides(rng: Rng, photo: Image.Image) -> bytes:
    sides = ((1, 1), (32, 3000), (3000, 40), (31, 31), (33, 4000))[rng.integers(5)]
    return encoded(photo.resize(sides), ("JPEG", "PNG", "WEBP")[rng.integers(3)])


def _truncated(rng: Rng, photo: Image.Image) -> bytes:
    data = any_format(rng, photo)
    return data[: rng.integers(1, len(data))]


def _bits_flipped(rng: Rng, photo: Image.Image) -> bytes:
    return bytes(_flip(rng, bytearray(any_format(rng, photo)), int(rng.integers(1, 65))))


def _header_damaged(rng: Rng, photo: Image.Image) -> bytes:
    data = bytearray(any_format(rng, photo))
    for at in rng.integers(2, min(len(data), 640), rng.integers(1, 12)):
        data[at] = (0, 255, 127, rng.integers(256))[rng.integers(4)]
    return bytes(data)


def _blocks_moved(rng: Rng, photo: Image.Image) -> bytes:
    data = any_format(rng, photo)
    a, b, c = sorted(int(n) for n in rng.integers(2, len(data), 3))
    return (data[:a] + data[b:], data[:b] + data[a:], data[:a] + data[b:c] + data[a:b] + data[c:])[rng.integers(3)]


def _spliced(rng: Rng, photo: Image.Image) -> bytes:
    one, other = any_format(rng, photo), any_format(rng, photo.rotate(90))
    return one[: rng.integers(1, len(one))] + other[rng.integers(0, len(other)) :]


def _wrong_magic(rng: Rng, photo: Image.Image) -> bytes:
    data, magic = any_format(rng, photo), SIGNATURES[rng.integers(len(SIGNATURES))]
    return magic + data[len(magic) :]


def _chunks_damaged(rng: Rng, photo: Image.Image) -> bytes:
    """A PNG damaged inside its chunks, their checksums made right again: the damage reaches the inflater and the filters."""
    data = bytearray(encoded(photo.resize((96, 80)), "PNG"))
    end_of_header = 29
    for at in rng.integers(16, (end_of_header, len(data) - 12)[rng.integers(2)], rng.integers(1, 4)):
        data[at] ^= 1 << rng.integers(8)
    return with_right_checksums(bytes(data))


def _huge_sides(rng: Rng, photo: Image.Image) -> bytes:
    side = int(rng.integers(50_000, 65_500))
    which = rng.integers(3)
    if which == 0:
        return png(side, side, 2, 8, bytes(100))
    if which == 1:
        data = encoded(photo, "JPEG")
        at = data.index(b"\xff\xc0")
        return data[: at + 5] + struct.pack(">HH", side, side) + data[at + 9 :]
    sides = (side - 1).to_bytes(3, "little") * 2
    body = b"WEBPVP8X" + struct.pack("<II", 10, 0) + sides + encoded(photo, "WEBP")[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _zero_sides(rng: Rng, photo: Image.Image) -> bytes:
    if rng.integers(2):
        return png(0, 20, 2, 8, b"")
    data = encoded(photo, "JPEG")
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + bytes(2) + data[at + 7 :]


def _no_photo(rng: Rng, photo: Image.Image) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("photo.jpg", encoded(photo.resize((32, 32)), "JPEG"))
    return (
        b"",
        b"\0" * int(rng.integers(1, 5000)),
        rng.bytes(int(rng.integers(1, 5000))),
        archive.getvalue(),
        b"<!DOCTYPE html><html><body><h1>413 Request Entity Too Large</h1></body></html>",
        b"data:image/png;base64,iVBORw0KGgo=",
        "Wo ist das Foto? \u2014 \u4f60\u597d".encode(),
        encoded(photo.resize((32, 32)), ("GIF", "BMP", "TIFF", "ICO")[rng.integers(4)]),
        b"\xff\xd8",
    )[rng.integers(9)]


def _scan_bomb(rng: Rng, photo: Image.Image) -> bytes:
    """A small progressive JPEG whose last scan comes thousands of times: libjpeg goes over all pixels for each."""
    data = encoded(Image.new("L", (2000, 2000), 128), "JPEG", progressive=True)
    scan, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:end] + data[scan:end] * 20_000 + data[end:]


def _segment_bomb(rng: Rng, photo: Image.Image) -> bytes:
    """A file of a million tiny parts before the picture."""
    if rng.integers(2):
        return PNG_SIGNATURE + chunk(b"teSt", b"") * 300_000 + encoded(photo, "PNG")[8:]
    data = encoded(photo, "JPEG")
    return data[:2] + (b"\xff" * 4, b"\xff\xfe\0\2", b"\xff\xd9")[rng.integers(3)] * 1_000_000 + data[2:]


def _text_bomb(rng: Rng, photo: Image.Image) -> bytes:
    """A PNG whose text or colour profile inflates to a gigabyte or so."""
    zeros = b"k\0\0" + _zeros(2**20 - 64)
    text, profile = chunk(b"zTXt", zeros) * 1000, chunk(b"iCCP", b"k\0\0" + _zeros(10**8))
    return png(36, 36, 0, 8, (b"\0" + bytes(range(36))) * 36, before=(text, profile)[rng.integers(2)])


def _exif_flood(rng: Rng, photo: Image.Image) -> bytes:
    """Thousands of EXIF entries that point nowhere."""
    entries = b"".join(struct.pack("<HHII", 700 + i, 7, 2**30, 8) for i in range(5000))
    exif = b"II*\0\x08\0\0\0" + struct.pack("<H", 5000) + entries + bytes(4)
    return encoded(photo.resize((64, 64)), "PNG", exif=exif)


def _pixel_bomb(rng: Rng, photo: Image.Image) -> bytes:
    """A few kilobytes that are 49 megapixels."""
    if rng.integers(3) == 0:
        return _BLANK_WEBP
    return blank_png(*((0, 1), (0, 16), (6, 8))[rng.integers(3)])


def chunk(name: bytes, content: bytes) -> bytes:
    """A PNG chunk with its checksum."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


@cache
def _zeros(count: int) -> bytes:
    return zlib.compress(bytes(count), 9)


def with_right_checksums(data: bytes) -> bytes:
    """A PNG whose chunks, whatever they hold, have the checksums that belong to it."""
    out, at = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if at + 12 + length > len(data):
            break
        out.append(chunk(data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return b"".join([*out, data[at:]])


def png(width: int, height: int, colour: int, depth: int, raw: bytes, *, before: bytes = b"") -> bytes:
    """A PNG of filtered rows `raw`, with the chunks `before` the picture."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return PNG_SIGNATURE + header + before + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")


@cache
def blank_png(colour: int, depth: int) -> bytes:
    """A black PNG of 49 megapixels."""
    row = 1 + SIDE * {0: 1, 2: 3, 6: 4}[colour] * depth // 8
    return png(SIDE, SIDE, colour, depth, bytes(row * SIDE))


def _flip(rng: Rng, data: bytearray, bits: int) -> bytearray:
    for at in rng.integers(0, 8 * len(data), bits):
        data[at // 8] ^= 1 << at % 8
    return data


def main(out: str) -> None:
    """Decode the corpus, and before it a photo of 49 megapixels to hold its times against.

    out: npz file to write. codes: what became of each, empty where it was decoded. seconds: of CPU time that each took.
    pixels: uint8[n, H, W, 3] of those that were decoded, in order.
    """
    mutants = [Mutant("largest", blank_png(2, 8)), *corpus()]
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, hard))
    codes, seconds, pixels = [], [], []
    for mutant in mutants:
        began, code = time.process_time(), ""
        try:
            pixels.append(decode_image(mutant.data, SPEC))
        except ImageError as error:
            code = error.code
        except Exception as error:
            code = f"{type(error).__name__}: {error}"
        codes.append(code)
        seconds.append(time.process_time() - began)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    np.savez(out, codes=codes, seconds=seconds, pixels=np.stack(pixels))


# What libwebp makes of 7000 x 7000 pixels of one colour: a prefix code of one symbol takes no bits (RFC 9649, 6.2).
_BLANK_WEBP = bytes.fromhex("5249464626000000574542505650384c190000002f57dbd516075081540820000a1a02495bbced8f8f88e87f0000")
KINDS: dict[str, Callable[[Rng, Image.Image], bytes]] = {
    "whole": _whole,
    "another mode": _other_mode,
    "16 bits a channel": _deep_png,
    "animated": _animated,
    "with a profile": _with_profile,
    "turned by EXIF": _turned,
    "odd sides": _odd_sides,
    "truncated": _truncated,
    "bits flipped": _bits_flipped,
    "header damaged": _header_damaged,
    "blocks moved": _blocks_moved,
    "two spliced": _spliced,
    "wrong magic": _wrong_magic,
    "chunks damaged": _chunks_damaged,
    "50,000 px header": _huge_sides,
    "zero sides": _zero_sides,
    "no photo": _no_photo,
}
SLOW: dict[str, Callable[[Rng, Image.Image], bytes]] = {
    "scan bomb": _scan_bomb,
    "segment bomb": _segment_bomb,
    "text bomb": _text_bomb,
    "EXIF flood": _exif_flood,
    "pixel bomb": _pixel_bomb,
}

if __name__ == "__main__":
    main(sys.argv[1])
