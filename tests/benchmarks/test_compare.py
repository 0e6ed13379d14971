"""Two benchmarks compared: a known regression is found, noise is none, and intervals hold what they promise."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from benchmarks import compare
from benchmarks.compare import BETTER, SAME, UNCLEAR, WORSE, compare_samples
from benchmarks.load import closed_loop
from benchmarks.load.checker import AnswerChecker
from benchmarks.photos import Photo, drawn_photos
from benchmarks.report.samples import NAME, SampleFile, read_samples, write_samples
from tests.serve.running import RunningServer
from unmask.__main__ import main

NAME_OF_LOAD = "rest, 8 clients"


def load(
    seed: int, *, name: str = NAME_OF_LOAD, rate: float = 200.0, median: float = 20.0, tail: float = 1.0, wrong: float = 0.0
) -> dict[str, Any]:
    """Ten seconds of a server: a drawn load whose speed wanders, as a shared machine's does."""
    rng = np.random.default_rng(seed)
    n = int(rate * 10)
    started = np.sort(rng.uniform(0, 10, n))
    wander = 1 + 0.03 * np.sin(2 * np.pi * (started / 4 + rng.random()))
    took = median * wander * rng.lognormal(0, 0.2, n)
    took = np.where(rng.random(n) < 0.03, took * 4 * tail, took)
    problems = np.where(rng.random(n) < wrong, "status 503", "")
    return {"name": name, "started": (1e9 + started).tolist(), "milliseconds": took.tolist(), "problems": problems.tolist()}


