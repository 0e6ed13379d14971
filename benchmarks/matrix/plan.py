"""The plan of a matrix: a YAML file, checked key by key, and the cells that it stands for."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from benchmarks.load.mix import Mix
from detector.errors import FileError, UsageError
from detector.files import shown

LOOPS = ("closed", "open")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClosedLoad(_Strict):
    """Clients that each wait for their answer."""

    loop: Literal["closed"]
    protocol: Literal["rest", "grpc"] = "rest"
    users: int = Field(ge=1)


class OpenLoad(_Strict):
    """Requests at planned times."""

    loop: Literal["open"]
    protocol: Literal["rest", "grpc"] = "rest"
    rate: float = Field(gt=0, allow_inf_nan=False)
    arrivals: Literal["constant", "poisson"] = "poisson"
    mix: str = "plain"

    @field_validator("mix")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            Mix.parse(value)
        except UsageError as error:
            raise ValueError(error.message.removeprefix("--mix ")) from None
        return value


AnyLoad = Annotated[ClosedLoad | OpenLoad, Field(discriminator="loop")]


class Plan(_Strict):
    """What to measure: every combination of the lists."""

    artifacts: Annotated[list[Path], Field(min_length=1)]
    device: Annotated[list[Literal["cpu", "cuda", "tensorrt"]], Field(min_length=1)] = ["cpu"]
    archive: Annotated[list[Literal["onnx", "int8", "fp16", "torchscript"]], Field(min_length=1)] = ["onnx"]
    workers: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0]
    batch: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] = [8]
    load: Annotated[list[AnyLoad], Field(min_length=1)]
    window: Annotated[float, Field(ge=0.5)] = 5.0
    windows: Annotated[int, Field(ge=3)] = 10
    photos: Path | None = None
    photo_count: Annotated[int, Field(ge=1)] = 100

    def cells(self) -> list[Cell]:
        """All combinations; those that one server can measure are neighbours. Raises `FileError` for missing artifacts."""
        models = {folder: _fingerprint(folder) for folder in self.artifacts}
        lists = (self.artifacts, self.device, self.archive, self.workers, self.batch)
        return [
            Cell(ServerCell(str(folder), models[folder], device, archive, workers, batch), load)
            for folder, device, archive, workers, batch in itertools.product(*lists)
            for load in self.load
        ]


@dataclass(frozen=True)
class ServerCell:
    """A server to measure. model: hash of the artifacts' manifest. workers: 0 for the server's own choice."""

    artifacts: str
    model: str
    device: str
    archive: str
    workers: int
    batch: int


@dataclass(frozen=True)
class Cell:
    """One measurement: a server under a load."""

    server: ServerCell
    load: ClosedLoad | OpenLoad

    def to_dict(self) -> dict[str, Any]:
        """JSON values that tell this cell from all others."""
        return {**asdict(self.server), "load": self.load.model_dump()}

    @property
    def id(self) -> str:
        """A short name that stays the same as long as the cell does."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:12]

    def __str__(self) -> str:
        server, load = self.server, self.load
        amount = f"{load.users} clients" if isinstance(load, ClosedLoad) else f"{load.rate:g}/s {load.arrivals} {load.mix}"
        name, workers = Path(server.artifacts).name, f"{server.workers or 'default'} workers"
        return f"{name}, {server.device}, {server.archive}, {workers}, batch {server.batch}, {load.protocol}, {amount}"


def read_plan(path: Path) -> Plan:
    """Read and check a plan. Raises `FileError` for an unreadable file, and `UsageError` that names the key for the rest."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"{shown(path)}: can't be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{shown(path)}: is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UsageError(f"{shown(path)}: is no table of keys; these are known: {', '.join(Plan.model_fields)}")
    try:
        return Plan.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{shown(path)}: {_first(error, values)}") from None


def _first(error: ValidationError, values: dict[str, Any]) -> str:
    """The first thing that is wrong, with its key, such as `load.1.rate`."""
    found = error.errors(include_url=False)[0]
    location = [str(part) for part in found["loc"]]
    if location[:1] == ["load"] and len(location) > 2 and location[2] in LOOPS:
        del location[2]  # the kind of load, which is not a key of the file
    key = ".".join(location)
    if found["type"] == "extra_forbidden":
        models: dict[str, type[BaseModel]] = dict(zip(LOOPS, (ClosedLoad, OpenLoad), strict=True))
        model = models[values["load"][int(location[1])]["loop"]] if len(location) > 1 else Plan
        return f"key {key} is unknown; these are known: {', '.join(model.model_fields)}"
    if found["type"] == "missing":
        return f"key {key} is missing"
    if found["type"].startswith("union_tag"):
        return f"key {key}.loop must be one of {', '.join(LOOPS)}"
    given = "" if isinstance(found["input"], dict | list) else f", not {found['input']!r}"
    message = str(found["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return f"key {key}: {message}{given}"


def _fingerprint(folder: Path) -> str:
    try:
        return hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()[:12]
    except OSError as error:
        raise FileError(f"{shown(folder)}: holds no manifest.json ({error.strerror}); `unmask export` writes one") from None


def servers(cells: Sequence[Cell]) -> list[tuple[ServerCell, list[Cell]]]:
    """The cells by the server that they need."""
    return [(server, list(group)) for server, group in itertools.groupby(cells, key=lambda cell: cell.server)]
