"""The mix of requests that an open loop sends: which kinds there are, their shares, and the right answer to each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from io import BytesIO
from itertools import cycle, islice

import numpy as np
from PIL import Image

from benchmarks.load.checker import Expected, Refusal
from benchmarks.photos import Photo
from detector import FileError, ImageError, ImageSpec, UsageError, decode_image

VARIANTS = 16  # photos of each kind that is encoded again
LARGE = 1024  # pixels
MOST_PHOTOS = 6  # in one request


@dataclass(frozen=True)
class Mix:
    """Shares of the kinds of requests; they need not add up to 1.

    photo: one photo as it is. large: as a JPEG of 1024 px. png, webp: in that format. several: two to six photos, now and
    then one that can't be scored. explain: with the heatmap. bad: a photo that can't be scored.
    """

    photo: float = 1.0
    large: float = 0.0
    png: float = 0.0
    webp: float = 0.0
    several: float = 0.0
    explain: float = 0.0
    bad: float = 0.0

    @classmethod
    def mixed(cls) -> Mix:
        """All kinds, as a public service gets them."""
        return cls(photo=0.6, large=0.08, png=0.08, webp=0.08, several=0.06, explain=0.05, bad=0.05)

    @classmethod
    def parse(cls, text: str) -> Mix:
        """`plain` (one photo as it is), `mixed`, or shares such as `photo=0.9,bad=0.1`. Raises `UsageError`."""
        if text in ("plain", "mixed"):
            return cls.mixed() if text == "mixed" else cls()
        shares: dict[str, float] = {}
        for part in text.split(","):
            name, _, value = part.partition("=")
            try:
                shares[name.strip()] = share = float(value)
            except ValueError:
                share = -1.0
            if name.strip() not in KINDS or not 0 <= share < float("inf"):
                raise UsageError(
                    f"--mix {text}: {part!r} is no share; plain, mixed, or shares such as photo=0.9,bad=0.1 "
                    f"of {', '.join(KINDS)} are accepted"
                )
        if not sum(shares.values()):
            raise UsageError(f"--mix {text}: at least one share must be above zero")
        return cls(**{"photo": 0.0} | shares)

    def shares(self) -> dict[str, float]:
        """The share of each kind that is sent; they add up to 1."""
        given = {kind: getattr(self, kind) for kind in KINDS}
        return {kind: share / sum(given.values()) for kind, share in given.items() if share}

    def __str__(self) -> str:
        return ",".join(f"{kind}={share:.3g}" for kind, share in self.shares().items())


KINDS = tuple(field.name for field in fields(Mix))


@dataclass(frozen=True)
class Message:
    """A request: its photos, and the right answer."""

    kind: str
    photos: tuple[Photo, ...]
    expected: Expected

    def inputs(self) -> dict[str, bytes]:
        """The photos by the names of their fields."""
        if not self.expected.several:
            return {"data": self.photos[0].data}
        return {f"data{n}": photo.data for n, photo in enumerate(self.photos, 1)}


def messages(mix: Mix, photos: Sequence[Photo], *, seed: int = 0) -> dict[str, list[Message]]:
    """The different requests of each kind that has a share; the same for the same photos and seed."""
    bad = {photo.name: refusal for photo, refusal in bad_photos(photos[0])}
    made: dict[str, list[Message]] = {}
    few = photos[:VARIANTS]
    encoded = {
        "large": lambda photo: _encoded(photo, "JPEG", LARGE),
        "png": lambda photo: _encoded(photo, "PNG"),
        "webp": lambda photo: _encoded(photo, "WEBP"),
    }
    rows: list[tuple[Photo, ...]]
    for kind in mix.shares():
        if kind in ("photo", "explain"):
            rows = [(photo,) for photo in (photos if kind == "photo" else few)]
        elif kind == "several":
            rows = _several(photos, [photo for photo, _ in bad_photos(photos[0])], seed)
        elif kind == "bad":
            rows = [(photo,) for photo, _ in bad_photos(photos[0])]
        else:
            rows = [(encoded[kind](photo),) for photo in few]
        made[kind] = [
            Message(
                kind,
                row,
                Expected(tuple(bad.get(p.name, p.name) for p in row), several=kind == "several", explain=kind == "explain"),
            )
            for row in rows
        ]
    return made


def photos_with_a_verdict(made: Mapping[str, Sequence[Message]]) -> list[Photo]:
    """Each photo of the requests that has a verdict, once."""
    found = {
        photo.name: photo
        for row in made.values()
        for message in row
        for photo, item in zip(message.photos, message.expected.items, strict=True)
        if isinstance(item, str)
    }
    return list(found.values())


def in_turn(
    made: Mapping[str, Sequence[Message]], mix: Mix, count: int, *, known: Mapping[str, float], threshold: float, seed: int
) -> list[Message]:
    """`count` requests, kinds at random by their shares; of each kind Fake and Real take turns where `known` has both.

    known: calibrated probability by photo name. threshold: at which a photo is Fake.
    """
    shares = mix.shares()
    chosen = np.random.default_rng(seed).choice(len(shares), size=count, p=list(shares.values()))
    turns = [_turns(made[kind], known, threshold) for kind in shares]
    return [next(turns[kind]) for kind in chosen]


def _turns(row: Sequence[Message], known: Mapping[str, float], threshold: float) -> Iterator[Message]:
    sides: dict[bool | None, list[Message]] = {}
    for message in row:
        calibrated = known.get(message.photos[0].name)
        sides.setdefault(None if calibrated is None else calibrated >= threshold, []).append(message)
    circles = [cycle(side) for side in sides.values()]
    for circle in cycle(circles):
        yield next(circle)


def bad_photos(photo: Photo) -> list[tuple[Photo, Refusal]]:
    """Photos that can't be scored, and how the server refuses each, as `decode_image` does."""
    gif, png = _encoded(photo, "GIF").data, _encoded(photo, "PNG").data
    middle = len(png) // 2
    sick = {
        "bad-text": b"This is no photo.",
        "bad-gif": gif,
        "bad-cut-off": photo.data[: len(photo.data) // 2],
        "bad-bytes": png[:middle] + bytes(byte ^ 0xFF for byte in png[middle : middle + 64]) + png[middle + 64 :],
    }
    found = []
    for name, data in sick.items():
        try:
            decode_image(data, ImageSpec())
        except ImageError as error:
            found.append((Photo(name, data), Refusal(error.status, error.code)))
        else:
            raise FileError(f"{photo.name}: decodes even when it is damaged ({name}), so no bad photo can be made of it")
    return found


def _several(photos: Sequence[Photo], bad: Sequence[Photo], seed: int) -> list[tuple[Photo, ...]]:
    """Requests of two to six photos; every third one has a bad photo in a place of its own."""
    rng = np.random.default_rng(seed)
    good, sick = cycle(photos), cycle(bad)
    rows = []
    for number in range(VARIANTS):
        row = list(islice(good, int(rng.integers(2, MOST_PHOTOS + 1))))
        if number % 3 == 0:
            row[int(rng.integers(len(row)))] = next(sick)
        rows.append(tuple(row))
    return rows


def _encoded(photo: Photo, format: str, size: int | None = None) -> Photo:
    with Image.open(BytesIO(photo.data)) as image:
        picture = image.convert("RGB")
    if size:
        scale = size / max(picture.size)
        picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)
    out = BytesIO()
    picture.save(out, format, quality=85)
    return Photo(f"{photo.name}, {'' if not size else f'{size} px '}{format}", out.getvalue())
