"""`unmask bench run`, `roofline` and `soak`: one server, measured."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from detector.cpus import available_cpus
from detector.errors import UsageError
from detector.files import shown
from unmask.commands.bench_options import (
    Artifacts,
    Counts,
    Out,
    PhotoCount,
    Photos,
    Seconds,
    Workers,
    exit_code,
    print_and_keep,
)
from unmask.commands.term import stopped_by_term
from unmask.parameters import Count


@stopped_by_term
def run(
    *,
    artifacts: Annotated[Path | None, Parameter(help="Folder that `unmask export` wrote: served, and compared with.")] = None,
    target: str | None = None,
    target_grpc: str | None = None,
    target_metrics: str | None = None,
    users: Count = 8,
    duration: Count = 20,
    warm_up: Count = 5,
    protocol: Literal["rest", "grpc", "both"] = "both",
    device: Literal["cpu", "cuda"] = "cpu",
    archive: Literal["onnx", "int8", "fp16", "torchscript"] = "onnx",
    workers: Workers = None,
    photos: Photos = None,
    photo_count: PhotoCount = 100,
    out: Annotated[Path, Parameter(help="Folder for report.json and index.html.")] = Path("reports/benchmark"),
) -> int:
    """Load a server with Locust and write a report.

    Parameters
    ----------
    target
        REST address of a running server to load instead.
    target_grpc
        gRPC address of that server (default: the same host, port 7070).
    target_metrics
        Metrics page of that server (default: the same host, port 8090).
    users
        Number of clients at the same time.
    duration
        Seconds for each protocol.
    warm_up
        Seconds of load before the measurement starts.
    protocol
        Protocol of the clients.
    device
        Where the model runs.
    archive
        Which archive to serve.
    """
    from benchmarks.machine import busy_cpus
    from benchmarks.report.page import write_report
    from benchmarks.run import Load, benchmark, local_answers
    from benchmarks.serving import Server, own_server, running_server

    protocols = ("rest", "grpc") if protocol == "both" else (protocol,)
    load = Load(protocols, users, duration, warm_up, photos, photo_count)
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {shown(out)}: is a file; give a folder")
    if artifacts is None and target is None:
        raise UsageError("give --artifacts DIR to start a server, or --target URL of one that runs")
    model = f"model.{archive}.onnx" if archive in ("int8", "fp16") else "model.onnx"
    known = local_answers(artifacts / model, load) if artifacts else {}
    busy = busy_cpus()
    serving: AbstractContextManager[Server]
    if target:
        serving = nullcontext(running_server(target, target_grpc, target_metrics))
    else:
        serving = own_server(artifacts or Path(), archive, workers, device)
    with serving as server:
        report = benchmark(server, load, known, busy_before=busy)
    write_report(report, out)
    _print_runs(report)
    print(f"report: {out / 'index.html'}")
    return exit_code(report["ok"], "not every request was answered and passed its check")


@stopped_by_term
def roofline(
    *,
    artifacts: Artifacts,
    device: str = "cpu",
    seconds: Seconds = 10.0,
    batch: Counts = (1, 4, 8, 16),
    threads: Count | None = None,
    photos: Photos = None,
    photo_count: PhotoCount = 100,
    out: Out = None,
) -> int:
    """Measure the same work in one process, without a server.

    Parameters
    ----------
    device
        cpu, cuda or cuda:N.
    seconds
        Seconds for each measurement.
    batch
        Batch sizes to measure, separated by commas.
    threads
        Number of CPUs to use (default: all that this process may use).
    """
    from benchmarks.machine import busy_cpus, machine
    from benchmarks.photos import describe, load_photos
    from benchmarks.roofline import roofline as measure

    pictures = load_photos(photos, photo_count)
    busy = busy_cpus()
    result = measure(
        artifacts / "model.onnx",
        pictures,
        threads=threads or available_cpus(),
        batches=batch,
        seconds=seconds,
        device=device,
    )
    about = {"photos": describe(pictures, photos), "machine": machine(), "busy_cpus_before": busy}
    print_and_keep({**result, **about}, out)
    return 0


@stopped_by_term
def soak(
    *,
    artifacts: Artifacts,
    users: Count = 8,
    seconds: Count = 1800,
    workers: Workers = None,
    photos: Photos = None,
    photo_count: PhotoCount = 100,
    out: Out = None,
) -> int:
    """Load a server for long and look for leaks.

    Parameters
    ----------
    users
        Number of clients at the same time.
    seconds
        Seconds of load.
    """
    from benchmarks.machine import machine
    from benchmarks.run import Load, local_answers
    from benchmarks.serving import own_server
    from benchmarks.soak import require_long
    from benchmarks.soak import soak as measure

    require_long(seconds)
    load = Load(("rest",), users, seconds, 0, photos, photo_count)
    known = local_answers(artifacts / "model.onnx", load)
    with own_server(artifacts, "onnx", workers, "cpu") as server:
        result = measure(server, load, known)
    print_and_keep({**result, "machine": machine()}, out)
    return exit_code(result["ok"], "requests failed, or the server holds more and more")


def _print_runs(report: dict[str, Any]) -> None:
    for each in report["runs"]:
        times = each["latency_ms"]
        print(
            f"{each['protocol']}: {each['requests']} requests, {each['failures']} failed, {each['requests_per_second']}/s, "
            f"p50 {times.get('p50')} ms, p90 {times.get('p90')} ms, p99 {times.get('p99')} ms"
            f"{'' if each['steady'] else ' (not steady)'}"
        )
        for reason, count in list(each["failure_reasons"].items())[:5]:
            print(f"  {count} x {reason}")
