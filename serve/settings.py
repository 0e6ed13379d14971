"""Every setting of a server, typed, with one sentence each: a flag of `serve start`, or a variable UNMASK_NAME."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from detector.cpus import available_cpus
from detector.errors import UsageError
from detector.worker_settings import WorkerSettings
from serve.errors import PortTaken

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
    """`$XDG_STATE_HOME/unmask`, or `~/.local/state/unmask` (XDG base directory specification)."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "unmask"


class Settings(BaseSettings):
    """The settings of one server."""

    model_config = SettingsConfigDict(env_prefix="UNMASK_", extra="forbid", frozen=True)

    artifacts: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(Path("artifacts"),),
        min_length=1,
        description="Folder that `unmask export` wrote; more of them for more versions, the first being the default one.",
    )
    archive: Literal["onnx", "int8", "fp16", "torchscript"] = Field(
        default="onnx", description="Which of its archives to serve: onnx is float32, int8 for CPUs with VNNI, fp16 for GPUs."
    )
    state: Path = Field(
        default_factory=default_state_dir, description="Folder for rendered files, logs and metrics; one server each."
    )
    host: str = Field(
        default=LOOPBACK,
        pattern=r"^[^:/\s]+$",  # TorchServe's address pattern leaves no room for IPv6
        description="IPv4 address or name for REST, gRPC and supervisor; management stays on loopback.",
    )
    rest_port: Port = Field(default=8080, description="Port for predictions over HTTP; 0 picks a free one.")
    grpc_port: Port = Field(default=7070, description="Port for predictions over gRPC; 0 picks a free one.")
    supervisor_port: Port = Field(default=8090, description="Port for /livez, /readyz and /metrics; 0 picks a free one.")
    management_port: Port = Field(default=8081, description="Port for TorchServe's management; 0 picks a free one.")
    metrics_port: Port = Field(default=8082, description="Port for TorchServe's own metrics; 0 picks a free one.")
    grpc_management_port: Port = Field(default=7071, description="Port for management over gRPC; 0 picks a free one.")
    device: Literal["cpu", "cuda", "tensorrt"] = Field(
        default="cpu", description="Where the model runs; tensorrt needs NVIDIA's libraries of that name beside CUDA."
    )
    cuda_graphs: bool = Field(
        default=False, description="On a GPU, record each batch size as one CUDA graph when the worker starts."
    )
    workers: int = Field(
        default=0, ge=0, le=256, description="Worker processes of each version; 0: one a CPU, at most 8 (GPU: one)."
    )
    threads: int = Field(default=0, ge=0, description="Threads of each worker; 0: the CPUs this process may use, shared out.")
    batch_size: int = Field(default=8, ge=1, le=1024, description="Most requests that a worker takes at once.")
    max_batch_delay: int = Field(
        default=0,
        ge=0,
        description="Milliseconds that a request waits for others to join its batch; 0: what waits already joins.",
    )
    queue_size: int = Field(
        default=100, ge=1, description="Requests that may wait for each version; more are refused with 503."
    )
    max_body_bytes: int = Field(
        default=WorkerSettings.max_body_bytes,
        ge=1024,
        le=2**29,
        description="Largest request that is accepted, photo or JSON, in bytes.",
    )
    max_photos: int = Field(
        default=WorkerSettings.max_photos, ge=1, le=1024, description="Most photos that one request may have."
    )
    response_timeout: int = Field(
        default=30, ge=1, description="Seconds after which a worker that does not answer is replaced."
    )
    startup_timeout: int = Field(default=110, ge=1, description="Seconds that the workers may take to load the model.")
    drain_limit: float = Field(default=30, ge=0, description="Seconds that requests in hand may take to finish after TERM.")
    drain_grace: float = Field(
        default=0,
        ge=0,
        description="Seconds to go on serving after TERM, for load balancers to notice; then new requests get 503.",
    )
    grpc_connection_age: int = Field(
        default=60,
        ge=1,
        description="Seconds after which a gRPC connection is asked to begin anew, so that clients find new servers.",
    )
    token_auth: bool = Field(
        default=False, description="Ask for a token with each prediction; `unmask serve token` prints it."
    )
    token_minutes: int = Field(default=60, ge=1, le=525_600, description="Minutes for which a token is good.")
    java_options: str = Field(default="", description="More options for the JVM, separated by spaces.")
    log_level: Literal["ERROR", "WARN", "INFO", "DEBUG"] = Field(default="WARN", description="Least severity that is logged.")

    @field_validator("artifacts", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """A variable lists folders as PATH does."""
        return value.split(os.pathsep) if isinstance(value, str) else value

    @property
    def worker_count(self) -> int:
        """Workers of each version after 0 has been replaced by what fits this machine."""
        return self.workers or (min(available_cpus(), 8) if self.device == "cpu" else 1)

    @property
    def worker_threads(self) -> int:
        """Threads of each worker after 0 has been replaced."""
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
        """The address that a port is bound on: what only operators need stays on loopback."""
        return self.host if port_field in ("rest_port", "grpc_port", "supervisor_port") else LOOPBACK

    def connect_host(self) -> str:
        """Where this machine reaches what is bound on `host`."""
        return LOOPBACK if self.host == "0.0.0.0" else self.host  # noqa: S104

    def with_ports(self) -> Settings:
        """The settings with free ports in place of zeros. Raises `PortTaken`, naming the port, when one is not to be had."""
        held: list[socket.socket] = []
        ports: dict[str, int] = {}
        try:
            for field, purpose in PORTS.items():
                port, host = getattr(self, field), self.bind_host(field)
                try:
                    held.append(_listening(host, port))
                except OSError as error:
                    flag = "--" + field.replace("_", "-")
                    raise PortTaken(
                        f"port {port} ({purpose}) is not free on {host} ({error.strerror}); choose another with {flag}"
                    ) from None
                ports[field] = held[-1].getsockname()[1]
        finally:
            for listener in held:
                listener.close()
        return self.model_copy(update=ports)


def _listening(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free to listen on
        listener.bind((host, port))
        listener.listen(1)
    except OSError:
        listener.close()
        raise
    return listener


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
