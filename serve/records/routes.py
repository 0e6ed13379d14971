"""What is asked for, by the method and the path of a request: its kind and the version of the model."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from serve.settings import MODEL

UNKNOWN = "unknown"  # the version where it is none that is served: what clients may write is no label's value
_REST = (
    ("predict", "/predictions/{model}"),
    ("predict", "/predictions/{model}/{version}{rest}"),
    ("explain", "/explanations/{model}"),
    ("explain", "/explanations/{model}/{version}{rest}"),
    ("predict", "/invocations"),
    ("predict", "/models/{model}/invoke"),
    ("v1", "/v1/models/{model}:predict"),
    ("v1", "/v1/models/{model}:explain"),
    ("v2", "/v2/models/{model}/infer"),
    ("v2", "/v2/models/{model}/explain"),
    ("v2", "/v2/models/{model}/versions/{version}/infer"),
)
# TorchServe's oldest paths: any model may be their first part, so that what is not counted comes before them.
_OLDEST = (("predict", "/{model}/predict"), ("predict", "/{model}/{version}/predict"))
# Health, descriptions and management: an operator's questions, whatever their answer is.
_UNCOUNTED = re.compile(
    r"/(ping|models|metrics|token|api-description|workflows|wfpredict|v1/models|v2|v2/health|v2/models)(/.*)?"
)
_GRPC = {
    "org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions": "predict",
    "org.pytorch.serve.grpc.inference.InferenceAPIsService/StreamPredictions": "predict",
    "org.pytorch.serve.grpc.inference.InferenceAPIsService/StreamPredictions2": "predict",
    "org.pytorch.serve.grpc.openinference.GRPCInferenceService/ModelInfer": "v2",
    "inference.GRPCInferenceService/ModelInfer": "v2",
}


class Route(NamedTuple):
    """kind: predict, explain, v1, v2 or other. version: as asked for; empty takes the default one, and unknown is another
    model's. template: the path with names in place of values, as OpenTelemetry's `http.route`; for gRPC the method."""

    kind: str
    version: str = ""
    template: str = ""


OTHER = Route("other", UNKNOWN)


def _compiled(templates: tuple[tuple[str, str], ...]) -> list[tuple[str, str, re.Pattern[str]]]:
    parts = {"{model}": "(?P<model>[^/]+)", "{version}": "(?P<version>[^/]+)", "{rest}": "(?:/.*)?"}
    compiled = []
    for kind, template in templates:
        pattern = template
        for name, part in parts.items():
            pattern = pattern.replace(name, part)
        compiled.append((kind, template.replace("{rest}", ""), re.compile(pattern)))
    return compiled


_BEFORE, _AFTER = _compiled(_REST), _compiled(_OLDEST)


@lru_cache(maxsize=1024)
def grpc_route(method: str) -> Route | None:
    """The route of a gRPC method; None for what is not counted: health, metadata and management."""
    kind = _GRPC.get(method)
    return Route(kind, template=method) if kind else None


@lru_cache(maxsize=1024)
def rest_route(method: str, path: str) -> Route | None:
    """The route of an HTTP request, path without its query; None for what is not counted.

    A path that the frontend does not know is of kind other, as is a request that it can't read.
    """
    if method == "OPTIONS":
        return None
    path = unquote(path).rstrip("/")
    if found := _find(_BEFORE, path):
        return found
    return None if _UNCOUNTED.fullmatch(path) else _find(_AFTER, path) or OTHER


def _find(routes: list[tuple[str, str, re.Pattern[str]]], path: str) -> Route | None:
    for kind, template, pattern in routes:
        if found := pattern.fullmatch(path):
            asked = found.groupdict()
            version = asked.get("version") or "" if asked.get("model", MODEL) == MODEL else UNKNOWN
            return Route(kind, version, template)
    return None
