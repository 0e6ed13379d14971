"""What a supervisor tells the workers that it starts: one typed value, carried by environment variables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from detector.errors import UsageError

PREFIX = "UNMASK_WORKER_"
DEVICES = ("cpu", "cuda", "tensorrt")
LOG_LEVELS = ("ERROR", "WARNING", "INFO", "DEBUG")


def _whole(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise ValueError(f"a whole number from {least} is accepted")
        return int(text)

    return read


def _one_of(*accepted: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in accepted:
            raise ValueError(f"{', '.join(accepted)} are accepted")
        return text

    return read


def _switch(text: str) -> bool:
    return _one_of("0", "1")(text) == "1"


def _path(text: str) -> Path:
    if not text:
        raise ValueError("a path is accepted")
    return Path(text)


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class WorkerSettings:
    """The settings of one worker. The defaults suit a TorchServe that nobody supervises.

    device: cpu, cuda or tensorrt; None takes the GPU that TorchServe assigns, or the CPU where it assigns none.
    threads: per operator; 0 takes all CPUs. cuda_graphs: record CUDA graphs. engine_cache: folder for TensorRT's engines.
    cpu_lock: file by which the workers on one machine know whether another one computes. log_level: of the worker's log.
    max_body_bytes, max_photos: the most that one request may have. max_pixels, max_jpeg_pixels: the most that one photo may
    have; 0 takes the model's own bound. load_error: file for the reason why a model can't be
    loaded. requests: named pipe for a line on each request. counting: nothing is counted before this file is there; None
    counts always.
    """

    device: str | None = field(default=None, metadata={"read": _one_of(*DEVICES)})
    threads: int = field(default=0, metadata={"read": _whole(0)})
    cuda_graphs: bool = field(default=False, metadata={"read": _switch})
    engine_cache: Path | None = field(default=None, metadata={"read": _path})
    cpu_lock: Path | None = field(default=None, metadata={"read": _path})
    log_level: str | None = field(default=None, metadata={"read": _one_of(*LOG_LEVELS)})
    max_body_bytes: int = field(default=32 * 2**20, metadata={"read": _whole(1)})
    max_photos: int = field(default=32, metadata={"read": _whole(1)})
    max_pixels: int = field(default=0, metadata={"read": _whole(0)})
    max_jpeg_pixels: int = field(default=0, metadata={"read": _whole(0)})
    load_error: Path | None = field(default=None, metadata={"read": _path})
    requests: Path | None = field(default=None, metadata={"read": _path})
    counting: Path | None = field(default=None, metadata={"read": _path})

    def to_env(self) -> dict[str, str]:
        """A variable for each setting that has a value."""
        values = {PREFIX + each.name.upper(): getattr(self, each.name) for each in fields(self)}
        return {name: _text(value) for name, value in values.items() if value is not None}

    @classmethod
    def from_env(cls, environment: Mapping[str, str]) -> WorkerSettings:
        """The settings in `environment`. Raises `UsageError`, naming the variable, for a wrong value or an unknown name."""
        known = {PREFIX + each.name.upper(): each for each in fields(cls)}
        values: dict[str, Any] = {}
        for name, text in environment.items():
            if not name.startswith(PREFIX):
                continue
            if name not in known:
                raise UsageError(f"{name} is no setting of a worker; these are: {', '.join(known)}")
            try:
                values[known[name].name] = known[name].metadata["read"](text)
            except ValueError as error:
                raise UsageError(f"{name} is {text!r}; {error}") from None
        return cls(**values)
