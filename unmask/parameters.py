"""Kinds of options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number


def _fraction(type_: Any, value: float | None) -> None:
    if value is not None and not 0 < value < 1:
        raise ValueError("it must lie between 0 and 1")


Switch = Annotated[bool, Parameter(negative=())]
Count = Annotated[int, Parameter(validator=Number(gte=1))]
Fraction = Annotated[float, Parameter(validator=_fraction)]
Seed = Annotated[int, Parameter(help="Seed of the bootstrap.", validator=Number(gte=0, lt=2**31))]
LabelledPhotos = Annotated[
    Path, Parameter(help="Folder of labelled photos, laid out as for `unmask train`, or Parquet or tar files.")
]
Labels = Annotated[str | None, Parameter(help="What the labels of Parquet and webdataset files mean, such as real=0,fake=1.")]
Config = Annotated[Path | None, Parameter(name="--config", help="Read options from this YAML file, such as a run's run.yaml.")]
AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON.")]
State = Annotated[
    Path | None, Parameter(name="--state", help="State folder of the server (default: UNMASK_STATE, or one in your home).")
]
