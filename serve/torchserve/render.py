"""Turns settings into the files that TorchServe reads, the command that starts it, and its environment."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from detector.worker_settings import PREFIX, WorkerSettings
from serve.jvm.java import find_java, find_torchserve, frontend_jar
from serve.jvm.patches import write_patched_classes
from serve.settings import LOOPBACK, MODEL, Settings

# What the frontend takes beyond the photo, so that a photo just over the limit gets the handler's reason and not an empty 413.
BODY_MARGIN = 16 * 2**20
# Level, logger, thread, and the message with its stack trace, in one line.
LOG_PATTERN = "%p&#9;%c&#9;%t&#9;%enc{%m%n%xEx}{JSON}%n"
# TorchServe's worker imports torch for `isinstance(answer, torch.Tensor)` alone; the handler answers in bytes. The real torch
# costs each worker 3 s of CPU to start and 480 MiB of memory.
TORCH_STAND_IN = '''"""Stands in for torch in workers that run ONNX models; rendered by `unmask serve`."""


class Tensor:
    """What no answer of the handler is."""
'''


@dataclass(frozen=True)
class Layout:
    """Where things lie under a server's state folder; `temporary` is the JVM's, short because sockets are named in it."""

    state: Path
    temporary: Path

    @property
    def config(self) -> Path:
        """TorchServe's config.properties and log4j2.xml."""
        return self.state / "config"

    @property
    def logs(self) -> Path:
        """Log files."""
        return self.state / "logs"

    @property
    def metrics(self) -> Path:
        """The workers' metrics, in prometheus_client's multiprocess files."""
        return self.state / "metrics"

    @property
    def store(self) -> Path:
        """The model store: verified archives and nothing else."""
        return self.state / "store"

    @property
    def engines(self) -> Path:
        """What TensorRT has built, which the next start finds."""
        return self.state / "engines"

    @property
    def work(self) -> Path:
        """The JVM's working directory."""
        return self.state / "work"

    @property
    def keys(self) -> Path:
        """TorchServe's tokens; it writes them to its working directory."""
        return self.work / "key_file.json"

    @property
    def classes(self) -> Path:
        """Java classes that come before TorchServe's own."""
        return self.state / "classes"

    @property
    def python(self) -> Path:
        """Python modules that come before the workers' own."""
        return self.state / "python"

    @property
    def load_error(self) -> Path:
        """Written by a worker that can't load the model."""
        return self.work / "load-error.txt"

    @property
    def access(self) -> Path:
        """Named pipe with a line of the JVM on each answered request."""
        return self.work / "access"

    @property
    def requests(self) -> Path:
        """Named pipe with a line of a worker on each request that reached one."""
        return self.work / "requests"

    @property
    def counting(self) -> Path:
        """Made when the warm-up is over: before, workers count nothing."""
        return self.work / "counting"

    def make(self) -> None:
        """Create the folders."""
        for folder in (self.config, self.logs, self.metrics, self.store, self.engines, self.work, self.classes, self.python):
            folder.mkdir(parents=True, exist_ok=True)
        self.work.chmod(0o700)  # tokens are written to a file there before its mode is made 0600


@dataclass(frozen=True)
class Command:
    """What to start: arguments, the whole environment, and those of its variables that are set here; working directory."""

    arguments: list[str]
    environment: dict[str, str]
    variables: dict[str, str]
    directory: Path


