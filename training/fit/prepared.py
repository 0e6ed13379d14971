"""The photos of a run: found, read, audited, decoded and divided into parts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from training.audit.audit import Audit, audit_photos
from training.audit.duplicates import group_numbers
from training.calibration.abstain import require_enough_to_abstain
from training.calibration.methods import few_photos_warning, require_enough
from training.data.cache import PhotoCache, read_photos
from training.data.loader import CachedPhotos
from training.data.photos import REAL, VALIDATION_FRACTION, Parts, Photo, counts, divide, find_photos, unreadable_warning
from training.data.pseudo_fakes import NOTE, joined, paired
from training.evaluation.scores import ScoreTable
from training.fit.evaluator import Evaluator
from training.options import CALIBRATE_FRACTION, FitOptions

SPLIT_NOTE = (
    "The training photos are divided into three parts that share no photo. The network is fitted on the first. "
    "The second decides when the learning rate falls, when training stops and which epoch is kept. "
    "The calibration curve is fitted on the third and on nothing else. "
    "Validation photos are only reported on: nothing was chosen or fitted with them."
)
CROSSED_NOTE = (
    "The calibration is cross-fitted: {tuned} The network is fitted on {all}, and the calibration curve on the same photos, "
    "in {folds} folds: for each fold a network with the same recipe was fitted without it, and scored it. The curve is fitted "
    "on those scores and on nothing else. "
    "Validation photos are only reported on: nothing was chosen or fitted with them."
)
TUNED = (
    "some training photos decide when the learning rate falls, when training stops and which epoch is kept, and how sure the "
    "networks of the folds are beside the one that is kept.",
    "no photo is tuned on, since a cosine schedule keeps its last epoch.",
)
# How pseudo-fakes take part, as `NOTE` has it: every fake is one, or fitting shows them beside the folder's own fakes.
ALONE, ADDED = "alone", "added"


@dataclass(frozen=True)
class PreparedPhotos:
    """Decoded photos and their parts. A row is a photo's number; of n photos, row `n + r` is the pseudo-fake of row `r`.

    hashes: SHA-256 of each file. labels: int64[n], or int64[2 n] with pseudo-fakes. parts: of the fold that is left aside;
    where the calibration is cross-fitted all its photos are fitted on too. divided: the parts when another fold is left aside.
    crossed: folds that the calibration is cross-fitted in, or 0. pseudo_fakes: `ALONE`, `ADDED` or None.
    """

    photos: list[Photo]
    hashes: list[str]
    fingerprint: str
    audit: Audit
    cache: PhotoCache
    labels: NDArray[np.int64]
    parts: Parts
    divided: Callable[[int | None], Parts]
    crossed: int
    pseudo_fakes: str | None

    def fit_rows(self, parts: Parts) -> NDArray[np.int64]:
        """The rows that a network is fitted on where these are the parts, some more than once."""
        return joined(parts.fit, self.labels, len(self.photos)) if self.pseudo_fakes == ADDED else parts.fit

    def for_fitting(self, labels: NDArray[np.int64], augment: str, crop: int | None) -> CachedPhotos:
        """The photos as a network is fitted on them, with these labels."""
        return CachedPhotos(self.cache.path, labels, pseudo_fakes=self.pseudo_fakes is not None, augment=augment, crop=crop)

    def for_scoring(self) -> CachedPhotos:
        """The photos as they are scored."""
        return CachedPhotos(self.cache.path, self.labels, pseudo_fakes=self.pseudo_fakes == ALONE)

    def scored(self, evaluator: Evaluator, held_out: NDArray[np.float32] | None = None) -> ScoreTable:
        """The score table, with the evaluator's scores of the validation and the calibration photos.

        held_out: raw probabilities of the calibration photos, where others than the evaluator's are to be used.
        """
        shown, parts = self.for_scoring(), self.parts
        part_of = {int(row): part for part, rows in parts.items() for row in rows}
        rows, n = sorted(part_of), len(self.photos)
        used = np.array(rows)
        raw = np.full(len(used), np.nan, np.float32)
        raw[np.searchsorted(used, parts.validation)] = evaluator.probabilities(shown, parts.validation)
        if len(parts.calibrate):
            own = evaluator.probabilities(shown, parts.calibrate) if held_out is None else held_out
            raw[np.searchsorted(used, parts.calibrate)] = own
        return ScoreTable(
            self.names(used),
            self.labels[used],
            tuple(part_of[row] for row in rows),
            tuple(self.hashes[row % n] for row in rows),
            raw,
        )

    def names(self, rows: NDArray[np.int64]) -> tuple[str, ...]:
        """Of these rows, as the score table has them."""
        n = len(self.photos)
        return tuple(self.photos[row % n].name + " (pseudo-fake)" * (row >= n) for row in rows.tolist())

    def validation_pixels(self, row: int) -> NDArray[np.uint8]:
        """uint8[H, W, 3] of one of the validation photos, counted from 0."""
        return self.for_scoring().pixels(int(self.parts.validation[row]))

    def described(self) -> dict[str, Any]:
        """What `metrics.json` says of the photos."""
        return {
            "counts": counts(self.parts, self.labels),
            "unreadable": self.cache.unreadable,
            "audit": self.audit.summary(),
            "split": self._split(),
            **({"pseudo_fakes": NOTE[self.pseudo_fakes]} if self.pseudo_fakes else {}),
            "fingerprint": self.fingerprint,
        }

    def _split(self) -> str:
        if not self.crossed:
            return SPLIT_NOTE
        some = bool(len(self.parts.tune))
        return CROSSED_NOTE.format(tuned=TUNED[not some], all="the others" if some else "all of them", folds=self.crossed)


def prepare_photos(
    options: FitOptions, accelerator: Accelerator, *, admit: Callable[[str], None] | None = None
) -> PreparedPhotos:
    """Read the photos that the options name, decode them into the cache and divide them; warnings go to stderr.

    admit: raises for the fingerprint of photos that are not those wanted, before more is done with them.

    Raises `DataProblem` for a folder of another layout or with too few photos, `Leak` when training and validation share
    photos, `UsageError` for a pattern that is none, `TooFewToCalibrate`, `TooFewToAbstain`.
    """
    main = accelerator.is_main_process
    photos = find_photos(options.data, fakes_needed=options.pseudo_fakes == "none", labels=options.labels)
    kept_in = options.cache_dir or options.out / "cache"
    with accelerator.main_process_first():  # which decodes; the others then find it done
        read = read_photos(photos, options.image_spec, kept_in, equalise=options.equalise, progress=main)
        if admit:
            admit(read.fingerprint)
        audit = audit_photos(photos, read.facts, options.group_by)
        audit.require_no_leak()
    cache = read.cache
    labels = np.array([photo.label for photo in photos], np.int64)
    only_real = bool((labels == REAL).all())
    pseudo = None if options.pseudo_fakes == "none" else ALONE if only_real else ADDED
    readable = np.array([photo.name not in cache.unreadable for photo in photos])
    groups = group_numbers(len(photos), audit.matches, audit.groups)
    crossed = options.crossed(_training_photos(photos, readable))
    untuned = crossed and options.schedule == "cosine"  # which keeps its last epoch

    def divided(fold: int | None) -> Parts:
        parts = divide(
            photos,
            readable,
            tune=0 if untuned else options.tune_fraction,
            calibrate=(options.calibrate_fraction or CALIBRATE_FRACTION) if options.holds_out else 0,
            folds=crossed or options.folds,
            fold=fold,
            seed=options.split_seed,
            groups=groups,
            fakes_needed=pseudo is None,
        )
        return paired(parts, len(photos)) if pseudo == ALONE else parts

    parts = divided(None if crossed else options.fold)
    held_out = len(parts.calibrate)
    require_enough(options.calibration, held_out)
    every = np.concatenate([labels, np.ones_like(labels)]) if pseudo else labels
    if options.abstain:
        require_enough_to_abstain(every[parts.calibrate], options.abstain)
    if main:
        unreadable = unreadable_warning(cache.unreadable, len(photos)) if cache.unreadable else None
        for warning in (unreadable, audit.warning(), few_photos_warning(options.calibration, held_out)):
            if warning:
                print(warning, file=sys.stderr)
    return PreparedPhotos(
        photos,
        [fact.sha256 for fact in read.facts],
        read.fingerprint,
        audit,
        cache,
        every,
        parts,
        divided,
        crossed,
        pseudo,
    )


def _training_photos(photos: Sequence[Photo], readable: NDArray[np.bool_]) -> int:
    """How many there are to learn from, before they are divided further."""
    own = np.array([photo.part == "validation" for photo in photos])
    found = int((readable & ~own).sum())
    return found if own.any() else round(found * (1 - VALIDATION_FRACTION))
