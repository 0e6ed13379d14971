"""`unmask score`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from unmask.parameters import Count, Switch


def score(
    *paths: Annotated[Path, Parameter(help="Photos, Parquet or tar files of photos, or folders that are searched for these.")],
    model: Path,
    format: Literal["jsonl", "csv"] = "jsonl",
    out: Path | None = None,
    no_calib: Annotated[Switch, Parameter(alias="--raw")] = False,
    device: str = "cpu",
    threads: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    batch: Count = 16,
    max_pixels: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    max_jpeg_pixels: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    quiet: Switch = False,
) -> int:
    """Score files and folders without a server.

    Exits with 0 when every photo has a verdict and with 1 when one has not.

    Parameters
    ----------
    model
        A model.onnx, with its manifest.json beside it.
    format
        Format of the results.
    out
        File to write to instead of standard output.
    no_calib
        Decide on the raw probability.
    device
        cpu, cuda or cuda:N.
    threads
        Number of threads of ONNX Runtime; 0 uses all CPUs that the process may use.
    batch
        How many photos to score in one batch.
    max_pixels
        The most pixels of a photo; 0 takes the model's own bound, 100 million. WebP, AVIF and HEIC count double.
    max_jpeg_pixels
        The most pixels of a JPEG; 0 takes the model's own bound, 200 million.
    quiet
        Show no progress bar.
    """
    from detector.score import score as score_files

    return score_files(
        paths,
        model=model,
        out=out,
        format=format,
        use_calibrator=not no_calib,
        device=device,
        threads=threads,
        batch=batch,
        max_pixels=max_pixels,
        max_jpeg_pixels=max_jpeg_pixels,
        quiet=quiet,
    )
