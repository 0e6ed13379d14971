"""KServe v2, the Open Inference Protocol: https://github.com/kserve/open-inference-protocol."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from detector.verdict import ModelIdentity
from handlers.errors import BadRequest, MissingImage
from handlers.forms.base import Body, Content, Data, Form, Item, Request, check_count, decoded, parameters_of

_TEXTS = ("request_id", "traceparent")
_NUMBERS = ("logit", "raw_prob", "calibrated", "confidence", "cropped")
# Outputs of every answer: name, datatype, and the value for one photo, from its verdict's JSON or its failing form.
_OUTPUTS: tuple[tuple[str, str, Callable[[Body, float | None], Any]], ...] = (
    ("prediction", "BYTES", lambda body, missing: body.get("prediction", "")),
    *((name, "FP32", lambda body, missing, name=name: body.get(name, missing)) for name in _NUMBERS),
    ("status", "INT32", lambda body, missing: body.get("status", 200)),
    ("error_code", "BYTES", lambda body, missing: body.get("error", {}).get("code", "")),
    ("error_message", "BYTES", lambda body, missing: body.get("error", {}).get("message", "")),
)
_BAND = "uncertain"  # of models that have one
_EXPLANATION_OUTPUTS = ("heatmap", "overlay_png")
_NAMES = (*(name for name, _, _ in _OUTPUTS), _BAND, *_EXPLANATION_OUTPUTS)


class KServeV2(Form):
    """JSON with `inputs`, a list of tensors; KServe's ModelInfer over gRPC arrives so too."""

    example = '{"inputs": [{"name": "images", "shape": [n], "datatype": "BYTES", "data": ["…", …]}]}'
    protocol = "v2"

    def accepts(self, content: Content) -> bool:
        """Whether there are `inputs`."""
        return content.document is not None and "inputs" in content.document

    def refused(self, content: Content) -> Request:
        """The caller's id alone."""
        own = (content.document or {}).get("id")
        return Request((), self, id=own if isinstance(own, str) else None)

    def read(self, content: Content) -> Request:
        """The photos, the parameters, the caller's id and choice of outputs."""
        document = content.document or {}
        tensors = _tensors(document["inputs"])
        outputs = _wanted(document.get("outputs"))
        return Request(
            _photos(tensors.get("images", {}), content),
            self,
            parameters_of(document) | _switches(tensors),
            explain=not {*_EXPLANATION_OUTPUTS}.isdisjoint(outputs),
            id=self.refused(content).id,
            outputs=outputs,
        )

    def body(self, request: Request, item: Item, bodies: Sequence[Body], model: ModelIdentity) -> Body:
        """Tensors with a row for each photo; `error` when no photo has a verdict."""
        # JSON has no NaN; TorchServe, which makes gRPC of this, takes NaN and does not survive null.
        outputs = _rows(bodies, missing=math.nan if item.tensors else None)
        body = {
            "model_name": model.name,
            "model_version": model.version,
            "id": request.id or request.request_id or "",
            "outputs": [output for output in outputs if not request.outputs or output["name"] in request.outputs],
        }
        return body if any(each["ok"] for each in bodies) else body | {"error": bodies[0]["error"]["message"]}


def _tensors(inputs: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(inputs, list) or not all(isinstance(t, dict) and isinstance(t.get("name"), str) for t in inputs):
        raise BadRequest(f"inputs must be a list of tensors with names, as in {KServeV2.example}")
    return {tensor["name"]: tensor for tensor in inputs}


def _photos(images: dict[str, Any], content: Content) -> list[Data | Exception]:
    data, shape = images.get("data"), images.get("shape")
    if images.get("datatype") != "BYTES" or not isinstance(data, list):
        raise BadRequest(f"inputs must hold a tensor images of datatype BYTES, as in {KServeV2.example}")
    if not data:
        raise MissingImage(
            "the tensor images is empty; over gRPC send photos as contents.bytes_contents, raw_input_contents do not arrive"
        )
    if not isinstance(shape, list) or not all(isinstance(n, int) for n in shape) or math.prod(shape) != len(data):
        raise BadRequest(f"the tensor images has {len(data)} photos; its shape must be [{len(data)}]")
    check_count(data, content)
    return [decoded(text) for text in data]


def _switches(tensors: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Parameters as tensors of one element: all that TorchServe passes on of gRPC. Texts are in base64, as photos are."""
    found = {key: tensors[key].get("data") for key in ("use_calib", "explain", *_TEXTS) if key in tensors}
    values = {key: data[0] for key, data in found.items() if isinstance(data, list) and data}
    return values | {key: decoded(values[key]) for key in _TEXTS if key in values}


def _wanted(outputs: Any) -> tuple[str, ...]:
    """Names of the outputs that the caller wants."""
    if outputs is None:
        return ()
    names = [output.get("name") for output in outputs if isinstance(output, dict)] if isinstance(outputs, list) else []
    if not names or any(name not in _NAMES for name in names):
        raise BadRequest(f'outputs is a list of {{"name": "…"}}; there are {", ".join(_NAMES)}')
    return tuple(str(name) for name in names)


def _rows(bodies: Sequence[Body], missing: float | None) -> list[Body]:
    """The tensors; `missing` stands for the numbers that a failed photo does not have."""
    tensors = [_tensor(name, datatype, [value(body, missing) for body in bodies]) for name, datatype, value in _OUTPUTS]
    if any(_BAND in body for body in bodies):
        ends = [end for body in bodies for end in body.get(_BAND, [missing, missing])]
        tensors.append(_tensor(_BAND, "FP32", ends, [len(bodies), 2]))
    explanations = [body.get("explanation") for body in bodies]
    if found := next((e for e in explanations if e), None):
        height, width = len(found["heatmap"]), len(found["heatmap"][0])
        blank = [[missing] * width] * height
        heat = [value for e in explanations for row in (e["heatmap"] if e else blank) for value in row]
        tensors.append(_tensor("heatmap", "FP32", heat, [len(bodies), height, width]))
        tensors.append(_tensor("overlay_png", "BYTES", [e["overlay_png"] if e else "" for e in explanations]))
    return tensors


def _tensor(name: str, datatype: str, data: list[Any], shape: list[int] | None = None) -> Body:
    return {"name": name, "datatype": datatype, "shape": shape or [len(data)], "data": data}
