"""`unmask bench capacity` and `matrix`: how much a server takes, and how that depends on its settings."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, Token

from detector.errors import UsageError
from unmask.commands.bench_options import Out, PhotoCount, Photos, Seconds, Workers, exit_code, print_and_keep
from unmask.commands.term import stopped_by_term
from unmask.parameters import Fraction


def _milliseconds(type_: Any, tokens: Sequence[Token]) -> float:
    text = tokens[0].value
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s)", text)
    if not found or not float(found[1]):
        raise ValueError(f"{text!r} is no time above zero, such as 100ms or 0.5s")
    return float(found[1]) * (1 if found[2] == "ms" else 1e3)


Milliseconds = Annotated[float, Parameter(converter=_milliseconds, n_tokens=1)]


@stopped_by_term
def capacity(
    *,
    p99: Milliseconds,
    artifacts: Annotated[Path | None, Parameter(help="Folder that `unmask export` wrote: served, and compared with.")] = None,
    target: str | None = None,
    target_grpc: str | None = None,
    protocol: Literal["rest", "grpc"] = "rest",
    seconds: Seconds = 8.0,
    arrivals: Literal["constant", "poisson"] = "poisson",
    mix: str = "plain",
    within: Fraction = 0.05,
    device: Literal["cpu", "cuda"] = "cpu",
    archive: Literal["onnx", "int8", "fp16", "torchscript"] = "onnx",
    workers: Workers = None,
    photos: Photos = None,
    photo_count: PhotoCount = 100,
    out: Out = None,
) -> int:
    """Find the highest rate at which a server keeps to a limit of latency.

    Parameters
    ----------
    p99
        The limit: 99 of 100 requests are answered within it, such as 100ms.
    target
        REST address of a running server to load instead.
    target_grpc
        gRPC address of that server (default: the same host, port 7070).
    protocol
        Protocol of the clients.
    seconds
        Seconds for each rate that is tried.
    arrivals
        Gaps between requests: constant, or as independent users come.
    mix
        plain, mixed, or shares of kinds of requests, such as photo=0.9,bad=0.1.
    within
        Relative width at which the search ends.
    device
        Where the model runs.
    archive
        Which archive to serve.
    """
    from benchmarks.capacity import find_capacity
    from benchmarks.load.known import Known, known_answers, model_of
    from benchmarks.load.mix import Mix
    from benchmarks.load.open_loop import OpenSamples, open_loop
    from benchmarks.machine import busy_cpus, machine
    from benchmarks.serving import Server, own_server, running_server

    shares = Mix.parse(mix)
    if artifacts is None and target is None:
        raise UsageError("give --artifacts DIR to start a server, or --target URL of one that runs")
    known = known_answers(model_of(artifacts, archive), shares, photos, photo_count) if artifacts else Known({})
    busy = busy_cpus()
    serving: AbstractContextManager[Server]
    if target:
        serving = nullcontext(running_server(target, target_grpc, None))
    else:
        serving = own_server(artifacts or Path(), archive, workers, device)
    with serving as server:

        def send(rate: float) -> OpenSamples:
            return open_loop(
                *(server.target, protocol, rate, seconds),
                arrivals=arrivals,
                mix=shares,
                known=known.calibrated,
                threshold=known.threshold,
                photos=photos,
                photo_count=photo_count,
                label=f"{rate:.1f}/s",
            )

        found = find_capacity(send, p99, within=within, say=lambda text: print(text, file=sys.stderr))
        about = {"protocol": protocol, "arrivals": arrivals, "mix": str(shares), "seconds": seconds, **server.about}
    print_and_keep({**found.to_dict(), "settings": about, "machine": machine(), "busy_cpus_before": busy}, out)
    return 0


@stopped_by_term
def matrix(
    plan: Annotated[Path, Parameter(help="YAML file of what to measure.")],
    /,
    *,
    out: Annotated[Path, Parameter(help="JSON lines file of the results; cells that it has are not measured again.")] = Path(
        "reports/matrix.jsonl"
    ),
) -> int:
    """Measure every combination of settings and loads that a YAML file lists."""
    from benchmarks.matrix.plan import read_plan
    from benchmarks.matrix.rows import table
    from benchmarks.matrix.run import run_matrix

    rows = run_matrix(read_plan(plan), out)
    print(table(rows))
    print(f"results: {out}")
    failed = sum(bool(row["failed"]) for row in rows)
    return exit_code(not failed, f"{failed} of {len(rows)} cells could not be measured; the table says why")
