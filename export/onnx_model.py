"""ONNX: the scoring graph and the curve, exported apart and joined into one checked model."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import onnx.compose
import torch
from torch import Tensor, nn

from detector.calibration import CalibrationCurve
from detector.spec import ImageSpec
from export.curve import Curve
from export.graph import ScoringGraph, example_images

OUTPUTS = ["logit", "raw_prob", "calibrated_prob", "heatmap"]
_CURVE = "calibration/"


def scores_to_onnx(graph: ScoringGraph, spec: ImageSpec, opset: int) -> onnx.ModelProto:
    """`images` to `logit`, `raw_prob` and `heatmap`, with a dynamic batch."""
    return _export(graph, "images", example_images(spec), ["logit", "raw_prob", "heatmap"], opset)


def curve_to_onnx(curve: CalibrationCurve, opset: int) -> onnx.ModelProto:
    """`raw_prob` to `calibrated_prob`, with a dynamic batch."""
    return _export(Curve(curve), "raw_prob", torch.linspace(0, 1, 2), ["calibrated_prob"], opset)


def with_curve(scores: onnx.ModelProto, curve: CalibrationCurve, opset: int) -> onnx.ModelProto:
    """`scores` with the curve after its `raw_prob`: the whole graph, with the outputs in `OUTPUTS`."""
    part = onnx.compose.add_prefix(curve_to_onnx(curve, opset), _CURVE, rename_inputs=False, rename_outputs=False)
    model = onnx.compose.merge_models(scores, part, io_map=[("raw_prob", "raw_prob")], outputs=OUTPUTS)
    del model.opset_import[:]
    model.opset_import.extend(scores.opset_import)  # merging lists both models' operator sets, each time anew
    outputs = {o.name: o for o in model.graph.output}
    del model.graph.output[:]
    model.graph.output.extend(outputs[name] for name in OUTPUTS)
    return model


def without_curve(model: onnx.ModelProto) -> onnx.ModelProto:
    """What `with_curve` was given: the whole graph with its curve taken out, and every other node and weight as it was."""
    scores = onnx.ModelProto()
    scores.CopyFrom(model)
    graph = scores.graph

    def others(entries: Iterable[Any]) -> list[Any]:
        """Those whose name, or a node's outputs, the curve did not bring."""
        names = ((entry, getattr(entry, "output", None) or [entry.name]) for entry in entries)
        return [e for e, own in names if not any(n.startswith(_CURVE) or n == "calibrated_prob" for n in own)]

    for field in (graph.node, graph.initializer, graph.value_info, graph.output):
        kept = others(field)
        del field[:]
        field.extend(kept)
    return scores


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operator set that a model uses."""
    return int(next(entry.version for entry in model.opset_import if entry.domain == ""))


def save_model(model: onnx.ModelProto, path: Path, properties: Mapping[str, str]) -> None:
    """Check a model and write it to one file that says what it is in its metadata properties."""
    model.producer_name, model.producer_version, model.doc_string, model.graph.name = "unmask", "", "", "detector"
    model.graph.doc_string = ""  # merging joins both models'
    onnx.helper.set_model_props(model, dict(properties))
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def extract_curve(path: Path) -> onnx.ModelProto:
    """The part of a written model between `raw_prob` and `calibrated_prob`, to be judged on its own."""
    return onnx.utils.Extractor(onnx.load(path)).extract_model(["raw_prob"], ["calibrated_prob"])


def _export(module: nn.Module, name: str, example: Tensor, outputs: list[str], opset: int) -> onnx.ModelProto:
    batch = torch.export.Dim("batch")
    with _quiet():
        program = torch.onnx.export(
            module.eval(),
            (example,),
            dynamo=True,
            external_data=False,
            input_names=[name],
            output_names=outputs,
            opset_version=opset,
            dynamic_shapes=({0: batch},),
            verbose=False,
        )
    assert program is not None
    return _without_traces(program.model_proto)


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the exporter's notes: stack traces with the paths of the machine it ran on."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints progress marks, warns of its own internals, and logs each operator it registers twice."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
