"""Batches through IO binding at fixed sizes: the same scores as a plain run gives, whatever came before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detector.devices import Device
from detector.errors import FileError
from detector.manifest import Manifest
from detector.scorer import OUTPUTS, open_session, run_graph
from detector.tolerance import TOLERANCES, disagreement
from handlers import engine
from handlers.engine import GpuEngine, GpuOptions
from handlers.io_binding import IoBindingSession, bucket_sizes


def test_sizes_are_powers_of_two_up_to_the_largest() -> None:
    assert [bucket_sizes(n) for n in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]


@pytest.mark.parametrize("graphs", [False, True])
def test_scores_of_any_number_of_photos_are_those_of_a_plain_run(artifacts: Path, graphs: bool) -> None:
    shape = Manifest.load(artifacts / "manifest.json").image_spec.shape
    session = open_session(artifacts / "model.onnx", threads=1)
    runner = IoBindingSession(session, Device("cpu"), shape, 4, graphs=graphs)
    rng = np.random.default_rng(0)
    for count in (3, 1, 4, 2, 11, 1):
        images = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
        for heatmap in (False, True, False):
            names = (*OUTPUTS, "heatmap") if heatmap else OUTPUTS
            found = runner.run(images, heatmap=heatmap)
            assert len(found) == len(names)
            for name, one, other in zip(names, found, run_graph(session, images, names), strict=True):
                assert not disagreement(one, other, TOLERANCES[name])


def test_a_result_outlives_the_next_batch(artifacts: Path) -> None:
    shape = Manifest.load(artifacts / "manifest.json").image_spec.shape
    runner = IoBindingSession(open_session(artifacts / "model.onnx", threads=1), Device("cpu"), shape, 2)
    rng = np.random.default_rng(1)
    first = runner.run(rng.integers(0, 256, (2, *shape), dtype=np.uint8))[0]
    kept = first.copy()
    runner.run(rng.integers(0, 256, (2, *shape), dtype=np.uint8))
    assert np.array_equal(first, kept)


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("cpu", Device("cpu")),
        ("cuda", Device("cuda", 0)),
        ("cuda:3", Device("cuda", 3)),
        ("tensorrt:1", Device("tensorrt", 1)),
    ],
)
def test_a_device_is_known_by_its_name(name: str, device: Device) -> None:
    assert Device.parse(name) == device
    assert device.name == ("cpu" if name == "cpu" else f"cuda:{device.index}")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cpu:1", "", "tensorrt:-1"])
def test_any_other_name_is_refused_with_those_that_work(name: str) -> None:
    with pytest.raises(FileError, match="cpu, cuda, cuda:N, tensorrt and tensorrt:N are accepted"):
        Device.parse(name)


def test_tensorrt_leaves_to_cuda_and_cuda_to_the_cpu_what_they_lack(tmp_path: Path) -> None:
    chain = Device("tensorrt", 2).providers(graphs=True, engines=tmp_path)
    assert [name if isinstance(name, str) else name[0] for name in chain] == [
        *("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
    ]
    tensorrt, cuda = chain[0][1], chain[1][1]
    assert tensorrt["device_id"] == cuda["device_id"] == "2"
    assert tensorrt["trt_engine_cache_path"] == str(tmp_path)
    assert tensorrt["trt_cuda_graph_enable"] == "1"
    assert "enable_cuda_graph" not in cuda, "one of them records"
    assert Device("cuda").providers(graphs=True)[0][1]["enable_cuda_graph"] == "1"
    assert Device("cpu").providers(graphs=True) == ["CPUExecutionProvider"]


def test_without_recorded_graphs_photos_are_scored_all_the_same(
    artifacts: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On a GPU a layer may have no CUDA kernel; here the CPU stands for one that can't record."""

    def on_cpu(path: Path, *, device: str, graphs: bool, engines: Path | None) -> object:
        if graphs:
            raise FileError("model.onnx: ONNX Runtime can't load it (a node is not on CUDA)")
        return open_session(path, threads=1)

    monkeypatch.setattr(engine, "open_session", on_cpu)
    monkeypatch.setattr(Device, "memory", "cpu")
    manifest = Manifest.load(artifacts / "manifest.json")
    gpu = GpuEngine(artifacts / "model.onnx", manifest, device="cuda:0", options=GpuOptions(4, graphs=True))
    assert "CUDA graphs can't be recorded" in caplog.text
    images = np.random.default_rng(2).integers(0, 256, (3, *manifest.image_spec.shape), dtype=np.uint8)
    plain = run_graph(open_session(artifacts / "model.onnx", threads=1), images, (*OUTPUTS, "heatmap"))
    for name, one, other in zip((*OUTPUTS, "heatmap"), gpu.run(images, heatmap=True), plain, strict=True):
        assert one is not None
        assert not disagreement(one, other, TOLERANCES[name])
    assert gpu.run(images).heatmap is None
    assert gpu.device == "cuda:0"
