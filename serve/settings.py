"""Every setting of a server, typed, with one sentence each: a flag of `serve start`, or a variable UNMASK_NAME."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from detector.cpus import available_cpus
from detector.errors import UsageError
from detector.worker_settings import WorkerSettings
from serve.folders import user_folder

MODEL = "detector"
LOOPBACK = "127.0.0.1"
PORTS = {
    "rest_port": "REST",
    "management_port": "management",
    "metrics_port": "TorchServe metrics",
    "grpc_port": "gRPC",
    "grpc_management_port": "gRPC management",
    "supervisor_port": "supervisor",
}
Port = Annotated[int, Field(ge=0, le=65535)]


def default_state_dir() -> Path:
    """`$XDG_STATE_HOME/unmask`, or `~/.local/state/unmask`. Raises `FileError`; see `user_folder`."""
    return user_folder("XDG_STATE_HOME", ".local/state")


class Settings(BaseSettings):
    """The settings of one server."""

    model_config = SettingsConfigDict(env_prefix="UNMASK_", extra="forbid", frozen=True)

    artifacts: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(Path("artifacts"),),
        min_length=1,
        description="Folder that `unmask export` wrote; name several to serve several versions, the default one first.",
    )
    archive: Literal["onnx", "int8", "fp16", "torchscript"] = Field(
        default="onnx", description="Archive to serve: onnx is float32, int8 suits CPUs with VNNI, fp16 suits GPUs."
    )
    state: Path = Field(
        default_factory=default_state_dir,
        description="Folder for the server's files, logs and metrics; each server needs its own.",
    )
    host: str = Field(
        default=LOOPBACK,
        pattern=r"^[^:/\s]+$",  # TorchServe's pattern for addresses does not take IPv6
        description="IPv4 address or host name for REST, gRPC and the supervisor; management stays on loopback.",
    )
    rest_port: Port = Field(default=8080, description="Port for predictions over HTTP; 0 picks a free one.")
    grpc_port: Port = Field(default=7070, description="Port for predictions over gRPC; 0 picks a free one.")
    supervisor_port: Port = Field(default=8090, description="Port for /livez, /readyz and /metrics; 0 picks a free one.")
    management_port: Port = Field(default=8081, description="Port for TorchServe's management; 0 picks a free one.")
    metrics_port: Port = Field(default=8082, description="Port for TorchServe's own metrics; 0 picks a free one.")
    grpc_management_port: Port = Field(default=7071, description="Port for management over gRPC; 0 picks a free one.")
    device: Literal["cpu", "cuda", "tensorrt"] = Field(
        default="cpu", description="Where the model runs; tensorrt needs NVIDIA's TensorRT libraries besides CUDA."
    )
    cuda_graphs: bool = Field(
        default=False, description="Record each batch size as a CUDA graph when a worker starts (GPU only)."
    )
    workers: int = Field(
        default=0,
        ge=0,
        le=256,
        description="Worker processes of each version; 0 starts one per CPU, at most 8, or one on a GPU.",
    )
    threads: int = Field(
        default=0, ge=0, description="Threads of each worker; 0 divides the available CPUs among the workers."
    )
    batch_size: int = Field(default=8, ge=1, le=1024, description="The most requests in one batch.")
    max_batch_delay: int = Field(
        default=0,
        ge=0,
        description="Milliseconds that a request waits for others to join its batch; 0 batches only what is already queued.",
    )
    queue_size: int = Field(
        default=100, ge=1, description="The most requests that wait for each version; further ones get 503."
    )
    max_body_bytes: int = Field(
        default=WorkerSettings.max_body_bytes,
        ge=1024,
        le=2**29,
        description="The largest request, photo or JSON, in bytes.",
    )
    max_photos: int = Field(default=WorkerSettings.max_photos, ge=1, le=1024, description="The most photos in one request.")
    max_pixels: int = Field(
        default=0,
        ge=0,
        description="The most pixels of one photo; those of WebP, AVIF and HEIC count double. 0 takes the model's own bound, "
        "100 million.",
    )
    max_jpeg_pixels: int = Field(
        default=0, ge=0, description="The most pixels of one JPEG; 0 takes the model's own bound, 200 million."
    )
    response_timeout: int = Field(
        default=30, ge=1, description="Seconds after which a worker that does not answer is replaced."
    )
    liveness_timeout: float = Field(
        default=60,
        gt=0,
        description="Seconds without an answer of TorchServe's management after which /livez fails; after twice as many the "
        "server ends.",
    )
    startup_timeout: int = Field(default=110, ge=1, description="Seconds that the workers may take to load the model.")
    warm_up_connections: int = Field(
        default=20,
        ge=0,
        le=1000,
        description="Connections over each protocol that warm up the server before it is ready; 0 turns the warm-up off.",
    )
    drain_limit: float = Field(default=30, ge=0, description="Seconds that unfinished requests may take after TERM.")
    drain_grace: float = Field(
        default=0,
        ge=0,
        description="Seconds to accept requests after TERM, until load balancers notice; then new requests get 503.",
    )
    grpc_connection_age: int = Field(
        default=60,
        ge=1,
        description="Seconds after which clients must open their gRPC connection again, and so find new servers.",
    )
    token_auth: bool = Field(
        default=False, description="Require a token with each prediction; `unmask serve token` prints it."
    )
    token_minutes: int = Field(default=60, ge=1, le=525_600, description="Minutes for which a token is valid.")
    java_options: str = Field(default="", description="More options for the JVM, separated by spaces.")
    access_log_share: float = Field(
        default=0.01, ge=0, le=1, description="Share of the successful requests that are logged; all that fail are."
    )
    otlp_endpoint: str = Field(
        default="",
        pattern=r"^(https?://\S+)?$",
        description="URL of an OTLP receiver for spans, such as http://collector:4318; needs unmask[otel].",
    )
    trace_share: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share of the requests without traceparent that are traced; those with one say themselves.",
    )
    log_level: Literal["ERROR", "WARN", "INFO", "DEBUG"] = Field(default="WARN", description="Lowest severity that is logged.")
    log_format: Literal["auto", "json", "text"] = Field(
        default="auto", description="Form of the log on standard output: auto is text at a terminal and JSON elsewhere."
    )
    log_file: Path | None = Field(
        default=None,
        description="File to append the log to as well, as JSON; it begins anew at 10 MiB, and three earlier ones are kept.",
    )

    @field_validator("artifacts", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """A variable lists folders as PATH does."""
        return value.split(os.pathsep) if isinstance(value, str) else value

    @property
    def worker_count(self) -> int:
        """Workers of each version, where 0 becomes what suits this machine."""
        return self.workers or (min(available_cpus(), 8) if self.device == "cpu" else 1)

    @property
    def worker_threads(self) -> int:
        """Threads of each worker, where 0 becomes its share of the CPUs."""
        return self.threads or max(1, available_cpus() // self.worker_count)

    @property
    def archive_name(self) -> str:
        """File name of the archive in each folder of `artifacts`."""
        return f"detector-{self.archive}.mar"

    def to_env(self) -> dict[str, str]:
        """The settings that were given, as the variables that give the same."""
        values = self.model_dump(include=self.model_fields_set)
        return {
            f"UNMASK_{name.upper()}": os.pathsep.join(map(str, value)) if isinstance(value, tuple) else str(value)
            for name, value in values.items()
        }

    def bind_host(self, port_field: str) -> str:
        """The address that a port is bound to; what only operators need stays on loopback."""
        return self.host if port_field in ("rest_port", "grpc_port", "supervisor_port") else LOOPBACK

    def connect_host(self) -> str:
        """The address at which this machine reaches `host`."""
        return LOOPBACK if self.host == "0.0.0.0" else self.host  # noqa: S104


def load_settings(given: dict[str, Any]) -> Settings:
    """Settings from the flags that were given, then UNMASK_* variables, then defaults.

    Raises `UsageError` naming each setting that can't be, and what would be accepted.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        raise refused(error) from None


def refused(error: ValidationError) -> UsageError:
    """Each setting that can't be as it was given, by its flag, and what would be accepted."""
    problems = []
    for each in error.errors():
        message = each["msg"].removeprefix("Value error, ")
        name = str(each["loc"][-1] if isinstance(each["loc"][-1], str) else each["loc"][0]) if each["loc"] else ""
        problems.append(f"--{name.replace('_', '-')} (UNMASK_{name.upper()}): {message[:1].lower()}{message[1:]}")
    return UsageError("; ".join(problems))
