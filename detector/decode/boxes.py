"""AVIF and HEIC: the boxes of a file, and the sizes that its decoder would allocate for, before it allocates.

A picture in these formats is coded as a video's first frame is, in one piece or in tiles, each an item of the file. What
the file says of an item's size (`ispe`) and what its codec's header says may differ, and decoders believe the codec.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from detector.decode.bounds import DOUBLE, check_parts
from detector.errors import CorruptImage, ImageTooLarge, UnsupportedFormat
from detector.spec import ImageSpec

# A 100-megapixel photo in the tiles that phones write has 400 items.
MAX_ITEMS = 4096
MAX_BOXES = 20_000
_MAX_UNITS = 1000  # of a codec, in one item
AVIF_BRANDS = frozenset({b"avif", b"avis"})
HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_CONTAINERS = frozenset({b"mif1", b"mif2", b"msf1", b"miaf"})


def brand_of(data: bytes) -> str:
    """`AVIF` or `HEIC` by the brands of an ISO media file, empty for another (ISO/IEC 23008-12, 10.2)."""
    if data[4:8] != b"ftyp":
        return ""
    others = {data[at : at + 4] for at in range(16, min(int.from_bytes(data[:4], "big"), 256), 4)}
    brands = {data[8:12]} | (others if data[8:12] in _CONTAINERS else set())
    return "AVIF" if brands & AVIF_BRANDS else "HEIC" if brands & HEIC_BRANDS else ""


@dataclass
class _Items:
    """types, places: of each item, by its number; a place is a slice of the file. sizes: of all `ispe` properties."""

    types: dict[int, bytes] = field(default_factory=dict)
    places: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    settings: list[bytes] = field(default_factory=list)  # of HEVC: hvcC


def check_outline(data: bytes, spec: ImageSpec) -> None:
    """Check how many items a file has and the sizes in it, those in its codec's headers too. Raises `ImageError`."""
    try:
        for width, height in _sizes(data, _items(data)):
            _check(width, height, spec)
    except IndexError:
        raise CorruptImage("the file's boxes are damaged") from None


def _sizes(data: bytes, items: _Items) -> Iterator[tuple[int, int]]:
    """What the file says of its items' sizes, and what their codec's headers say, which decoders believe."""
    yield from items.sizes
    readers = {b"av01": _av1_sizes, b"hvc1": _hevc_sizes}
    for number, kind in items.types.items():
        if kind in readers:
            yield from readers[kind](_content(data, items.places.get(number, [])))
    for setting in items.settings:
        yield from _hevc_settings_sizes(setting)


def is_whole(data: bytes) -> bool:
    """Whether no box of the file goes beyond its end."""
    at = 0
    while 0 <= at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        size = int.from_bytes(data[at + 8 : at + 16], "big") if size == 1 else size or len(data) - at
        if size < 8:
            return True  # damage of another kind
        at += size
    return at == len(data)


def still(data: bytes) -> bytes:
    """An AVIF whose still picture is decoded, not the frames of the sequence that it may hold besides."""
    return data[:8] + b"avif" + data[12:]


def _check(width: int, height: int, spec: ImageSpec) -> None:
    most = spec.max_pixels // DOUBLE
    if width * height > most:
        raise ImageTooLarge(f"the image has a part of {width}x{height} pixels; at most {most} (width x height) are accepted")


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Type, begin and end of the content of each box (ISO/IEC 14496-12, 4.2)."""
    count = 0
    while start + 8 <= end:
        count += 1
        check_parts(count, MAX_BOXES, "image", "boxes")
        size, kind, head = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        stop = end if size == 0 else min(start + size, end)
        if stop < start + head:
            return
        yield kind, start + head, stop
        start = stop


def _items(data: bytes) -> _Items:
    meta = next(((a, b) for kind, a, b in _boxes(data, 0, len(data)) if kind == b"meta"), None)
    if meta is None:
        raise UnsupportedFormat("this is a sequence of images without a still one; send a single picture")
    items, inside = _Items(), {kind: (a, b) for kind, a, b in _boxes(data, meta[0] + 4, meta[1])}
    for kind, a, b in _boxes(data, *inside.get(b"iprp", (0, 0))):
        for name, start, stop in _boxes(data, a, b) if kind == b"ipco" else ():
            if name == b"ispe":
                items.sizes.append((_number(data, start + 4, 4), _number(data, start + 8, 4)))
            elif name == b"hvcC":
                items.settings.append(data[start:stop])
    if b"iinf" in inside:
        a, b = inside[b"iinf"]
        for name, start, _ in _boxes(data, a + (6 if data[a] == 0 else 8), b):
            if name == b"infe" and data[start] in (2, 3):
                wide = 2 if data[start] == 2 else 4
                items.types[_number(data, start + 4, wide)] = data[start + 6 + wide : start + 10 + wide]
    check_parts(len(items.types), MAX_ITEMS, "image", "items")
    if b"iloc" in inside:
        _locate(data, *inside[b"iloc"], inside.get(b"idat", (0, 0)), items)
    return items


def _locate(data: bytes, at: int, end: int, idat: tuple[int, int], items: _Items) -> None:
    """Where the items lie in the file (ISO/IEC 14496-12, 8.11.3)."""
    version, sizes = data[at], _number(data, at + 4, 2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    wide = 2 if version < 2 else 4
    count, at = _number(data, at + 6, wide), at + 6 + wide
    extents_in_all = 0
    for _ in range(count):
        if at >= end:
            return
        number, at, method = _number(data, at, wide), at + wide, 0
        if version:
            method, at = _number(data, at, 2) & 15, at + 2
        base, extents = _number(data, at + 2, base_size), _number(data, at + 2 + base_size, 2)
        at += 4 + base_size
        extents_in_all += extents
        check_parts(extents_in_all, MAX_BOXES, "image", "extents")
        for _ in range(extents):
            at += index_size if version else 0
            offset = base + _number(data, at, offset_size) + (idat[0] if method == 1 else 0)
            length = _number(data, at + offset_size, length_size) or len(data)
            items.places.setdefault(number, []).append((offset, min(offset + length, len(data))))
            at += offset_size + length_size


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")


def _content(data: bytes, places: list[tuple[int, int]]) -> bytes:
    """An item's bytes. Raises `CorruptImage` where they are more than the file has."""
    if sum(b - a for a, b in places) > len(data):
        raise CorruptImage("the file's items overlap")
    return data[slice(*places[0])] if len(places) == 1 else b"".join(data[a:b] for a, b in places)


