"""float16: halves weights on disk, and for GPUs the layers themselves."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LARGE = 2**14  # elements; what is smaller is not worth a rounding


def in_half(model: onnx.ModelProto, nodes: Collection[str]) -> onnx.ModelProto:
    """The model with `nodes` (names) on float16, between casts, and all others as they were.

    onnxruntime's own converter sends what passes between two float32 nodes through float16 too: the logit on its way to the
    sigmoid, and pixels on theirs to the first layer.
    """
    model = onnx.shape_inference.infer_shapes(model)
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    known = (*graph.value_info, *graph.output)
    floats = {v.name for v in known if v.type.tensor_type.elem_type == TensorProto.FLOAT} | set(weights)
    inside = [node for node in graph.node if node.name in nodes]
    made = {name for node in inside for name in node.output}
    read_outside = {name for node in graph.node if node.name not in nodes for name in node.input}
    read_outside |= {output.name for output in graph.output}
    changed: list[onnx.NodeProto] = []
    there: set[str] = set()

    def half(name: str) -> str:
        """The float16 twin of a tensor, made where there is none yet."""
        twin = f"{name}_half" if name in floats else name
        if name in floats - made - there:
            there.add(name)
            if name in weights:
                graph.initializer.append(_rounded(weights[name], twin))
            else:
                changed.append(helper.make_node("Cast", [name], [twin], name=f"{twin}_cast", to=TensorProto.FLOAT16))
        return twin

    for node in graph.node:
        copy = onnx.NodeProto.FromString(node.SerializeToString())
        if node.name in nodes:
            copy.input[:] = [half(name) for name in node.input]
            copy.output[:] = [half(name) for name in node.output]
        changed.append(copy)
        if node.name in nodes:
            casts = [name for name in node.output if name in read_outside]
            changed += [helper.make_node("Cast", [half(n)], [n], name=f"{n}_cast", to=TensorProto.FLOAT) for n in casts]
    return _with(model, changed)


def weights_in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its large float32 weights stored as float16, each behind a cast: what reads them computes in float32.

    ONNX Runtime makes the cast once, when the model is loaded.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) >= LARGE:
            name = tensor.name
            tensor.CopyFrom(_rounded(tensor, f"{name}_stored"))
            casts.append(helper.make_node("Cast", [tensor.name], [name], name=f"{name}_cast", to=TensorProto.FLOAT))
    return _with(result, [*casts, *graph.node])


def _rounded(tensor: TensorProto, name: str) -> TensorProto:
    """A float32 tensor in float16; what is beyond its range becomes its largest number."""
    largest = float(np.finfo(np.float16).max)
    return numpy_helper.from_array(numpy_helper.to_array(tensor).clip(-largest, largest).astype(np.float16), name)


def _with(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    """The model with other nodes, and without weights that none of them reads."""
    graph, result = model.graph, onnx.ModelProto()
    result.CopyFrom(model)
    read = {name for node in nodes for name in node.input}
    for field in (result.graph.node, result.graph.value_info, result.graph.initializer):
        del field[:]
    result.graph.node.extend(nodes)
    result.graph.initializer.extend(tensor for tensor in graph.initializer if tensor.name in read)
    return result
