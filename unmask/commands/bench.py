"""`unmask bench run`, `roofline` and `soak`: one server, measured."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

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
    numbers,
    print_and_keep,
)
from unmask.commands.term import stopped_by_term
from unmask.parameters import Count, Switch


@stopped_by_term
def run(
    *,
    artifacts: Annotated[Path | None, Parameter(help="Folder that `unmask export` wrote: served, and compared with.")] = None,
    target: str | None = None,
    target_grpc: str | None = None,
    target_metrics: str | None = None,
    users: Counts = (1, 32),
    shares: Annotated[tuple[float, ...], Parameter(converter=numbers, n_tokens=1)] = (0.25, 0.5, 0.75, 0.9),
    rates: Annotated[tuple[float, ...], Parameter(converter=numbers, n_tokens=1)] = (),
    arrivals: Literal["constant", "poisson"] = "poisson",
    mix: str = "plain",
    duration: Count = 20,
    warm_up: Annotated[int, Parameter(validator=Number(gte=0))] = 5,
    rounds: Annotated[int, Parameter(validator=Number(gte=0))] = 6,
    roofline_seconds: Seconds = 4.0,
    protocol: Literal["rest", "grpc", "both"] = "both",
    device: Literal["cpu", "cuda", "both"] = "cpu",
    archive: Literal["onnx", "int8", "fp16", "torchscript"] = "onnx",
    workers: Workers = None,
    locust: Switch = False,
    price_per_hour: Annotated[float | None, Parameter(validator=Number(gt=0))] = None,
    photos: Photos = None,
    photo_count: PhotoCount = 100,
    out: Annotated[Path, Parameter(help="Folder for the report and the samples.")] = Path("reports/benchmark"),
) -> int:
    """Measure the latency-throughput curve of a server and write a report.

    Parameters
    ----------
    target
        REST address of a running server to load instead.
    target_grpc
        gRPC address of that server (default: the same host, port 7070).
    target_metrics
        Metrics page of that server (default: the same host, port 8090).
    users
        Numbers of clients of the closed loops, separated by commas.
    shares
        Rates of the open loops, as shares of the best closed loop, separated by commas, or `none`.
    rates
        More rates of open loops, in requests per second.
    arrivals
        When an open loop sends.
    mix
        What the open loops send: plain, mixed, or shares such as photo=0.9,bad=0.1.
    duration
        Seconds of each load.
    warm_up
        Seconds of load before a closed loop's measurement starts.
    rounds
        Rounds in which the server and the roofline are measured in turn; 0 leaves that out.
    roofline_seconds
        Seconds for each measurement of the roofline.
    protocol
        Protocol of the clients.
    device
        Where the model runs; `both` measures one after the other.
    archive
        Which archive to serve.
    locust
        Send the closed loops over REST with Locust too, which takes more of the server's CPUs.
    price_per_hour
        Price of the machine, for the cost of a million photos.
    """
    from benchmarks.curve import Plan, against_roofline, measure_curve, report_of
    from benchmarks.load.mix import Mix
    from benchmarks.machine import busy_cpus
    from benchmarks.report.about import about
    from benchmarks.report.page import write_report
    from benchmarks.run import Load, local_answers
    from benchmarks.serving import Server, own_server, running_server

    protocols = ("rest", "grpc") if protocol == "both" else (protocol,)
    plan = Plan(
        protocols=protocols,
        users=users,
        shares=shares,
        rates=rates,
        arrivals=arrivals,
        mix=Mix.parse(mix),
        seconds=duration,
        warm_up=warm_up,
        photos=photos,
        photo_count=photo_count,
        locust=locust,
    )
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {shown(out)}: is a file; give a folder")
    if artifacts is None and target is None:
        raise UsageError("give --artifacts DIR to start a server, or --target URL of one that runs")
    model = f"model.{archive}.onnx" if archive in ("int8", "fp16") else "model.onnx"
    known = local_answers(artifacts / model, Load(protocols, 1, 1, 0, photos, photo_count)) if artifacts else {}
    busy = busy_cpus()
    found, servers, roof = {}, {}, None
    for each in ("cpu", "cuda") if device == "both" else (device,):
        serving: AbstractContextManager[Server]
        if target:
            serving = nullcontext(running_server(target, target_grpc, target_metrics))
        else:
            serving = own_server(artifacts or Path(), archive, workers, each)
        with serving as server:
            servers[each] = server.about
            if artifacts and not target and each == "cpu" and archive == "onnx":
                roof = against_roofline(server, artifacts / model, plan, known, rounds=rounds, seconds=roofline_seconds)
            found[each] = measure_curve(server, plan, known, device=each)
    report = report_of(
        found,
        plan,
        about=about(artifacts),
        servers=servers,
        roofline=roof,
        known=bool(known),
        busy_before=busy,
        price_per_hour=price_per_hour,
    )
    write_report(report, [samples for each in found.values() for samples in each.samples], out)
    _print_runs(report)
    print(f"report: {shown(out / 'index.html')}")
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
            f"{each['name']}: {each['requests']} requests, {each['failures']} failed, {each['requests_per_second']}/s, "
            f"p50 {times.get('p50')} ms, p90 {times.get('p90')} ms, p99 {times.get('p99')} ms"
            f"{'' if each['steady'] else ' (not steady)'}"
        )
        for reason, count in list(each["failure_reasons"].items())[:5]:
            print(f"  {count} x {reason}")
    for row in report["capacity"]:
        share = f", {row['of_roofline']} of the roofline" if row["of_roofline"] is not None else ""
        cost = f", a million photos cost {row['cost_of_a_million']}" if row["cost_of_a_million"] is not None else ""
        print(f"{row['protocol']}, {row['device']}: at most {row['photos_per_second']} photos per second{share}{cost}")
    for note in report["notes"]:
        print(f"note: {note}")
