"""The matrix: its plan is checked key by key, and a run goes on where the last one stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from benchmarks.matrix.plan import read_plan, servers
from benchmarks.matrix.rows import append_row, read_rows
from benchmarks.matrix.run import is_stable
from detector import FileError, UsageError
from tests.conftest import ROOT
from unmask.__main__ import main

CLOSED = {"loop": "closed", "users": 2}


def plan_file(folder: Path, **changes: object) -> Path:
    (folder / "artifacts").mkdir(exist_ok=True)
    (folder / "artifacts" / "manifest.json").write_text("{}")
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump({"artifacts": [str(folder / "artifacts")], "load": [CLOSED], **changes}))
    return path


def test_every_combination_is_a_cell_and_those_of_a_server_stand_together(tmp_path: Path):
    loads = [CLOSED, {"loop": "open", "rate": 20}]
    plan = read_plan(plan_file(tmp_path, workers=[1, 2], batch=[1, 4, 8], load=loads))
    cells = plan.cells()
    assert len(cells) == len({cell.id for cell in cells}) == 12
    assert [len(group) for _, group in servers(cells)] == [2] * 6
    assert [cell.id for cell in plan.cells()] == [cell.id for cell in cells]
    (tmp_path / "artifacts" / "manifest.json").write_text('{"another": "model"}')
    assert {cell.id for cell in plan.cells()}.isdisjoint(cell.id for cell in cells)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lod": []}, "key lod is unknown; these are known: artifacts, device, "),
        ({"load": []}, "key load: "),
        ({"load": [CLOSED, {"loop": "open", "rate": 0}]}, "key load.1.rate: should be greater than 0, not 0"),
        ({"load": [CLOSED | {"rate": 4}]}, "key load.0.rate is unknown; these are known: loop, protocol, users"),
        ({"load": [{"loop": "closed"}]}, "key load.0.users is missing"),
        ({"load": [{"users": 4}]}, "key load.0.loop must be one of closed, open"),
        ({"load": [{"loop": "half-open"}]}, "key load.0.loop must be one of closed, open"),
        ({"load": [{"loop": "open", "rate": 5, "mix": "foto=1"}]}, "key load.0.mix: foto=1: 'foto=1' is no share"),
        ({"device": ["tpu"]}, "key device.0: "),
        ({"workers": [-1]}, "key workers.0: should be greater than or equal to 0, not -1"),
        ({"batch": 8}, "key batch: "),
        ({"windows": 2}, "key windows: "),
        ({"window": "long"}, "key window: "),
    ],
)
def test_a_plan_that_is_wrong_names_its_key(changes: dict[str, object], said: str, tmp_path: Path):
    with pytest.raises(UsageError) as caught:
        read_plan(plan_file(tmp_path, **changes))
    assert said in caught.value.message
    assert "plan.yaml" in caught.value.message


@pytest.mark.parametrize(("text", "said"), [("[1, 2]", "table of keys"), ("a: [", "not YAML"), ("", "table of keys")])
def test_what_is_no_plan_is_said(text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    assert main(["bench", "matrix", str(path)]) == 2
    assert said in capsys.readouterr().err
    assert main(["bench", "matrix", str(tmp_path / "none.yaml")]) == 1


def test_the_example_is_a_plan():
    plan = read_plan(ROOT / "benchmarks" / "matrix" / "example.yaml")
    assert len(plan.load) == 3


def test_missing_artifacts_are_said(tmp_path: Path):
    with pytest.raises(FileError, match="holds no manifest"):
        read_plan(plan_file(tmp_path, artifacts=[str(tmp_path / "none")])).cells()


def test_a_row_that_was_cut_off_is_measured_again(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    append_row(path, {"id": "a", "failed": ""})
    append_row(path, {"id": "b", "failed": "no"})
    with path.open("ab") as file:
        file.write(b'{"id": "c", "fai')
    assert list(read_rows(path)) == ["a", "b"]
    append_row(path, {"id": "b", "failed": ""})
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["a", "b", "b"]
    assert read_rows(path)["b"]["failed"] == ""


def test_another_file_is_not_taken_for_results(tmp_path: Path):
    path = tmp_path / "notes.txt"
    path.write_text("to do\nand more\n")
    with pytest.raises(FileError, match="line 1 is no row"):
        read_rows(path)


def test_three_windows_within_five_percent_are_stable():
    steady = (100.0, 20.0)
    assert not is_stable([steady, steady])
    assert is_stable([(50.0, 40.0), steady, (104.0, 20.5), (101.0, 20.0)])
    assert not is_stable([steady, steady, (112.0, 20.0)])
    assert not is_stable([steady, steady, (100.0, 25.0)])
    assert not is_stable([(0.0, 0.0)] * 3)


@pytest.mark.serve
def test_a_real_matrix_has_a_row_for_each_cell_and_measures_none_twice(
    artifacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    plan = {
        "artifacts": [str(artifacts)],
        "archive": ["onnx", "int8"],  # int8 was not exported
        "workers": [1],
        "load": [CLOSED, {"loop": "open", "rate": 10, "mix": "photo=1,bad=1"}],
        "window": 1,
        "windows": 3,
        "photo_count": 4,
    }
    path, out = tmp_path / "plan.yaml", tmp_path / "rows.jsonl"
    path.write_text(yaml.safe_dump(plan))
    assert main(["bench", "matrix", str(path), "--out", str(out)]) == 1
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    if "load generator can't keep" in (rows[1]["failed"] or ""):
        pytest.skip("this machine is too busy to send ten requests a second in time")
    assert [bool(row["failed"]) for row in rows] == [False, False, True, True]
    for row in rows[:2]:
        assert row["failures"] == 0
        assert row["requests_per_second"] > 0
        assert len(row["windows"]) == 3
    assert all("int8" in row["failed"] for row in rows[2:])
    printed = capsys.readouterr()
    assert "2 of 4 cells could not be measured" in printed.err
    assert all(row["name"] in printed.out for row in rows)
    # Again: the two that failed, and nothing else.
    assert main(["bench", "matrix", str(path), "--out", str(out)]) == 1
    again = [json.loads(line)["id"] for line in out.read_text().splitlines()[4:]]
    assert again == [row["id"] for row in rows[2:]]