class _Bits:
    """Bits from the highest on. Raises `IndexError` beyond the end."""

    def __init__(self, data: bytes) -> None:
        self._left, self._value = 8 * len(data), int.from_bytes(data, "big")

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise IndexError
        return self._value >> self._left & ((1 << count) - 1)

    def golomb(self) -> int:
        """An unsigned number in the exponential Golomb code, which AV1 and HEVC both use."""
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > 32:
                raise IndexError
        return (1 << zeros) - 1 + self.take(zeros)


def _av1_sizes(item: bytes) -> Iterator[tuple[int, int]]:
    """The largest frames that the sequence headers of an item announce (AV1 specification, 5.3 to 5.5)."""
    at, units = 0, 0
    while at < len(item):
        units += 1
        check_parts(units, _MAX_UNITS, "image", "units")
        head = item[at]
        at += 2 if head & 4 else 1
        size = len(item) - at
        if head & 2:
            size, shift = 0, 0
            while True:
                byte = item[at]
                at, size, shift = at + 1, size | (byte & 127) << shift, shift + 7
                if byte < 128 or shift > 35:
                    break
        if head >> 3 & 15 == 1:
            yield _av1_sequence(_Bits(item[at : at + min(size, 512)]))
        at += size


def _av1_sequence(bits: _Bits) -> tuple[int, int]:
    bits.take(4)  # profile, still picture
    if bits.take(1):  # reduced header
        bits.take(5)
    else:
        delay = _av1_timing(bits)
        display_delay = bits.take(1)
        for _ in range(bits.take(5) + 1):
            bits.take(12)
            if bits.take(5) > 7:
                bits.take(1)
            if delay and bits.take(1):
                bits.take(2 * delay + 1)
            if display_delay and bits.take(1):
                bits.take(4)
    across, down = bits.take(4) + 1, bits.take(4) + 1
    return bits.take(across) + 1, bits.take(down) + 1


def _av1_timing(bits: _Bits) -> int:
    """Skip the timing information; bits of a buffer delay, 0 without a decoder model."""
    if not bits.take(1):
        return 0
    bits.take(64)
    if bits.take(1):
        bits.golomb()
    if not bits.take(1):
        return 0
    delay = bits.take(5) + 1
    bits.take(42)
    return delay


def _hevc_settings_sizes(setting: bytes) -> Iterator[tuple[int, int]]:
    """Sizes in the parameter sets of hvcC (ISO/IEC 14496-15, 8.3.3.1)."""
    at = 23
    for _ in range(setting[22]):
        count, at = _number(setting, at + 1, 2), at + 3
        for _ in range(min(count, _MAX_UNITS)):
            length = _number(setting, at, 2)
            yield from _hevc_unit_sizes(setting[at + 2 : at + 2 + length])
            at += 2 + length


def _hevc_sizes(item: bytes) -> Iterator[tuple[int, int]]:
    """Sizes in parameter sets among an item's own units."""
    at, units = 0, 0
    while at + 4 < len(item):
        units += 1
        check_parts(units, MAX_BOXES, "image", "units")
        length = _number(item, at, 4)
        yield from _hevc_unit_sizes(item[at + 4 : at + 4 + min(length, 1024)])
        at += 4 + length


def _hevc_unit_sizes(unit: bytes) -> Iterator[tuple[int, int]]:
    """The size in a sequence parameter set (ITU-T H.265, 7.3.2.2); nothing for another unit."""
    if len(unit) < 3 or unit[0] >> 1 & 63 != 33:
        return
    bits = _Bits(unit[2:].replace(b"\0\0\3", b"\0\0"))
    bits.take(4)
    layers = bits.take(3)
    bits.take(1 + 88 + 8)
    present = [(bits.take(1), bits.take(1)) for _ in range(layers)]
    if layers:
        bits.take(2 * (8 - layers))
    for profile, level in present:
        bits.take(88 * profile + 8 * level)
    bits.golomb()
    if bits.golomb() == 3:
        bits.take(1)
    yield bits.golomb(), bits.golomb()