def render(
    settings: Settings, archives: Mapping[str, str], layout: Layout, environment: Mapping[str, str] = os.environ
) -> Command:
    """Write TorchServe's files under `layout` and return the command that starts it with them.

    archives: version to file name in the model store, the default version first.
    Raises `FileError` when there is no Java or no TorchServe.
    """
    layout.make()
    (layout.config / "config.properties").write_text(_properties(config(settings, archives, layout)), encoding="utf-8")
    (layout.config / "log4j2.xml").write_text(_log4j2(settings, layout), encoding="utf-8")
    write_patched_classes(frontend_jar(), layout.classes)
    stand_in = layout.python / "torch.py"
    if settings.archive != "torchscript":
        stand_in.write_text(TORCH_STAND_IN, encoding="utf-8")
    else:
        stand_in.unlink(missing_ok=True)
    # TS_* overrides config.properties; whatever PYTHONPATH named would come before the archive's own packages.
    kept = {k: v for k, v in environment.items() if not k.startswith(("TS_", PREFIX)) and k != "PYTHONHOME"}
    variables = _variables(settings, layout)
    return Command(_arguments(settings, layout, environment), kept | variables, variables, layout.work)


def config(settings: Settings, archives: Mapping[str, str], layout: Layout) -> dict[str, str]:
    """The keys of config.properties."""
    model = {
        "minWorkers": settings.worker_count,
        "maxWorkers": settings.worker_count,
        "batchSize": settings.batch_size,
        "maxBatchDelay": settings.max_batch_delay + 1,  # `serve.jvm.patches` takes it off: 0 would be taken for 100
        "responseTimeout": settings.response_timeout,
        "startupTimeout": settings.startup_timeout,
    }
    default = next(iter(archives))
    models = {
        version: {"defaultVersion": version == default, "marName": archive, **model} for version, archive in archives.items()
    }
    frontend_limit = str(settings.max_body_bytes + BODY_MARGIN)
    return {
        "inference_address": f"http://{settings.host}:{settings.rest_port}",
        "management_address": f"http://{LOOPBACK}:{settings.management_port}",
        "metrics_address": f"http://{LOOPBACK}:{settings.metrics_port}",
        "grpc_inference_address": settings.host,
        "grpc_inference_port": str(settings.grpc_port),
        "grpc_inference_max_connection_age_ms": str(1000 * settings.grpc_connection_age),
        "grpc_management_address": LOOPBACK,
        "grpc_management_port": str(settings.grpc_management_port),
        "model_store": str(layout.store),
        "load_models": ",".join(f"{MODEL}={archive}" for archive in archives.values()),
        "models": json.dumps({MODEL: models}),
        # Nothing is registered at run time, by whatever way: only what lies in the store can be, and the API for it is off.
        "allowed_urls": f"file://{re.escape(str(layout.store))}/.*",
        "enable_model_api": "false",
        "install_py_dep_per_model": "false",
        "enable_envvars_config": "false",
        "disable_token_authorization": str(not settings.token_auth).lower(),
        "token_expiration_min": str(settings.token_minutes),
        "job_queue_size": str(settings.queue_size),
        "max_request_size": frontend_limit,
        "max_response_size": frontend_limit,
        # The handler reads bytes; decoding JSON and text is its own affair.
        "decode_input_request": "false",
        # Without it there is no GRPCInferenceService, the gRPC form of KServe's protocol.
        "ts_open_inference_protocol": "true",
        "number_of_gpu": "0" if settings.device == "cpu" else str(settings.worker_count),
        "default_workers_per_model": str(settings.worker_count),
        "default_response_timeout": str(settings.response_timeout),
        "unregister_model_timeout": str(settings.response_timeout),
        # Ours come from prometheus_client; the system ones start a Python with torch every minute.
        "disable_system_metrics": "true",
        "metrics_mode": "prometheus",
    }


def _properties(values: Mapping[str, str]) -> str:
    """Java's properties format, whose escapes JSON's are too."""
    lines = [f"{key}={json.dumps(value)[1:-1]}" for key, value in values.items()]
    return "# Rendered by `unmask serve`; changes here are lost at the next start.\n" + "\n".join(lines) + "\n"


