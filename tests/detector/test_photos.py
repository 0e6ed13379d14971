"""Photos as phones, browsers and editors write them: read as people see them, or refused by their name."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms

from benchmarks.photos import drawn_photos
from detector import ImageSpec, decode_image, decode_photo
from detector.decode import ACCEPTED_FORMATS, whole_image
from detector.decode.color import to_srgb
from detector.errors import CorruptImage, ImageTooLarge, TruncatedImage, UniformImage, UnsupportedFormat
from detector.scorer import Scorer
from tests import photo_kinds
from tests.conftest import encode
from tests.mutated import chunk, png
from tests.photo_kinds import KINDS, SPACES, icc, with_chunks, without_end

SPEC = ImageSpec(size=64)
STORED = ImageSpec(size=64, color="stored")


@pytest.fixture(scope="module")
def portraits() -> list[Image.Image]:
    return [Image.open(BytesIO(p.data)).convert("RGB") for p in drawn_photos(12, seed=3)]


@pytest.fixture(scope="module")
def portrait(portraits) -> Image.Image:
    return portraits[0]


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


def same(data: bytes, other: bytes) -> bool:
    return bool((decode_image(data, SPEC) == decode_image(other, SPEC)).all())


def needed(kind: str) -> None:
    pytest.importorskip("pyvips", reason="pyvips, the reference, is not installed")
    if kind.startswith("AVIF") and "AVIF" not in ACCEPTED_FORMATS:
        pytest.skip("this Pillow has no AVIF")


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_read_as_libvips_reads_it(portrait, kind):
    needed(kind)
    data = KINDS[kind](portrait)
    ours = decode_image(data, SPEC)
    assert difference(ours, decode_image(encode(photo_kinds.by_libvips(data, SPEC.size)), SPEC)) < 1


def test_three_hundred_photos_of_all_kinds_get_the_verdicts_that_libvips_pixels_get(portraits, artifacts):
    needed("")
    scorer = Scorer(artifacts / "model.onnx", threads=1)
    spec = scorer.manifest.image_spec
    kinds = [kind for kind in KINDS if not kind.startswith("AVIF") or "AVIF" in ACCEPTED_FORMATS]
    files = [(kind, KINDS[kind](portrait)) for kind in kinds for portrait in portraits]
    assert len(files) >= 280
    ours = [decode_image(data, spec) for _, data in files]
    reference = (photo_kinds.by_libvips(data, spec.size) for _, data in files)
    theirs = [decode_image(encode(picture, compress_level=0), spec) for picture in reference]
    apart = {kind: difference(a, b) for (kind, _), a, b in zip(files, ours, theirs, strict=True)}
    assert max(apart.values()) < 1, apart
    pairs = zip(scorer.score_images(ours), scorer.score_images(theirs), strict=True)
    flips = [
        (kind, a.raw_prob, b.raw_prob, a.calibrated, b.calibrated)
        for (kind, _), (a, b) in zip(files, pairs, strict=True)
        if a.prediction != b.prediction
    ]
    # Half a level on average moves the raw probability of this small detector by up to 0.08, and some lie that near a half.
    assert len(flips) <= len(files) // 20, flips


@pytest.mark.parametrize("space", ["Display P3", "Adobe RGB", "ProPhoto"])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_a_profile_gives_the_colours_that_were_meant(portrait, space, format):
    """The picture is written in the wide space, as a camera does, and comes back as it was."""
    there = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.ImageCmsProfile(BytesIO(icc(space))), "RGB", "RGB", 1
    )
    wide = there.apply(portrait)
    options = {"PNG": {}, "JPEG": {"quality": 98, "subsampling": 0}, "WEBP": {"lossless": True}}[format]
    data = encode(wide, format, icc_profile=icc(space), **options)
    meant = decode_image(encode(portrait, format, **options), SPEC)
    assert difference(decode_image(data, SPEC), meant) < 1
    assert difference(decode_image(data, STORED), meant) > difference(decode_image(data, SPEC), meant) + 0.5
    assert (decode_image(data, STORED) == decode_image(encode(wide, format, **options), STORED)).all()


def test_alpha_stays_what_it_was_when_colours_are_converted(portrait):
    there = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.ImageCmsProfile(BytesIO(icc("Display P3"))), "RGB", "RGB", 1
    )
    wide = there.apply(portrait)
    data = encode(photo_kinds.with_alpha(wide), icc_profile=icc("Display P3"))
    assert difference(decode_image(data, SPEC), decode_image(encode(photo_kinds.with_alpha(portrait)), SPEC)) < 1


@pytest.mark.parametrize(
    "profile",
    [
        b"x",
        bytes(128),
        icc("Display P3")[:200],
        icc("Display P3")[:-900] + bytes(900),
        icc("grey"),
        icc("inks"),
        icc("Display P3") + bytes(5 * 2**20),
        b"\0" * 36 + b"acsp" + b"\xff" * 5000,
    ],
    ids=["a byte", "zeros", "cut", "no tags", "grey's", "inks'", "6 MB", "noise"],
)
@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_a_damaged_profile_or_one_of_another_kind_costs_nothing(portrait, profile, format):
    options = {"lossless": True} if format == "WEBP" else {}
    assert same(encode(portrait, format, icc_profile=profile, **options), encode(portrait, format, **options))


def test_a_profile_of_srgb_is_known_by_what_it_does_whatever_its_name(portrait):
    for profile in (icc("sRGB"), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()):
        assert to_srgb(portrait, profile) is portrait
    lying = icc("Display P3").replace(b"test", b"sRGB")
    assert to_srgb(portrait, lying) is not portrait


@pytest.mark.parametrize("seed", range(40))
def test_a_hostile_profile_is_no_more_than_ignored(portrait, seed):
    rng = np.random.default_rng(seed)
    profile = bytearray(icc((*SPACES, "grey", "inks")[seed % 6]))
    for at in rng.integers(128, len(profile), 30):
        profile[at] = rng.integers(256)
    mode = {4: "L", 5: "CMYK"}.get(seed % 6, "RGB")
    data = encode(portrait.convert(mode), "JPEG", icc_profile=bytes(profile))
    assert decode_image(data, SPEC).shape == SPEC.shape


def test_gamma_is_applied_to_a_png_as_browsers_do_where_nothing_stands_above_it(portrait):
    light = np.asarray(portrait) / 255
    linear = np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4)
    stored = encode(np.rint(255 * linear).astype(np.uint8))
    gamma = chunk(b"gAMA", struct.pack(">I", 100_000))
    assert difference(decode_image(with_chunks(stored, gamma), SPEC), decode_image(encode(portrait), SPEC)) < 2
    assert same(with_chunks(stored, gamma, chunk(b"sRGB", b"\0")), stored)
    assert same(with_chunks(stored, chunk(b"gAMA", struct.pack(">I", 45_455))), stored)
    for senseless in (0, 1, 2**31):
        assert same(with_chunks(stored, chunk(b"gAMA", struct.pack(">I", senseless))), stored)
    assert (decode_image(with_chunks(stored, gamma), STORED) == decode_image(stored, STORED)).all()


@pytest.mark.parametrize(
    "extra",
    [
        photo_kinds.BAD_TEXT,
        photo_kinds.BIG_TEXT,
        photo_kinds.BIG_PROFILE,
        chunk(b"iCCP", b"name without an end"),
        chunk(b"tRNS", b"\0"),
        chunk(b"tRNS", bytes(6))[:-1] + b"\0",
        chunk(b"gAMA", b"\0"),
        chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff"),
        chunk(b"cHRM", b""),
        chunk(b"pHYs", b"\0"),
        chunk(b"sRGB", b""),
        chunk(b"acTL", b""),
        chunk(b"fcTL", bytes(26)),
        chunk(b"iTXt", b"\xff" * 50),
        chunk(b"zTXt", b"k\0\7" + bytes(50)),
    ],
    ids=lambda extra: extra[4:8].decode() + str(len(extra)),
)
@pytest.mark.parametrize("where", ["before the pixels", "after them"])
def test_no_ancillary_chunk_of_a_png_costs_the_picture(portrait, extra, where):
    data = encode(portrait)
    at = 33 if where == "before the pixels" else len(data) - 12
    assert same(data[:at] + extra + data[at:], data)


def test_a_critical_chunk_with_a_wrong_checksum_is_damage(portrait):
    for data, name in ((encode(portrait), b"IHDR"), (encode(portrait.quantize(8)), b"PLTE")):
        at = data.index(name) - 4
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        with pytest.raises(CorruptImage):
            decode_image(data[: end - 4] + bytes(4) + data[end:], SPEC)


def test_apples_own_png_is_named(portrait):
    data = encode(portrait)
    with pytest.raises(UnsupportedFormat, match="CgBI"):
        decode_image(data[:8] + chunk(b"CgBI", bytes(4)) + data[8:], SPEC)


@pytest.mark.parametrize(("colour", "key"), [(0, (0x1234,)), (2, (0x1234, 0x5678, 0x9ABC))])
def test_a_transparent_sample_of_sixteen_bits_is_compared_whole(colour, key):
    """Beside the key lie samples that differ from it in the low byte alone, which Pillow does not see."""
    near = tuple(sample + 1 for sample in key)
    rows = b"".join(b"\0" + struct.pack(f">{len(key)}H", *(key if y < 32 else near)) * 64 for y in range(64))
    data = png(64, 64, colour, 16, rows, before=chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)))
    pixels = decode_image(data, SPEC)
    assert (pixels[:31] == 255).all()
    assert (pixels[33:] == [sample >> 8 for sample in near]).all()
    with pytest.raises(UniformImage, match="255, 255, 255"):
        decode_image(png(64, 64, 0, 16, (b"\0" + b"\x12\x34" * 64) * 64, before=chunk(b"tRNS", b"\x12\x34")), SPEC)


@pytest.mark.parametrize(("depth", "key"), [(1, 1), (2, 1), (4, 9), (8, 200)])
def test_a_transparent_grey_of_few_bits_is_found(depth, key):
    per_byte, top = 8 // depth, (1 << depth) - 1
    clear = int("".join(f"{key:0{depth}b}" for _ in range(per_byte)), 2)
    rows = b"".join(b"\0" + bytes([clear if y < 32 else 0]) * (64 // per_byte) for y in range(64))
    # Bits of the chunk beyond the depth do not count.
    data = png(64, 64, 0, depth, rows, before=chunk(b"tRNS", struct.pack(">H", key | (top + 1 if depth < 8 else 0))))
    pixels = decode_image(data, SPEC)
    assert (pixels[:31] == 255).all()
    assert (pixels[33:] == 0).all()


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 0}, {"quality": 100}], ids=str
)
@pytest.mark.parametrize("rest", [b"", b"\xff", bytes(4096)], ids=["cut", "half a marker", "padded"])
def test_a_jpeg_without_its_last_marker_is_scored(portraits, options, rest):
    for portrait in portraits[:3]:
        for mode in ("RGB", "L"):
            data = encode(portrait.convert(mode), "JPEG", **options)
            assert same(without_end(data) + rest, data)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}], ids=str)
@pytest.mark.parametrize("rest", [b"", bytes(4096)], ids=["cut", "padded"])
def test_a_jpeg_that_ends_early_is_refused_however_little_is_missing(portraits, options, rest):
    for seed, portrait in enumerate(portraits[:3]):
        data = without_end(encode(portrait, "JPEG", **options))
        start = data.index(b"\xff\xda") + 20
        for at in (*np.random.default_rng(seed).integers(start, len(data), 6), len(data) - 40, len(data) - 8):
            with pytest.raises(TruncatedImage):
                decode_image(data[:at] + rest, SPEC)


def test_a_progressive_jpeg_whose_last_scans_are_missing_ends_early(portrait):
    data = encode(portrait, "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    with pytest.raises(TruncatedImage):
        decode_image(data[: data.rindex(b"\xff\xc4", 0, last)], SPEC)


def frame(data: bytes, marker: int, precision: int = 8, components: int | None = None) -> bytes:
    at = data.index(b"\xff\xc0")
    changed = bytes([0xFF, marker]) + data[at + 2 : at + 4] + bytes([precision]) + data[at + 5 : at + 9]
    return data[:at] + changed + bytes([components or data[at + 9]]) + data[at + 10 :]


@pytest.mark.parametrize(
    ("marker", "precision", "components", "name"),
    [
        (0xC0, 12, None, "a 12-bit JPEG"),
        (0xC1, 12, None, "a 12-bit JPEG"),
        (0xC2, 12, None, "a 12-bit JPEG"),
        (0xC3, 8, None, "a lossless JPEG"),
        (0xC3, 16, None, "a lossless JPEG"),
        (0xC5, 8, None, "a hierarchical JPEG"),
        (0xCB, 8, None, "a lossless JPEG"),
        (0xF7, 8, None, "a JPEG-LS"),
        (0xC0, 8, 2, "a JPEG of 2 components"),
    ],
)
def test_kinds_of_jpeg_that_are_not_read_are_named(portrait, marker, precision, components, name):
    with pytest.raises(UnsupportedFormat, match=f"this is {name}; JPEG with 8 bits"):
        decode_image(frame(encode(portrait, "JPEG"), marker, precision, components), SPEC)


def sized(data: bytes, width: int, height: int) -> bytes:
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def test_a_photo_of_fifty_megapixels_is_scored():
    photo = Image.linear_gradient("L").resize((8160, 6144))
    decoded = decode_photo(encode(photo, "JPEG", quality=60), SPEC)
    assert (decoded.width, decoded.height, round(decoded.cropped, 3)) == (8160, 6144, 0.247)
    assert difference(decoded.pixels, decode_image(encode(photo.resize((816, 614))), SPEC)) < 2


@pytest.mark.parametrize(
    ("options", "sides", "refusal"),
    [
        ({}, (16_300, 12_260), None),
        ({}, (16_400, 12_260), "at most 200000000"),
        ({}, (60_000, 60), None),
        ({"progressive": True}, (11_000, 12_000), None),
        ({"progressive": True}, (11_700, 11_700), "progressive JPEG, whose decoder keeps 411 MB"),
        ({"progressive": True, "subsampling": 0}, (8_200, 8_200), "progressive JPEG, whose decoder keeps 403 MB"),
    ],
    ids=str,
)
def test_a_jpeg_may_cost_as_much_as_it_takes_to_decode(portrait, options, sides, refusal):
    """By the header alone: what passes it ends early, since the file has the pixels of a smaller one."""
    data = sized(encode(portrait, "JPEG", **options), *sides)
    if refusal:
        with pytest.raises(ImageTooLarge, match=refusal):
            decode_image(data, SPEC)
    else:
        from detector.decode import open_photo

        assert open_photo(data, SPEC).size == sides


def test_what_scaled_decoding_leaves_is_bounded_as_other_formats_are(portrait):
    data = sized(encode(portrait, "JPEG"), 13_000, 13_000)
    with pytest.raises(ImageTooLarge, match="3250x3250 as it is decoded"):
        decode_image(data, ImageSpec(size=2048, max_pixels=10_000_000, max_jpeg_pixels=200_000_000))


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def test_orientation_is_exifs_and_xmp_alone_says_nothing(portrait):
    plain = encode(portrait, "JPEG", quality=95)
    segment = b"http://ns.adobe.com/xap/1.0/\0" + XMP
    with_xmp = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + plain[2:]
    assert same(with_xmp, plain)
    text = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)
    assert same(with_chunks(encode(portrait), text), encode(portrait))
    assert same(encode(portrait, "WEBP", lossless=True, xmp=XMP), encode(portrait, "WEBP", lossless=True))
    for format in ("JPEG", "PNG", "WEBP"):
        photo = decode_photo(photo_kinds.turned(portrait, 6, format), SPEC)
        assert photo.orientation == 6
        expected = decode_image(encode(portrait.transpose(Image.Transpose.ROTATE_270), format), SPEC)
        assert difference(photo.pixels, expected) < 2


def test_the_whole_picture_is_what_the_small_one_is_made_of(portrait):
    for kind in ("PNG in Display P3", "grey PNG of 16 bits", "PNG with alpha", "JPEG turned by EXIF"):
        data = KINDS[kind](portrait)
        whole = whole_image(data)
        assert (whole.mode, sorted(whole.size)) == ("RGB", sorted(portrait.size))
        # At its own size nothing is scaled by the DCT.
        spec = ImageSpec(size=min(portrait.size))
        assert difference(decode_image(data, spec), decode_image(encode(whole), spec)) < 1


def riff(kind: bytes) -> bytes:
    return b"RIFF\x64\0\0\0" + kind + bytes(100)


def media(*brands: bytes) -> bytes:
    major, *others = brands
    return struct.pack(">I", 16 + 4 * len(others)) + b"ftyp" + major + bytes(4) + b"".join(others) + bytes(64)


def tiff(*entries: tuple[int, int, int, int], rest: bytes = b"", order: str = "<") -> bytes:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    body = b"".join(struct.pack(order + "HHII", *entry) for entry in entries)
    return mark + struct.pack(order + "IH", 8, len(entries)) + body + bytes(4) + rest


NAMED = {
    "a GIF": [b"GIF87a" + bytes(30), b"GIF89a" + bytes(30)],
    "a BMP": [encode(Image.new("RGB", (8, 8)), "BMP")],
    "a TIFF": [encode(Image.new("RGB", (8, 8)), "TIFF"), tiff(order=">"), b"II*\0"],
    "a BigTIFF": [b"II+\0\x08\0\0\0" + bytes(30), b"MM\0+\0\x08\0\0" + bytes(30)],
    "a DNG": [tiff((0xC612, 1, 4, 1)), tiff((0xC612, 1, 4, 1), order=">")],
    "a NEF": [tiff((0x010F, 2, 6, 38), (0x014A, 4, 1, 0), rest=b"NIKON CORPORATION\0")],
    "an ARW": [tiff((0x010F, 2, 6, 38), (0x014A, 4, 1, 0), rest=b"SONY\0" + bytes(12))],
    "a CR2": [b"II*\0\x10\0\0\0CR\x02\0" + bytes(30)],
    "a CR3": [media(b"crx ", b"isom")],
    "a RAF": [b"FUJIFILMCCD-RAW 0201" + bytes(30)],
    "an RW2": [b"IIU\0" + bytes(30)],
    "an ORF": [b"IIRO" + bytes(30)],
    "a HEIF": [media(b"mif1", b"miaf")],
    "a JPEG XL": [b"\xff\x0a" + bytes(30), b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(30)],
    "a JPEG 2000": [b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(30), b"\xff\x4f\xff\x51" + bytes(30)],
    "a JPEG XR": [b"II\xbc\x01" + bytes(30)],
    "a Photoshop document": [b"8BPS\0\x01" + bytes(30), b"8BPS\0\x02" + bytes(30)],
    "an icon": [b"\0\0\x01\0\x01\0" + bytes(30), b"icns" + bytes(30)],
    "a cursor": [b"\0\0\x02\0\x01\0" + bytes(30)],
    "an MP4 video": [media(b"isom", b"avc1"), media(b"mp42"), media(b"3gp5"), media(b"M4V ")],
    "a QuickTime video": [media(b"qt  "), b"\0\0\0\x08wide" + bytes(30), b"\0\0\x10\0moov" + bytes(30)],
    "an MPEG-4 sound": [media(b"M4A ")],
    "a WebM video": [b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm" + bytes(30)],
    "a Matroska video": [b"\x1a\x45\xdf\xa3\xa3\x42\x86\x81\x01\x42\x82\x88matroska" + bytes(30)],
    "an AVI video": [riff(b"AVI ")],
    "a WAVE sound": [riff(b"WAVE")],
    "a PDF": [b"%PDF-1.7\n" + bytes(30)],
    "a ZIP archive": [b"PK\x03\x04" + bytes(30), b"PK\x05\x06" + bytes(18)],
    "a gzip archive": [b"\x1f\x8b\x08" + bytes(30)],
    "a 7z archive": [b"7z\xbc\xaf\x27\x1c" + bytes(30)],
    "an SVG": [
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<?xml version='1.0'?>\n<!-- drawn -->\n<!DOCTYPE svg>\n<svg/><svg >",
        b"\xef\xbb\xbf  <svg\nwidth='1'/>",
    ],
    "HTML": [b"<!DOCTYPE html><p>413", b"<html>", b"\n<head><title>x", b"<html><body><svg ></svg>"],
    "XML": [b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>"],
    "JSON": [b'{"error": "not found"}', b"[1, 2]"],
    "base64 text": [b"/9j/4AAQSkZJRgABAQAAAQ", b"iVBORw0KGgoAAAANSUhEUg"],
    "a data: URL": [b"data:image/png;base64,iVBORw0KGgo="],
    "a URL": [b"https://example.org/photo.jpg"],
    "text": [b"hello", "Wo ist das Foto?".encode("utf-16"), "你好".encode()],
    "not a known image format": [bytes(100), bytes(range(128, 256)), bytes.fromhex("deadbeef") * 9],
}


@pytest.mark.parametrize("name", NAMED)
def test_what_is_not_read_is_named(name):
    for data in NAMED[name]:
        with pytest.raises(UnsupportedFormat) as caught:
            decode_image(data, SPEC)
        assert caught.value.message.startswith(f"this is {name}"), (data[:40], caught.value.message)
        assert "JPEG, PNG" in caught.value.message
