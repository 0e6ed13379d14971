"""int8: convolutions and linear layers on 8-bit integers, for CPUs that multiply those faster (VNNI)."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
from onnxruntime.quantization import CalibrationDataReader, QDQQuantizer, QuantType, create_calibrator
from tqdm import tqdm

from export.reduced.layers import find_layers
from export.runners import Pixels

_OPERATORS = [
    "Conv", "MatMul", "Relu", "Clip", "Add", "Mul", "Sigmoid", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool",
]  # fmt: skip
_BATCH = 4


class Int8:
    """Static quantisation of a float model: 8-bit weights, a scale for each output channel, and 8-bit activations whose
    ranges were seen on `photos`, as pairs of QuantizeLinear and DequantizeLinear that ONNX Runtime fuses into integer
    operators (Jacob et al., arXiv 1712.05877). Of a linear layer on tokens the product alone: a few values of what is added to
    the tokens are far larger than all others (Dettmers et al., arXiv 2208.07339).
    """

    def __init__(self, model: onnx.ModelProto, photos: Pixels) -> None:
        self._model = onnx.shape_inference.infer_shapes(model)
        kinds = {node.name: node.op_type for node in model.graph.node}
        linear = [nodes for name, nodes in find_layers(model).items() if kinds[name] == "MatMul"]
        self._float = {node for _, *after in linear for node in after}
        with tempfile.TemporaryDirectory(prefix="unmask-int8-") as scratch, _quiet():
            plain = Path(scratch) / "model.onnx"
            onnx.save(self._model, plain)
            calibrator = create_calibrator(plain, _OPERATORS, augmented_model_path=str(Path(scratch) / "ranges.onnx"))
            calibrator.collect_data(_Reader(photos))
            self._ranges = calibrator.compute_data()

    def __call__(self, nodes: Collection[str]) -> onnx.ModelProto:
        """The model with `nodes` (names) on integers and all others as they were."""
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        if not nodes:
            return model
        with _quiet():
            quantizer = QDQQuantizer(
                model,
                per_channel=True,
                reduce_range=False,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QUInt8,
                tensors_range=self._ranges,
                nodes_to_quantize=[node for node in nodes if node not in self._float],
                nodes_to_exclude=[],
                op_types_to_quantize=_OPERATORS,
                extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul"]},
            )
            quantizer.quantize_model()
            quantizer.model.topological_sort()
        quantised: onnx.ModelProto = quantizer.model.model
        return quantised


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Photos in small batches, as ONNX Runtime's calibrator asks for them."""

    def __init__(self, photos: Pixels) -> None:
        starts = range(0, len(photos), _BATCH)
        self._batches = iter(tqdm([photos[i : i + _BATCH] for i in starts], desc="ranges", unit="batch", leave=False))

    def get_next(self) -> dict[str, Pixels] | None:
        """The next batch, None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}


@contextmanager
def _quiet() -> Iterator[None]:
    """ONNX Runtime's quantiser tells the root logger about every bias and scale it adjusts."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
