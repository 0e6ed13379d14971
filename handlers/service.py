"""The adapter between TorchServe's worker and the handler's core."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import detector
from detector.errors import FileError, UnmaskError
from detector.worker_settings import WorkerSettings
from handlers.core import Core
from handlers.cpu_lock import CpuLock
from handlers.engine import GpuOptions, load_engine
from handlers.forms.base import Item
from handlers.identity import valid_request_id, valid_traceparent
from handlers.metrics import open_metrics
from handlers.records import RequestRecords
from handlers.socket_reader import install
from handlers.telemetry import Telemetry

# A header that our patched frontend adds, under this name exactly. It holds, with a space between them, when a request came
# (nanoseconds of the monotonic clock), how many waited then, and whether its client is still there.
JOB = "unmask-job"


class Service:
    """What TorchServe calls: `initialize` once in each worker, then `handle` for each batch.

    `WorkerSettings` come through the environment. All are optional, so that the archive also runs on a bare TorchServe.
    """

    _core: Core

    def initialize(self, context: Any) -> None:
        """Load the archive's model.

        Raises `UsageError` for a wrong variable, and `FileError` when the model must not be served; TorchServe then ends the
        worker.
        """
        settings = WorkerSettings.from_env(os.environ)
        if settings.log_level:
            # TorchServe logs two lines for every batch at INFO, and its JVM matches each against regular expressions.
            logging.getLogger().setLevel(settings.log_level)
        if codec := sys.modules.get("ts.protocol.otf_message_handler"):
            install(codec)
        try:
            self._core = _load(context.system_properties, settings)
        except Exception as error:
            if settings.load_error:
                message = error.message if isinstance(error, UnmaskError) else f"{type(error).__name__}: {error}"
                settings.load_error.write_text(message, encoding="utf-8")
            raise

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes]:
        """Answer a batch: one JSON body for each request, in order; over REST each gets its own status."""
        items = [
            request_item(inputs, context.get_request_id(i), context.get_all_request_header(i)) for i, inputs in enumerate(data)
        ]
        bodies = []
        for index, answer in enumerate(self._core.answer(items)):
            # Over gRPC TorchServe drops status and headers; there the status is in the body.
            context.set_response_status(answer.status, "", index)
            context.set_response_content_type(index, "application/json")
            for name, value in answer.headers.items():
                context.set_response_header(index, name, value)
            bodies.append(json.dumps(answer.body).encode())
        return bodies


def request_item(inputs: Mapping[str, Any], job: str | None, headers: Mapping[str, Any]) -> Item:
    """A request. headers: HTTP's and our frontend's, only the latter for gRPC, and by each input's name its content type as a
    mapping."""
    sent = {name.lower(): value for name, value in headers.items() if isinstance(value, str)}
    sent.pop(JOB, None)
    begin, depth, is_open = _facts(headers.get(JOB))
    return Item(
        inputs,
        job,
        explain=sent.get("explain") == "True",  # TorchServe's own, by the path
        # KServe's ModelInfer arrives as a body with a declared type and no HTTP header to have declared it in.
        tensors=not sent and headers.get("body") == {"content-type": "application/json"},
        request_id=valid_request_id(sent.get("x-request-id")),
        trace=valid_traceparent(sent.get("traceparent")),
        closed=is_open == "false",
        queued=_whole(begin),
        depth=_whole(depth),
    )


def _facts(told: Any) -> Sequence[str | None]:
    facts = told.split(" ") if isinstance(told, str) else ()
    return facts if len(facts) == 3 else (None, None, None)


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) < 20 else None


def _load(properties: Mapping[str, Any], settings: WorkerSettings) -> Core:
    directory = Path(properties["model_dir"])
    if not Path(detector.__file__).resolve().is_relative_to(directory.resolve()):
        raise FileError("the worker imported another `detector` than the archive's own; unset PYTHONPATH and start again")
    batch_size = int(properties.get("batch_size") or 1)
    engine = load_engine(
        directory,
        device=choose_device(properties.get("gpu_id"), settings.device),
        threads=settings.threads,
        cpu_lock=CpuLock(settings.cpu_lock) if settings.cpu_lock else None,
        gpu=GpuOptions(batch_size, graphs=settings.cuda_graphs, engine_cache=settings.engine_cache),
    )
    records = RequestRecords(settings.requests)
    core = Core(
        engine,
        Telemetry(open_metrics(engine.manifest), records, counting=settings.counting),
        batch_size=batch_size,
        max_photos=settings.max_photos,
        max_pixels=settings.max_pixels,
        max_jpeg_pixels=settings.max_jpeg_pixels,
        max_body_bytes=settings.max_body_bytes,
    )
    core.warm_up()
    return core


def choose_device(gpu_id: int | None, wanted: str | None) -> str:
    """The GPU that TorchServe assigned to this worker, or the CPU where it assigned none or `wanted` is the CPU."""
    if wanted == "cpu" or (wanted is None and gpu_id is None):
        return "cpu"
    if gpu_id is None:
        raise FileError(f"device {wanted} was asked for, and TorchServe finds no GPU (it asks nvidia-smi); use --device cpu")
    return f"{wanted or 'cuda'}:{gpu_id}"