def _log4j2(settings: Settings, layout: Layout) -> str:
    """Logs to standard output, in the form that `serve.logs.jvm_output` reads, and a line on each request to its pipe.

    They are quiet: stock TorchServe writes several lines a request, which costs a fifth of its throughput.
    """
    # Whoever makes the FIFO reads it too; the JVM would wait for ever to open one that nobody reads. A reader that is late
    # costs lines and delays no answer.
    level, access = settings.log_level.lower(), ""
    if layout.access.is_fifo():
        fifo = escape(str(layout.access), {'"': "&quot;"})
        access = (
            f'<File name="access" fileName="{fifo}" immediateFlush="false">'
            '<PatternLayout pattern="%enc{%m}{CRLF}%n"/></File>'
            '<Async name="requests" blocking="false" bufferSize="16384"><AppenderRef ref="access"/></Async>'
        )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="error" shutdownHook="disable">
  <Appenders>
    <Console name="output" target="SYSTEM_OUT">
      <PatternLayout alwaysWriteExceptions="false" pattern="{LOG_PATTERN}"/>
    </Console>
    {access}
  </Appenders>
  <Loggers>
    <!-- What the workers print: they filter by themselves, and their standard output always arrives as INFO. -->
    <Logger name="MODEL_LOG" level="info" additivity="false"><AppenderRef ref="output"/></Logger>
    <Logger name="ACCESS_LOG" level="{"info" if access else "off"}" additivity="false">
      {'<AppenderRef ref="requests"/>' if access else ""}
    </Logger>
    <Logger name="TS_METRICS" level="off"/>
    <Logger name="MODEL_METRICS" level="off"/>
    <Root level="{level}"><AppenderRef ref="output"/></Root>
  </Loggers>
</Configuration>
"""


def _arguments(settings: Settings, layout: Layout, environment: Mapping[str, str]) -> list[str]:
    """The java command that `ts/model_server.py` would build; its launcher is left out because it orphans the JVM."""
    home = find_torchserve()
    return [
        str(find_java(environment)),
        f"-Dmodel_server_home={home}",
        f"-Dlog4j.configurationFile={(layout.config / 'log4j2.xml').as_uri()}",
        f"-Djava.io.tmpdir={layout.temporary}",
        "-XX:+ExitOnOutOfMemoryError",
        # The frontend has little to do, and what its compiler and collector threads take is missing to the workers.
        *("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
        *settings.java_options.split(),
        "-cp",
        f"{layout.classes}{os.pathsep}{home / 'ts' / 'frontend' / '*'}",
        "org.pytorch.serve.ModelServer",
        "--python",
        sys.executable,
        "-f",
        str(layout.config / "config.properties"),
        "-s",
        str(layout.store),
        "-ncs",
    ]


def _variables(settings: Settings, layout: Layout) -> dict[str, str]:
    """Environment variables for the JVM, which its workers inherit."""
    worker = WorkerSettings(
        device=settings.device,
        threads=settings.worker_threads,
        cuda_graphs=settings.cuda_graphs,
        engine_cache=layout.engines,
        cpu_lock=layout.work / "cpu.lock",
        log_level={"WARN": "WARNING"}.get(settings.log_level, settings.log_level),
        max_body_bytes=settings.max_body_bytes,
        max_photos=settings.max_photos,
        max_pixels=settings.max_pixels,
        max_jpeg_pixels=settings.max_jpeg_pixels,
        load_error=layout.load_error,
        requests=layout.requests,
        counting=layout.counting,
    )
    return {
        "LOG_LOCATION": str(layout.logs),
        "METRICS_LOCATION": str(layout.logs),
        "PROMETHEUS_MULTIPROC_DIR": str(layout.metrics),
        "PYTHONPATH": str(layout.python),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(settings.worker_threads),
        # glibc would make up to eight arenas a CPU, and what is free in one is not used by the others.
        "MALLOC_ARENA_MAX": "2",
        # ONNX Runtime 1.31 keeps a device id and sends usage events to its maker; the Python call for it comes too late.
        "ORT_DISABLE_TELEMETRY": "1",
        **worker.to_env(),
    }
