"""The archives: what TorchServe needs and nothing else, running by themselves, the same bytes for the same run."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from detector import Manifest, sha256
from export.archive import write_archive

ARCHIVES = {"detector-onnx.mar": "model.onnx", "detector-torchscript.mar": "model.pt"}


@pytest.mark.parametrize("archive", ARCHIVES)
def test_torchserve_finds_its_manifest_the_model_and_the_entry_point(artifacts, archive):
    with zipfile.ZipFile(artifacts / archive) as mar:
        names = set(mar.namelist())
        inf = json.loads(mar.read("MAR-INF/MANIFEST.json"))
    assert inf["model"] == {
        "modelName": "detector",
        "modelVersion": "1.0",
        "serializedFile": ARCHIVES[archive],
        "handler": "detector_handler.py",
    }
    assert {"detector_handler.py", "manifest.json", "detector/decode/image.py", "handlers/detector_handler.py"} <= names
    assert {n for n in names if n.startswith("model.")} == {ARCHIVES[archive]}


@pytest.mark.parametrize("archive", ARCHIVES)
def test_only_code_goes_in_from_the_packages(artifacts, archive):
    with zipfile.ZipFile(artifacts / archive) as mar:
        inside = [n for n in mar.namelist() if n.startswith(("detector/", "handlers/"))]
    assert inside
    assert not [n for n in inside if "__pycache__" in n or "test" in n or n.endswith(".pyc")]


@pytest.mark.parametrize("archive", ARCHIVES)
def test_the_manifest_inside_vouches_for_the_model_inside(artifacts, archive, tmp_path):
    with zipfile.ZipFile(artifacts / archive) as mar:
        mar.extractall(tmp_path)
    inner, outer = Manifest.load(tmp_path / "manifest.json"), Manifest.load(artifacts / "manifest.json")
    assert inner.files == {ARCHIVES[archive]: sha256(tmp_path / ARCHIVES[archive])}
    inner.verify(tmp_path)
    assert {**inner.to_dict(), "files": {}} == {**outer.to_dict(), "files": {}}


@pytest.mark.parametrize("archive", ARCHIVES)
def test_it_scores_a_photo_with_nothing_but_what_is_inside(artifacts, archive, tmp_path, photo_files):
    """In a folder of its own and a process that sees no other copy of these packages."""
    with zipfile.ZipFile(artifacts / archive) as mar:
        mar.extractall(tmp_path)
    program = f"""
import sys
sys.path[:0] = [{str(tmp_path)!r}]
import detector, handlers.engine, pathlib
assert pathlib.Path(detector.__file__).is_relative_to({str(tmp_path)!r}), detector.__file__
engine = handlers.engine.load_engine(pathlib.Path({str(tmp_path)!r}))
pixels = detector.decode_image(pathlib.Path({str(photo_files[0])!r}).read_bytes(), engine.manifest.image_spec)
print(engine.run(pixels[None], heatmap=True).calibrated_prob[0])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 0 <= float(done.stdout) <= 1


def test_the_same_contents_give_the_same_bytes_even_when_written_at_once(artifacts, tmp_path):
    """torch-model-archiver assembles every archive of one model name in one folder under the system's temp."""
    manifest = Manifest.load(artifacts / "manifest.json")
    paths = [tmp_path / f"{i}.mar" for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda path: write_archive(path, artifacts / "model.onnx", manifest), paths))
    assert {sha256(p) for p in paths} == {sha256(artifacts / "detector-onnx.mar")}
    assert sorted(p.name for p in tmp_path.iterdir()) == [p.name for p in paths]
