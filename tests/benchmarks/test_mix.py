"""The mix of requests: its shares, its photos and their right answers."""

from __future__ import annotations

from collections import Counter
from io import BytesIO

import pytest
from PIL import Image

from benchmarks.load.checker import Refusal
from benchmarks.load.mix import KINDS, Mix, in_turn, messages, photos_with_a_verdict
from benchmarks.photos import drawn_photos
from detector import ImageError, ImageSpec, UsageError, decode_image

PHOTOS = drawn_photos(6)


@pytest.fixture(scope="module")
def made():
    return messages(Mix.mixed(), PHOTOS)


def test_each_kind_is_what_its_name_says(made):
    assert tuple(made) == KINDS
    form = {"photo": "JPEG", "large": "JPEG", "png": "PNG", "webp": "WEBP", "explain": "JPEG"}
    for kind, format in form.items():
        for message in made[kind]:
            image = Image.open(BytesIO(message.photos[0].data))
            assert image.format == format
            assert image.size == ((1024, 1024) if kind == "large" else (256, 256))
            assert message.expected.explain == (kind == "explain")
    assert {len(message.photos) for message in made["several"]} <= set(range(2, 7))
    assert 0 < sum(any(isinstance(i, Refusal) for i in message.expected.items) for message in made["several"]) < 16


def test_every_photo_decodes_or_is_refused_as_expected(made):
    spec, codes = ImageSpec(), set()
    for row in made.values():
        for message in row:
            for photo, item in zip(message.photos, message.expected.items, strict=True):
                if isinstance(item, Refusal):
                    with pytest.raises(ImageError) as caught:
                        decode_image(photo.data, spec)
                    assert (caught.value.status, caught.value.code) == (item.status, item.code)
                    codes.add(item.code)
                else:
                    decode_image(photo.data, spec)
    assert len(codes) >= 3
    names = [photo.name for photo in photos_with_a_verdict(made)]
    assert len(names) == len(set(names))
    assert not any(name.startswith("bad") for name in names)


def test_the_shares_are_kept_and_the_order_is_the_seeds(made):
    mix = Mix.mixed()
    sent = in_turn(made, mix, 5000, known={}, threshold=0.5, seed=3)
    counted = Counter(message.kind for message in sent)
    for kind, share in mix.shares().items():
        assert counted[kind] == pytest.approx(5000 * share, rel=0.25)
    assert sent == in_turn(made, mix, 5000, known={}, threshold=0.5, seed=3)
    assert sent != in_turn(made, mix, 5000, known={}, threshold=0.5, seed=4)


def test_both_labels_take_turns_where_they_are_known():
    known = {photo.name: 0.9 if number == 0 else 0.1 for number, photo in enumerate(PHOTOS)}
    mix = Mix()
    sent = in_turn(messages(mix, PHOTOS), mix, 20, known=known, threshold=0.5, seed=0)
    assert sum(known[message.photos[0].name] > 0.5 for message in sent) == 10


def test_a_mix_is_read_from_its_text():
    assert Mix.parse("plain") == Mix()
    assert Mix.parse("mixed") == Mix.mixed()
    assert Mix.parse("photo=3,bad=1").shares() == {"photo": 0.75, "bad": 0.25}
    assert Mix.parse("png=1").shares() == {"png": 1}


@pytest.mark.parametrize("text", ["", "photos=1", "photo", "photo=-1", "photo=nan", "photo=0", "photo=inf", "mixed,bad=1"])
def test_a_mix_that_makes_no_sense_is_refused(text):
    with pytest.raises(UsageError, match="--mix"):
        Mix.parse(text)
