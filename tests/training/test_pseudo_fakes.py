"""Pseudo-fakes: what is blended where, that the seed decides it, and that a network learns to see it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import uniform_filter
from sklearn.metrics import roc_auc_score

from tests.training.conftest import TINY, fit
from training.data.loader import CachedPhotos, EpochSampler, make_loader
from training.data.photos import Parts
from training.data.pseudo_fakes import genuine, joined, paired, pseudo_fake, self_blend

pytestmark = pytest.mark.slow

PLATT = ("--calibration", "platt")


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """A textured picture: smooth colours, edges and some noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:128, :128]
    waves = np.stack([np.sin(x / 9), np.cos(y / 7), np.sin((x + y) / 11)], axis=-1) * 60 + 120
    return (waves + rng.normal(0, 6, waves.shape)).clip(0, 255).astype(np.uint8)


def test_outside_the_mask_a_pseudo_fake_is_its_base_and_inside_it_differs(picture: np.ndarray) -> None:
    for seed in range(20):
        blend = self_blend(picture, seed)
        outside, inside = blend.mask == 0, blend.mask > 0.2
        assert 0.01 < inside.mean() < 0.6
        np.testing.assert_array_equal(blend.fake[outside], blend.base[outside])
        assert np.abs(blend.fake[inside].astype(int) - blend.base[inside]).mean() > 0.5
        assert 0 <= blend.mask.min() <= blend.mask.max() <= 1


def test_masks_vary_in_place_and_size_and_strength(picture: np.ndarray) -> None:
    masks = [self_blend(picture, seed).mask for seed in range(60)]
    rows = np.arange(128)
    centres = np.array([[(m.sum(axis=1 - k) * rows).sum() / m.sum() for k in (0, 1)] for m in masks])
    sizes = np.array([(m > 0.1).mean() for m in masks])
    assert (centres.std(axis=0) > 4).all()
    assert sizes.max() > 3 * sizes.min()
    assert {round(float(m.max()), 2) for m in masks} == {0.25, 0.5, 0.75, 1.0}


def test_the_seed_decides_all(picture: np.ndarray) -> None:
    for make in (pseudo_fake, genuine):
        one, again, other = (make(picture, seed) for seed in (3, 3, 4))
        np.testing.assert_array_equal(one, again)
        assert (one != other).any()
        assert (one.shape, one.dtype) == (picture.shape, np.uint8)


def test_nothing_but_the_blend_differs_between_a_pseudo_fake_and_its_real_photo(picture: np.ndarray) -> None:
    for seed in range(10):
        mask = self_blend(picture, seed).mask
        blocks = mask.reshape(8, 16, 8, 16).max(axis=(1, 3)) == 0  # JPEG works in blocks of 16 pixels
        far = np.kron(blocks, np.ones((16, 16), bool))
        # The quality is the same, so a block that the blend leaves alone decodes alike, but for chroma at its rim.
        difference = np.abs(pseudo_fake(picture, seed)[far].astype(int) - genuine(picture, seed)[far])
        assert np.median(difference) == 0
        assert difference.mean() < 1


def test_rows_of_pseudo_fakes_are_labelled_fake_and_loaded_alike_by_any_number_of_workers(tmp_path: Path) -> None:
    photos = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
    np.save(tmp_path / "photos.npy", photos)
    labels = np.concatenate([np.zeros(10, np.int64), np.ones(10, np.int64)])
    data = CachedPhotos(tmp_path / "photos.npy", labels, pseudo_fakes=True)
    rows = np.arange(20)
    batches = [list(make_loader(data, rows, batch_size=4, seed=1, workers=n)) for n in (0, 2)]
    for alone, worked in zip(*batches, strict=True):
        assert all((mine == theirs).all() for mine, theirs in zip(alone, worked, strict=True))
        images, label, row = alone
        assert images.shape == (4, 3, 32, 32)
        np.testing.assert_array_equal(label, (row >= 10).float())
    held_out = [next(iter(make_loader(data, np.array([2, 12]), batch_size=2)))[0] for _ in range(2)]
    np.testing.assert_array_equal(held_out[0], held_out[1])
    np.testing.assert_array_equal(held_out[0][1].permute(1, 2, 0), pseudo_fake(photos[2], 2))


