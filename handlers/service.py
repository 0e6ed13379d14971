"""The thin adapter between TorchServe's worker and the handler's core."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import detector
from detector.errors import FileError, UnmaskError
from handlers.core import Core
from handlers.cpu_lock import Turns
from handlers.engine import GpuOptions, load_engine
from handlers.metrics import Metrics, open_metrics
from handlers.renewal import renew_past
from handlers.requests import MAX_BODY_BYTES, MAX_PHOTOS, Item

# W3C Trace Context, version 00 and what later ones have in common with it; zeros and version ff are invalid.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Service:
    """What TorchServe calls: `initialize` once in each worker, then `handle` for each batch.

    The supervisor passes these through the environment, all optional, so that the archive also runs on a bare TorchServe:
    UNMASK_WORKER_DEVICE (cpu, cuda or tensorrt), UNMASK_WORKER_GRAPHS (1: record CUDA graphs), UNMASK_WORKER_ENGINES (a
    folder for what TensorRT builds), UNMASK_WORKER_THREADS (per operator; 0: all CPUs), UNMASK_WORKER_TURNS (a file by
    which workers know of each other), UNMASK_WORKER_GROWTH (bytes past which it begins anew), UNMASK_WORKER_LOG_LEVEL,
    UNMASK_MAX_BODY_BYTES, UNMASK_MAX_PHOTOS, and UNMASK_LOAD_ERROR, a file that the reason is written to when the model
    can't be loaded.
    """

    _core: Core

    def initialize(self, context: Any) -> None:
        """Load the archive's model. Raises `FileError` when it must not be served; TorchServe then ends the worker."""
        if level := os.environ.get("UNMASK_WORKER_LOG_LEVEL"):
            # TorchServe logs two lines for every batch at INFO, and its JVM matches each against regular expressions.
            logging.getLogger().setLevel(level)
        try:
            metrics = open_metrics()
            self._core = _load(context.system_properties, os.environ, metrics)
        except Exception as error:
            if path := os.environ.get("UNMASK_LOAD_ERROR"):
                message = error.message if isinstance(error, UnmaskError) else f"{type(error).__name__}: {error}"
                Path(path).write_text(message, encoding="utf-8")
            raise
        if growth := os.environ.get("UNMASK_WORKER_GROWTH"):
            renew_past(int(growth), context, metrics.renewal)

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes]:
        """Answer a batch: one JSON body for each request, in order; over REST each gets its own status."""
        items = [_item(inputs, context.get_request_id(i), context.get_all_request_header(i)) for i, inputs in enumerate(data)]
        bodies = []
        for index, (item, answer) in enumerate(zip(items, self._core.answer(items), strict=True)):
            # Over gRPC TorchServe drops status and headers; there the status is in the body.
            context.set_response_status(answer.status, "", index)
            context.set_response_content_type(index, "application/json")
            if item.trace:
                context.set_response_header(index, "traceparent", item.trace)
            bodies.append(json.dumps(answer.body).encode())
        return bodies


def _item(inputs: Mapping[str, Any], request_id: str | None, headers: Mapping[str, Any]) -> Item:
    """A request. headers: HTTP's, none for gRPC, and by each input's name its content type as a mapping."""
    names = {name.lower(): value for name, value in headers.items() if isinstance(value, str)}
    trace = names.get("traceparent", "")
    return Item(
        inputs,
        request_id,
        explain=names.get("explain") == "True",  # TorchServe's own, by the path
        # KServe's ModelInfer arrives as a body with a declared type and no HTTP header to have declared it in.
        tensors=not names and headers.get("body") == {"content-type": "application/json"},
        trace=trace if _TRACEPARENT.fullmatch(trace) else None,
    )


def _load(properties: Mapping[str, Any], environment: Mapping[str, str], metrics: Metrics) -> Core:
    directory = Path(properties["model_dir"])
    if not Path(detector.__file__).resolve().is_relative_to(directory.resolve()):
        raise FileError("the worker imported another `detector` than the archive's own; unset PYTHONPATH and start again")
    engine = load_engine(
        directory,
        device=choose_device(properties.get("gpu_id"), environment.get("UNMASK_WORKER_DEVICE")),
        threads=int(environment.get("UNMASK_WORKER_THREADS", "0")),
        turns=Turns(Path(turns)) if (turns := environment.get("UNMASK_WORKER_TURNS")) else None,
        gpu=GpuOptions(
            batch_size=int(properties.get("batch_size") or 1),
            graphs=environment.get("UNMASK_WORKER_GRAPHS") == "1",
            engines=Path(engines) if (engines := environment.get("UNMASK_WORKER_ENGINES")) else None,
        ),
    )
    core = Core(
        engine,
        metrics,
        batch_size=int(properties.get("batch_size") or 1),
        max_photos=int(environment.get("UNMASK_MAX_PHOTOS", str(MAX_PHOTOS))),
        max_body_bytes=int(environment.get("UNMASK_MAX_BODY_BYTES", str(MAX_BODY_BYTES))),
    )
    core.warm_up()
    return core


def choose_device(gpu_id: int | None, wanted: str | None) -> str:
    """The GPU that TorchServe dealt to this worker, or the CPU where it has none or the CPU was asked for."""
    if wanted == "cpu" or (wanted is None and gpu_id is None):
        return "cpu"
    if gpu_id is None:
        raise FileError(f"device {wanted} was asked for, and TorchServe finds no GPU (it asks nvidia-smi); use --device cpu")
    return f"{wanted or 'cuda'}:{gpu_id}"
