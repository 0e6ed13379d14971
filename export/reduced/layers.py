"""The layers of a scoring graph that may be computed in fewer bits: its convolutions, and what lies between them."""

from __future__ import annotations

import onnx

Layers = dict[str, list[str]]
_ACTIVATIONS = {"Relu", "Clip"}
_AS_THEY_ARE = {"Cast", "Resize"}  # one changes types, and scales of the other must stay float32


def find_layers(model: onnx.ModelProto) -> Layers:
    """Name of each convolution, in the order of the graph, to the names of the nodes that are computed as it is.

    Those are the convolution, its activation, and what follows it on the way to another one. Normalisation, the last feature
    map, pooling, head, heatmap and sigmoid are on no such way, and in no layer.
    """
    nodes = onnx.shape_inference.infer_shapes(model).graph
    floats = {v.name for v in (*nodes.value_info, *nodes.output) if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    graph = list(nodes.node)
    made_by = {name: i for i, node in enumerate(graph) for name in node.output}
    before = [{made_by[name] for name in node.input if name in made_by} for node in graph]
    leads_on = [False] * len(graph)
    for i in reversed(range(len(graph))):
        if leads_on[i] or graph[i].op_type == "Conv":
            for j in before[i]:
                leads_on[j] = True
    owners: list[int | None] = []
    layers: Layers = {}
    for i, node in enumerate(graph):
        if node.op_type == "Conv":
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
