"""`unmask verify`: what was written is still that, inside and out."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from detector import Manifest, sha256
from export.archive import write_archive
from export.graph import ScoringGraph
from export.torchscript import save_torchscript
from unmask.__main__ import main


@pytest.fixture
def copy(artifacts, tmp_path) -> Path:
    return Path(shutil.copytree(artifacts, tmp_path / "copy"))


def verify(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict]:
    code = main(["verify", str(folder), "--json", *options])
    return code, json.loads(capsys.readouterr().out)


def rehash(folder: Path) -> None:
    """Make the outer manifest vouch for whatever lies beside it now."""
    values = json.loads((folder / "manifest.json").read_text())
    values["files"] = {name: sha256(folder / name) for name in values["files"]}
    (folder / "manifest.json").write_text(json.dumps(values))


def rezip(archive: Path, changes: dict[str, bytes | None]) -> None:
    """Replace files inside an archive; None takes one out."""
    with zipfile.ZipFile(archive) as mar:
        contents: dict[str, bytes | None] = {n: mar.read(n) for n in mar.namelist()}
    with zipfile.ZipFile(archive, "w") as mar:
        for name, data in (contents | changes).items():
            if data is not None:
                mar.writestr(name, data)


def test_what_export_wrote_holds(artifacts, photo_files, capsys):
    code, report = verify(artifacts, capsys, "--photos", str(photo_files[0].parent))
    assert (code, report["ok"]) == (0, True)
    assert set(report["checks"]) == {
        "manifest.json", "model.onnx", "detector-onnx.mar", "detector-torchscript.mar", "parity",
    }  # fmt: skip
    assert report["parity"]["reference"] == "onnx"
    assert report["parity"]["logit"]["torchscript"]["fraction"] <= 1


@pytest.mark.parametrize("name", ["model.onnx", "detector-onnx.mar", "detector-torchscript.mar"])
def test_one_changed_byte_is_found(copy, name, capsys):
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    code, report = verify(copy, capsys)
    assert code == 1
    assert "SHA-256" in report["checks"][name]
    assert [n for n, v in report["checks"].items() if v != "ok"] == [name]
    assert report["parity"] == {}


def test_a_missing_file_is_found(copy, capsys):
    (copy / "detector-torchscript.mar").unlink()
    code, report = verify(copy, capsys)
    assert code == 1
    assert "missing" in report["checks"]["detector-torchscript.mar"]


def test_a_manifest_that_does_not_list_a_file_is_refused(copy, capsys):
    values = json.loads((copy / "manifest.json").read_text())
    del values["files"]["detector-onnx.mar"]
    (copy / "manifest.json").write_text(json.dumps(values))
    code, report = verify(copy, capsys)
    assert code == 1
    assert "does not list detector-onnx.mar" in report["checks"]["manifest.json"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"handlers/__init__.py": None}, "handlers/__init__.py is missing inside"),
        ({"detector/__init__.py": None}, "detector/__init__.py is missing inside"),
        ({"detector_handler.py": None}, "detector_handler.py is missing inside"),
        ({"manifest.json": None}, "manifest.json is missing inside"),
        ({"model.onnx": b"another model"}, "inside, model.onnx: SHA-256"),
        ({"../outside.py": b""}, "would leave its folder"),
    ],
)
def test_an_archive_changed_inside_is_found_though_its_own_hash_is_right(copy, changes, said, capsys):
    rezip(copy / "detector-onnx.mar", changes)
    rehash(copy)
    code, report = verify(copy, capsys)
    assert code == 1
    assert said in report["checks"]["detector-onnx.mar"]


def test_an_archive_with_another_threshold_than_its_folder_is_found(copy, capsys):
    values = json.loads((copy / "manifest.json").read_text())
    values["threshold"] = 0.9
    (copy / "manifest.json").write_text(json.dumps(values))
    code, report = verify(copy, capsys)
    assert code == 1
    assert "another threshold" in report["checks"]["detector-onnx.mar"]


def test_archives_of_two_networks_fail_on_parity_though_every_hash_is_right(copy, capsys):
    class Another(torch.nn.Module):
        def logit_and_map(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x.mean(dim=(1, 2, 3)), x[:, 0, :4, :4]

    spec = Manifest.load(copy / "manifest.json").image_spec
    save_torchscript(ScoringGraph(Another(), spec), spec, copy.parent / "model.pt")
    write_archive(copy / "detector-torchscript.mar", copy.parent / "model.pt", Manifest.load(copy / "manifest.json"))
    rehash(copy)
    code, report = verify(copy, capsys)
    assert code == 1
    assert {n for n, v in report["checks"].items() if v != "ok"} == {"parity"}
    assert "logit, torchscript" in report["checks"]["parity"]


def test_a_folder_that_is_not_there_is_an_error_in_one_line(tmp_path, capsys):
    assert main(["verify", str(tmp_path / "nowhere")]) == 1
    assert "no such folder" in capsys.readouterr().err
