"""Verdicts and failures, put into the form that the request had."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from detector.verdict import ModelIdentity
from handlers.requests import Form, Item, Request

Body = dict[str, Any]
NUMBERS = ("logit", "raw_prob", "calibrated", "confidence")  # of a verdict, as KServe v2's tensors of FP32


@dataclass(frozen=True)
class Answer:
    """The HTTP status and the JSON body for one request."""

    status: int
    body: Body


def answer(request: Request, item: Item, bodies: Sequence[Body], model: ModelIdentity) -> Answer:
    """One answer from what was found on each of a request's photos: a verdict's JSON or its failing form.

    Over HTTP it is a success when any photo has a verdict, and otherwise has the first one's status.
    """
    failed = None if any(body["ok"] for body in bodies) else bodies[0]
    status = failed["status"] if failed else 200
    if request.form is Form.ONE:
        return Answer(status, bodies[0])
    if request.form is Form.LIST:
        return Answer(status, {"predictions": list(bodies)})
    # JSON has no NaN; TorchServe, which makes gRPC of this, takes it and does not survive null.
    outputs = _outputs(bodies, hole=math.nan if item.tensors else None)
    body = {
        "model_name": model.name,
        "model_version": model.version,
        "id": request.id or item.request_id or "",
        "outputs": [output for output in outputs if not request.outputs or output["name"] in request.outputs],
    }
    return Answer(status, body | ({"error": failed["error"]["message"]} if failed else {}))


def _outputs(bodies: Sequence[Body], hole: float | None) -> list[Body]:
    """KServe v2's tensors, a row for each photo; `hole` stands for numbers that a failed photo has not."""
    errors = [body.get("error", {}) for body in bodies]
    outputs = [
        _tensor("prediction", "BYTES", [body.get("prediction", "") for body in bodies]),
        *(_tensor(name, "FP32", [body.get(name, hole) for body in bodies]) for name in NUMBERS),
        _tensor("status", "INT32", [body.get("status", 200) for body in bodies]),
        _tensor("error_code", "BYTES", [error.get("code", "") for error in errors]),
        _tensor("error_message", "BYTES", [error.get("message", "") for error in errors]),
    ]
    explanations = [body.get("explanation") for body in bodies]
    if found := next((e for e in explanations if e), None):
        height, width = len(found["heatmap"]), len(found["heatmap"][0])
        blank = [[hole] * width] * height
        heat = [value for e in explanations for row in (e["heatmap"] if e else blank) for value in row]
        outputs.append(_tensor("heatmap", "FP32", heat, [len(bodies), height, width]))
        outputs.append(_tensor("overlay_png", "BYTES", [e["overlay_png"] if e else "" for e in explanations]))
    return outputs


def _tensor(name: str, datatype: str, data: list[Any], shape: list[int] | None = None) -> Body:
    return {"name": name, "datatype": datatype, "shape": shape or [len(data)], "data": data}
