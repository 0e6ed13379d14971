"""The layers of a scoring graph that may be computed in fewer bits: convolutions, linear layers on tokens, what is between."""

from __future__ import annotations

import onnx

Layers = dict[str, list[str]]
_ACTIVATIONS = {"Relu", "Clip"}
_AS_THEY_ARE = {
    *("Cast", "Resize"),  # one changes types, and scales of the other must stay float32
    *("LayerNormalization", "RMSNormalization", "Softmax", "ReduceL2", "Pow", "Sqrt"),  # sums and squares of many values
}
_TOKENS = 3  # dimensions of float32[N, tokens, C] at least; the head's layers have two


def find_layers(model: onnx.ModelProto) -> Layers:
    """Name of each convolution and linear layer on tokens, in the order of the graph, to the nodes that are computed as it is.

    Those are itself, its activation, and what follows it on the way to another one, layer norms and softmax apart. The input's
    normalisation, the last feature map, pooling, head, heatmap and sigmoid are on no such way, and in no layer.
    """
    nodes = onnx.shape_inference.infer_shapes(model).graph
    dimensions = {v.name: len(v.type.tensor_type.shape.dim) for v in nodes.value_info}
    weights = {tensor.name for tensor in nodes.initializer}

    def is_layer(node: onnx.NodeProto) -> bool:
        linear = node.op_type == "MatMul" and node.input[1] in weights and dimensions.get(node.input[0], 0) >= _TOKENS
        return linear or node.op_type == "Conv"

    floats = {v.name for v in (*nodes.value_info, *nodes.output) if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    graph = list(nodes.node)
    made_by = {name: i for i, node in enumerate(graph) for name in node.output}
    before = [{made_by[name] for name in node.input if name in made_by} for node in graph]
    leads_on = [False] * len(graph)
    for i in reversed(range(len(graph))):
        if leads_on[i] or is_layer(graph[i]):
            for j in before[i]:
                leads_on[j] = True
    owners: list[int | None] = []
    layers: Layers = {}
    for i, node in enumerate(graph):
        if is_layer(node):
            owners.append(i)
            layers[node.name] = [node.name]
            continue
        owner = max((o for j in before[i] if (o := owners[j]) is not None), default=None)
        owners.append(owner)
        if owner is None or node.op_type in _AS_THEY_ARE or not floats.issuperset(node.output):
            continue
        if leads_on[i] or (node.op_type in _ACTIVATIONS and owner in before[i]):
            layers[graph[owner].name].append(node.name)
    return layers


def first_layers(model: onnx.ModelProto, layers: Layers, among: set[str]) -> list[str]:
    """Those of `among` with none of `among` before them: what reads the photo, or what float layers made of it."""
    reached: set[str] = set()  # tensors that come from a layer of `among`
    first = []
    for node in model.graph.node:
        inside = reached.intersection(node.input)
        if node.name in layers and node.name in among and not inside:
            first.append(node.name)
        if inside or node.name in among:
            reached.update(node.output)
    return first