def test_added_pseudo_fakes_let_both_classes_grow_by_as_many_rows() -> None:
    labels = np.array([0, 1, 0, 1, 1])
    rows = joined(np.array([0, 1, 2, 3]), labels, 5)
    assert sorted(rows) == [0, 0, 1, 2, 2, 3, 5, 7]
    shown = list(EpochSampler(rows, seed=0))
    assert len({seed for row, seed in shown if row == 0}) == 2
    pairs = paired(Parts(*(np.array(v, np.int64) for v in ([0, 3], [1], [], [4]))), 5)
    assert [part.tolist() for _, part in pairs.items()] == [[0, 3, 5, 8], [1, 6], [], [4, 9]]


def test_held_out_pseudo_fakes_of_plain_photos_show_their_blend(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    plain = rng.integers(60, 196, (80, 1, 1, 3)) + rng.normal(0, 3, (80, 48, 48, 3))
    np.save(tmp_path / "photos.npy", plain.clip(0, 255).astype(np.uint8))
    labels = np.repeat([0, 1], 80)
    data = CachedPhotos(tmp_path / "photos.npy", labels, pseudo_fakes=True)
    unevenness = [uniform_filter(data.pixels(row).mean(axis=-1), 5).std() for row in range(160)]
    assert roc_auc_score(labels, unevenness) > 0.85


def test_a_folder_of_real_photos_alone_trains_a_detector_of_pseudo_fakes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for part, count in (("Train", 200), ("Validation", 60)):  # plain photos, so that a small network sees it in ten epochs
        (tmp_path / "data" / part / "Real").mkdir(parents=True)
        for i in range(count):
            grey = rng.normal(128, 2, (48, 48, 3)).astype(np.uint8)
            Image.fromarray(grey).save(tmp_path / "data" / part / "Real" / f"{i:03d}.png")
    arguments = ["--data", tmp_path / "data", *TINY, *PLATT, "--size", 48, "--dropout", 0]
    assert fit(*arguments, "--out", tmp_path / "refused") == 2
    assert "expected DIR/{Train,Validation}/{Real,Fake}" in capsys.readouterr().err
    assert fit(*arguments, "--out", tmp_path / "run", "--epochs", 10, "--pseudo-fakes", "sbi") == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["counts"]["validation"] == {"real": 60, "fake": 60}
    assert metrics["counts"]["fit"] == {"real": 160, "fake": 160}
    scored = (tmp_path / "run" / "scores.csv").read_text().splitlines()
    assert any(line.startswith("Validation/Real/000.png (pseudo-fake),fake,validation,") for line in scored)
    assert metrics["validation"]["auc"]["value"] > 0.75
    assert "pseudo-fake" in metrics["pseudo_fakes"]
    assert fit(*arguments, "--out", tmp_path / "again", "--epochs", 1, "--pseudo-fakes", "sbi") == 0
    again = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert again["history"] == metrics["history"][:1]


def test_beside_true_fakes_pseudo_fakes_are_fitted_on_and_nowhere_else(tiny_set: Path, tmp_path: Path) -> None:
    arguments = ["--data", tiny_set, "--epochs", 1, *TINY, *PLATT]
    for name, extra in (("plain", []), ("added", ["--pseudo-fakes", "sbi"])):
        assert fit(*arguments, "--out", tmp_path / name, *extra) == 0
    plain, added = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("plain", "added"))
    assert added["counts"] == plain["counts"]
    assert added["history"] != plain["history"]
    assert "the folder's own" in added["pseudo_fakes"]
    assert "pseudo_fakes" not in plain
    names = [line.split(",")[0] for line in (tmp_path / "added" / "scores.csv").read_text().splitlines()]
    assert not [name for name in names if "pseudo" in name]
