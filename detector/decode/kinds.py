"""Names of the kinds of files that people send as photos and that are not read."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

# The first bytes of each, in any order: none begins another but where the longer stands first.
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"GIF8", "a GIF"),
    (b"\xff\x0a", "a JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (b"II\xbc\x01", "a JPEG XR"),
    (b"II*\0\x10\0\0\0CR", "a CR2 (Canon's raw format)"),
    (b"II\x1a\0\0\0HEAPCCDR", "a CRW (Canon's raw format)"),
    (b"II+\0", "a BigTIFF"),
    (b"MM\0+", "a BigTIFF"),
    (b"IIRO", "an ORF (Olympus' raw format)"),
    (b"IIRS", "an ORF (Olympus' raw format)"),
    (b"MMOR", "an ORF (Olympus' raw format)"),
    (b"IIU\0", "an RW2 (Panasonic's raw format)"),
    (b"FUJIFILMCCD-RAW", "a RAF (Fujifilm's raw format)"),
    (b"FOVb", "an X3F (Sigma's raw format)"),
    (b"\0MRM", "an MRW (Minolta's raw format)"),
    (b"8BPS", "a Photoshop document"),
    (b"gimp xcf", "an XCF (GIMP's format)"),
    (b"\0\0\x01\0", "an icon"),
    (b"\0\0\x02\0", "a cursor"),
    (b"icns", "an icon"),
    (b"BPG\xfb", "a BPG"),
    (b"FLIF", "a FLIF"),
    (b"qoif", "a QOI"),
    (b"\x8aMNG", "an MNG"),
    (b"\x8bJNG", "a JNG"),
    (b"v/1\x01", "an OpenEXR"),
    (b"#?R", "a Radiance HDR"),
    (b"DDS ", "a DDS texture"),
    (b"SIMPLE  =", "a FITS"),
    (b"AT&TFORM", "a DjVu"),
    (b"\xd7\xcd\xc6\x9a", "a WMF"),
    (b"%PDF", "a PDF"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"PK\x05\x06", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\0\0\x01\xba", "an MPEG video"),
    (b"\0\0\x01\xb3", "an MPEG video"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a WMV video"),
    (b"FLV\x01", "a Flash video"),
    (b"OggS", "an Ogg file"),
    (b"ID3", "an MP3"),
    (b"fLaC", "a FLAC"),
)
_RIFF = {b"AVI ": "an AVI video", b"WAVE": "a WAVE sound"}
_HEIC, _VIDEO = "a HEIC", "an MP4 video"
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), _HEIC),
    **dict.fromkeys((b"avif", b"avis"), "an AVIF"),
    **dict.fromkeys((b"mif1", b"mif2", b"msf1", b"miaf", b"avci", b"avcs", b"jpeg", b"vvic", b"j2ki"), "a HEIF"),
    **dict.fromkeys((b"isom", b"iso2", b"iso4", b"iso5", b"iso6", b"mp41", b"mp42", b"avc1", b"M4V ", b"MSNV"), _VIDEO),
    **dict.fromkeys((b"M4A ", b"M4B "), "an MPEG-4 sound"),
    b"qt  ": "a QuickTime video",
    b"crx ": "a CR3 (Canon's raw format)",
    b"jxl ": "a JPEG XL",
    b"jp2 ": "a JPEG 2000",
}
_OLD_QUICKTIME = (b"moov", b"mdat", b"wide", b"free", b"skip")
_TIFF_MAKERS = {
    b"NIKON": "a NEF (Nikon's raw format)",
    b"SONY": "an ARW (Sony's raw format)",
    b"PENTAX": "a PEF (Pentax' raw format)",
}
_MAKE, _SUB_IFDS, _DNG_VERSION = 0x010F, 0x014A, 0xC612
_SVG = re.compile(rb"<(?:[a-z]+:)?svg[\s>]", re.IGNORECASE)
_HTML = re.compile(rb"<(?:!doctype html|html|head|body|script|title|meta|p|div|h1)\b", re.IGNORECASE)
_TEXTS = (
    (re.compile(rb"data:"), "a data: URL"),
    (re.compile(rb"https?://", re.IGNORECASE), "a URL"),
    (re.compile(rb"/9j/|iVBORw0KGgo|UklGR|R0lGOD|AAAA[A-Za-z0-9+/]{3}m?Z0eX"), "base64 text"),
    (re.compile(rb"P[1-7]\s"), "a PNM"),
    (re.compile(rb"[{\[]\s*[\"{\[\]}0-9-]"), "JSON"),
)


_BMP_HEADERS = tuple(bytes([size, 0, 0, 0]) for size in (12, 40, 52, 56, 64, 108, 124))
# Those that more than the first bytes tell.
_TESTS: tuple[tuple[Callable[[bytes], bool], str], ...] = (
    (lambda data: data[4:8] in _OLD_QUICKTIME, "a QuickTime video"),
    (lambda data: data.startswith(b"\x1a\x45\xdf\xa3") and b"webm" in data[:64], "a WebM video"),
    (lambda data: data.startswith(b"\x1a\x45\xdf\xa3"), "a Matroska video"),
    (lambda data: data.startswith(b"BM") and data[14:18] in _BMP_HEADERS, "a BMP"),
    (lambda data: data[0:1] == data[188:189] == data[376:377] == b"G", "an MPEG video"),
    (lambda data: data[128:132] == b"DICM", "a DICOM file"),
    (lambda data: data[257:262] == b"ustar", "a tar archive"),
)


def name_of(data: bytes) -> str:
    """What a file is that is not read, as it stands after "this is"."""
    if data[4:8] == b"ftyp":
        return _of_brands(data)
    if data.startswith(b"RIFF"):
        return _RIFF.get(data[8:12], "a RIFF file")
    found = next((name for magic, name in _MAGIC if data.startswith(magic)), None)
    if found is None and data[:4] in (b"II*\0", b"MM\0*"):
        return _of_tiff(data)
    return found or next((name for test, name in _TESTS if test(data)), None) or _of_text(data)


def _of_brands(data: bytes) -> str:
    """An ISO media file by its major brand; where that says the container alone, by the others (ISO/IEC 14496-12, 4.3)."""
    major = data[8:12]
    name = _BRANDS.get(major, _VIDEO if major[:3] in (b"3gp", b"3g2", b"iso", b"mp4") else "")
    if name != "a HEIF" and name:
        return name
    others = [data[at : at + 4] for at in range(16, min(int.from_bytes(data[:4], "big"), 256), 4)]
    found = [_BRANDS[brand] for brand in others if _BRANDS.get(brand) in (_HEIC, "an AVIF")]
    return found[0] if found else name or "a video or another ISO media file"


def _of_tiff(data: bytes) -> str:
    """A TIFF, or one of the cameras' raw formats that are TIFFs, by the tags of its first directory (TIFF 6.0, section 2)."""
    order = "<" if data.startswith(b"II") else ">"
    tags: dict[int, tuple[int, int]] = {}
    try:
        (at,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, at)
        for entry in range(min(count, 200)):
            tag, _, length, value = struct.unpack_from(order + "HHII", data, at + 2 + 12 * entry)
            tags[tag] = (length, value)
    except struct.error:
        return "a TIFF"
    if _DNG_VERSION in tags:
        return "a DNG (a raw format)"
    _, place = tags.get(_MAKE, (0, 0))
    if _SUB_IFDS in tags and place:
        make = data[place : place + 16].upper()
        return next((name for maker, name in _TIFF_MAKERS.items() if make.startswith(maker)), "a TIFF")
    return "a TIFF"


def _of_text(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):  # of UTF-16
        return "text"
    head = data[:4096].removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"<"):
        markup = ((_SVG, "an SVG"), (_HTML, "HTML"), (re.compile(rb"<\?xml"), "XML"))
        # An SVG may be inside of a page, and never begins as one.
        return next(
            (name for kind, name in markup if kind.search(head) and not (name == "an SVG" and _HTML.match(head))), "text"
        )
    begins = next((name for beginning, name in _TEXTS if beginning.match(head)), None)
    return begins or ("text" if _is_text(data[:256]) else "not a known image format")


def _is_text(head: bytes) -> bool:
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        # The first bytes of a text may end in the middle of a character.
        return b"\0" not in head and error.start >= len(head) - 4 and len(head) > 4
    return b"\0" not in head
