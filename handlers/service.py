"""The thin adapter between TorchServe's worker and the handler's core."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import detector
from detector.errors import FileProblem, UnmaskError
from handlers.core import MAX_BODY_BYTES, Core, Item
from handlers.engine import load_engine
from handlers.metrics import open_metrics


class Service:
    """What TorchServe calls: `initialize` once in each worker, then `handle` for each batch.

    The supervisor passes these through the environment, all optional, so that the archive also runs on a bare TorchServe:
    UNMASK_WORKER_DEVICE (cpu or cuda), UNMASK_WORKER_THREADS (per operator; 0: all CPUs), UNMASK_WORKER_LOG_LEVEL,
    UNMASK_MAX_BODY_BYTES, and UNMASK_LOAD_ERROR, a file that the reason is written to when the model can't be loaded.
    """

    _core: Core

    def initialize(self, context: Any) -> None:
        """Load the archive's model. Raises `FileProblem` when it must not be served; TorchServe then ends the worker."""
        if level := os.environ.get("UNMASK_WORKER_LOG_LEVEL"):
            # TorchServe logs two lines for every batch at INFO, and its JVM matches each against regular expressions.
            logging.getLogger().setLevel(level)
        try:
            self._core = _load(context.system_properties, os.environ)
        except Exception as error:
            if path := os.environ.get("UNMASK_LOAD_ERROR"):
                message = error.message if isinstance(error, UnmaskError) else f"{type(error).__name__}: {error}"
                Path(path).write_text(message, encoding="utf-8")
            raise

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes]:
        """Answer a batch: one JSON body for each request, in order; over REST each gets its own status."""
        items = [Item(inputs, context.get_request_id(index)) for index, inputs in enumerate(data)]
        bodies = []
        for index, answer in enumerate(self._core.answer(items)):
            # Over gRPC TorchServe drops the status; there it is in the body.
            context.set_response_status(answer.status, "", index)
            context.set_response_content_type(index, "application/json")
            bodies.append(json.dumps(answer.body).encode())
        return bodies


def _load(properties: Mapping[str, Any], environment: Mapping[str, str]) -> Core:
    directory = Path(properties["model_dir"])
    if not Path(detector.__file__).resolve().is_relative_to(directory.resolve()):
        raise FileProblem("the worker imported another `detector` than the archive's own; unset PYTHONPATH and start again")
    engine = load_engine(
        directory,
        device=choose_device(properties.get("gpu_id"), environment.get("UNMASK_WORKER_DEVICE")),
        threads=int(environment.get("UNMASK_WORKER_THREADS", "0")),
    )
    core = Core(engine, open_metrics(), max_body_bytes=int(environment.get("UNMASK_MAX_BODY_BYTES", str(MAX_BODY_BYTES))))
    core.warm_up(int(properties.get("batch_size") or 1))
    return core


def choose_device(gpu_id: int | None, wanted: str | None) -> str:
    """The GPU that TorchServe dealt to this worker, or the CPU where it has none or the CPU was asked for."""
    if wanted == "cpu" or (wanted is None and gpu_id is None):
        return "cpu"
    if gpu_id is None:
        raise FileProblem("device cuda was asked for, and TorchServe finds no GPU (it asks nvidia-smi); use --device cpu")
    return f"cuda:{gpu_id}"
