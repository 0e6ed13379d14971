"""Versions of the model that are worse than the first: what a person may put beside it in good faith."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from detector import Manifest, sha256
from export.archive import write_archive

LAST_LAYER = "net.head.4."


def _changed(artifacts: Path, out: Path, version: str, change: Callable[[onnx.GraphProto], None]) -> Path:
    """Artifacts of another version, whose graph is changed."""
    out.mkdir()
    model = onnx.load(artifacts / "model.onnx")
    change(model.graph)
    onnx.save(model, out / "model.onnx")
    before = Manifest.load(artifacts / "manifest.json")
    manifest = replace(before, model=replace(before.model, version=version))
    archive = out / "detector-onnx.mar"
    write_archive(archive, out / "model.onnx", manifest)
    files = {path.name: sha256(path) for path in (archive, out / "model.onnx")}
    replace(manifest, files=files).save(out / "manifest.json")
    return out


def _last_layer(graph: onnx.GraphProto, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change the numbers of the layer that gives the logit."""
    found = [each for each in graph.initializer if each.name.startswith(LAST_LAYER)]
    assert {each.name for each in found} == {f"{LAST_LAYER}weight", f"{LAST_LAYER}bias"}
    for each in found:
        each.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(each)), each.name))


def _slower(graph: onnx.GraphProto) -> None:
    """Put a convolution before the first one that has much to do and changes nothing: all its kernel but the middle is 0."""
    position, first = next((i, node) for i, node in enumerate(graph.node) if node.op_type == "Conv")
    size, channels = 51, 3
    kernel = np.zeros((channels, channels, size, size), np.float32)
    kernel[range(channels), range(channels), size // 2, size // 2] = 1
    graph.initializer.append(numpy_helper.from_array(kernel, "slow.kernel"))
    slow = onnx.helper.make_node("Conv", [first.input[0], "slow.kernel"], ["slow.output"], pads=[size // 2] * 4)
    first.input[0] = "slow.output"
    graph.node.insert(position, slow)


def swapped(artifacts: Path, out: Path, version: str = "2.0") -> Path:
    """A version that was trained on labels which somebody had swapped: it calls real what is fake."""
    return _changed(artifacts, out, version, lambda graph: _last_layer(graph, np.negative))


def broken(artifacts: Path, out: Path, version: str = "2.0") -> Path:
    """A version whose training diverged: its last layer is not a number."""
    return _changed(artifacts, out, version, lambda graph: _last_layer(graph, lambda numbers: np.full_like(numbers, np.nan)))


def heavy(artifacts: Path, out: Path, version: str = "2.0") -> Path:
    """A version that gives the same answers with much more work."""
    return _changed(artifacts, out, version, _slower)