@pytest.fixture(autouse=True)
def few_replicates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for these changes, in a fifth of the time."""
    monkeypatch.setattr(compare, "REPLICATES", 200)


def file(folder: Path, *runs: dict[str, Any], **about: Any) -> SampleFile:
    folder.mkdir()
    write_samples(folder / NAME, about, runs)
    return read_samples(folder)


def verdicts(a: SampleFile, b: SampleFile, tolerance: float = 0.1) -> dict[str, str]:
    (found,) = compare_samples(a, b, tolerance=tolerance)["loads"]
    return {ratio["metric"]: ratio["verdict"] for ratio in found["ratios"]}


@pytest.mark.parametrize(
    ("change", "metric"),
    [({"rate": 150.0}, "throughput"), ({"median": 26.0}, "p50"), ({"tail": 2.0}, "p99"), ({"wrong": 0.3}, "throughput")],
)
def test_a_regression_is_found_in_its_metric_and_an_improvement_too(
    change: dict[str, float], metric: str, tmp_path: Path
) -> None:
    good, bad = file(tmp_path / "good", load(1)), file(tmp_path / "bad", load(2, **change))
    assert verdicts(good, bad)[metric] == WORSE
    assert compare_samples(good, bad, tolerance=0.1)["ok"] is False
    assert verdicts(bad, good)[metric] == BETTER
    assert compare_samples(bad, good, tolerance=0.1)["ok"] is True


def test_the_same_server_twice_is_no_regression(tmp_path: Path) -> None:
    found = [verdicts(file(tmp_path / f"a{i}", load(i)), file(tmp_path / f"b{i}", load(50 + i))) for i in range(5)]
    assert all(WORSE not in each.values() and BETTER not in each.values() for each in found)
    assert all(each["throughput"] == each["p50"] == SAME for each in found)


def test_a_change_within_the_tolerance_is_none_and_one_at_its_edge_is_unclear(tmp_path: Path) -> None:
    a = file(tmp_path / "a", load(1))
    slower = file(tmp_path / "b", load(2, median=26.0))
    assert verdicts(a, slower, tolerance=0.5)["p50"] == SAME
    assert verdicts(a, slower, tolerance=0.3)["p50"] == UNCLEAR
    assert compare_samples(a, slower, tolerance=0.3)["ok"] is True


def test_intervals_hold_the_true_ratio_about_as_often_as_they_say(tmp_path: Path) -> None:
    """Of 40 intervals of 95 %, 38 are expected to hold the ratio, 1; fewer than 34 would be so at 1 in 60."""
    held = {"throughput": 0, "p50": 0, "p99": 0}
    for i in range(40):
        a, b = file(tmp_path / f"a{i}", load(i)), file(tmp_path / f"b{i}", load(100 + i))
        for ratio in compare_samples(a, b, tolerance=0.1)["loads"][0]["ratios"]:
            held[ratio["metric"]] += ratio["low"] <= 1 <= ratio["high"]
    assert min(held.values()) >= 34, held


def test_rounds_of_one_name_count_together(tmp_path: Path) -> None:
    one, three = file(tmp_path / "one", load(1)), file(tmp_path / "three", load(2), load(3), load(4))

    def width(a: SampleFile, b: SampleFile) -> float:
        p50 = compare_samples(a, b, tolerance=0.1)["loads"][0]["ratios"][1]
        return float(p50["high"] - p50["low"])

    assert width(three, three) < width(one, one)


def test_too_few_answers_give_no_tail(tmp_path: Path) -> None:
    found = compare_samples(file(tmp_path / "a", load(1)), file(tmp_path / "b", load(2, rate=20.0)), tolerance=0.1)
    assert [ratio["metric"] for ratio in found["loads"][0]["ratios"]] == ["throughput", "p50"]
    assert any("too few for p99" in note for note in found["notes"])


def test_a_server_without_a_right_answer_is_worse(tmp_path: Path) -> None:
    a, dead = file(tmp_path / "a", load(1)), file(tmp_path / "b", load(2, wrong=1.0))
    found = compare_samples(a, dead, tolerance=0.1)
    assert found["ok"] is False
    assert any("B has no right answer" in note for note in found["notes"])


def test_what_differs_besides_the_server_is_said(tmp_path: Path) -> None:
    a = file(tmp_path / "a", load(1), {**load(1, name="open"), "rate": 100.0}, machine="one", manifest_sha256="1")
    b = file(tmp_path / "b", load(1), {**load(1, name="open"), "rate": 90.0}, load(1, name="more"), machine="two")
    notes = "\n".join(compare_samples(a, b, tolerance=0.1)["notes"])
    for said in (
        "machines differ: one; two",
        "models differ",
        "planned rates differ, 100 and 90",
        "only one of the two has more",
    ):
        assert said in notes


def test_the_command_ends_with_1_where_it_is_worse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file(tmp_path / "a", load(1), machine="m")
    file(tmp_path / "b", load(2, median=30.0), machine="m")
    a, b, out = str(tmp_path / "a"), str(tmp_path / "b"), tmp_path / "out" / "compare.json"
    assert main(["bench", "compare", a, b, "--out", str(out)]) == 1
    shown = capsys.readouterr()
    assert [line.split()[-1] for line in shown.out.splitlines() if " p50 " in line] == [WORSE]
    assert "tolerance" in shown.err
    assert json.loads(out.read_text())["ok"] is False
    assert main(["bench", "compare", a, b, "--tolerance", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
    assert main(["bench", "compare", a, str(tmp_path / "b" / NAME), "--tolerance", "1"]) == 0


@pytest.mark.parametrize("content", [b"", b"{}", b"\x1f\x8b broken", b'{"about": {}, "runs": [{"name": "x"}]}'])
def test_a_file_that_holds_no_samples_is_refused_by_its_name(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_bytes(content)
    assert main(["bench", "compare", str(wrong), str(wrong)]) == 1
    assert "wrong.json: holds no samples" in capsys.readouterr().err


def test_files_without_a_common_load_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file(tmp_path / "a", load(1, name="one"))
    file(tmp_path / "b", load(1, name="two"))
    assert main(["bench", "compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 1
    assert "one there, two here" in capsys.readouterr().err
    assert main(["bench", "compare", str(tmp_path / "a"), str(tmp_path / "missing")]) == 1


def test_a_real_server_is_like_itself_and_slower_with_large_photos(
    server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same photos twice, and one that takes long to decode, in turn: whatever the machine does meets all three."""
    monkeypatch.setattr(compare, "LEAST_ANSWERS", {"throughput": 10, "p50": 10, "p99": 10**9})
    address = urlsplit(server.record.rest_url)
    large = BytesIO()
    Image.linear_gradient("L").resize((3000, 3000)).convert("RGB").save(large, "PNG")
    photos = {"a": drawn_photos(8), "b": drawn_photos(8), "large": [Photo("large", large.getvalue())]}
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in photos}
    for name in ("a", "b", "large") * 6:
        bodies = [photo.data for photo in photos[name]]
        found = closed_loop.run(str(address.hostname), address.port or 80, bodies, clients=2, seconds=0.4)
        problems = closed_loop.check(found, photos[name], AnswerChecker())
        took = {"started": [r.started for r in found], "milliseconds": [r.milliseconds for r in found]}
        rounds[name].append({"name": NAME_OF_LOAD, **took, "problems": problems})
    a, b, slow = (file(tmp_path / name, *rounds[name]) for name in photos)
    assert WORSE not in verdicts(a, b, tolerance=1.0).values()
    assert verdicts(a, slow, tolerance=1.0) == {"throughput": WORSE, "p50": WORSE}
