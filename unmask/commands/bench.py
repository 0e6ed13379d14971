"""`unmask bench run`, `roofline`, `compare` and `soak`: servers, measured."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, Token
from cyclopts.validators import Number

from detector.cpus import available_cpus
from detector.errors import UsageError
from detector.files import shown, write_json
from unmask.commands.term import stopped_by_term
from unmask.parameters import Count, Switch


def _counts(type_: Any, tokens: Sequence[Token]) -> tuple[int, ...]:
    text = ",".join(token.value for token in tokens)
    if not all(part.isdigit() and int(part) for part in text.split(",")):
        raise ValueError(f"{text!r} is not whole numbers above zero, such as 1,8,32")
    return tuple(int(part) for part in text.split(","))


def _names(type_: Any, tokens: Sequence[Token]) -> tuple[str, ...]:
    from benchmarks.peers import PEERS

    text = ",".join(token.value for token in tokens)
    names = () if text == "none" else tuple(text.split(","))
    if unknown := sorted(set(names) - set(PEERS)):
        raise ValueError(f"{', '.join(unknown)}: unknown; there are {', '.join(PEERS)} and none")
    return names


Counts = Annotated[tuple[int, ...], Parameter(converter=_counts, n_tokens=1)]
Seconds = Annotated[float, Parameter(validator=Number(gte=0.5, lte=86_400))]
Photos = Annotated[Path | None, Parameter(name="--photos", help="Folder of photos to send (default: drawn photos).")]
PhotoCount = Annotated[Count, Parameter(name="--photo-count", help="How many photos to send, one after the other.")]
Artifacts = Annotated[Path, Parameter(help="Folder that `unmask export` wrote.")]
Workers = Annotated[Count | None, Parameter(name="--workers", help="Number of worker processes (default: the server's).")]
Out = Annotated[Path | None, Parameter(name="--out", help="Also write the JSON to this file.")]


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
    return _code(report["ok"], "not every request was answered and passed its check")


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
    _print_and_keep({**result, **about}, out)
    return 0


@stopped_by_term
def compare(
    *,
    artifacts: Artifacts,
    users: Counts = (1, 8, 16, 32),
    seconds: Count = 8,
    warm_up: Count = 4,
    roofline_seconds: Seconds = 10.0,
    batch: Counts = (1, 4, 8, 16),
    peers: Annotated[tuple[str, ...] | None, Parameter(converter=_names, n_tokens=1)] = None,
    workers: Workers = None,
    rounds: Count = 12,
    locust: Switch = False,
    photos: Photos = None,
    photo_count: PhotoCount = 100,
    out: Out = None,
) -> int:
    """Compare a server with the roofline and with other servers.

    Parameters
    ----------
    users
        Numbers of clients at the same time, separated by commas.
    seconds
        Seconds for each load.
    warm_up
        Seconds of load before each measurement starts.
    roofline_seconds
        Seconds for each measurement of the roofline.
    batch
        Batch sizes of the roofline, separated by commas.
    peers
        Other servers, separated by commas, or `none` (default: all that are known).
    rounds
        Rounds in which the server and the roofline are measured in turn.
    locust
        Load with Locust, which takes more of the servers' CPUs.
    """
    from benchmarks.compare import ComparisonSettings, compare_servers
    from benchmarks.machine import busy_cpus
    from benchmarks.peers import PEERS

    busy = busy_cpus()
    settings = ComparisonSettings(
        users=users,
        seconds=seconds,
        warm_up=warm_up,
        roofline_seconds=roofline_seconds,
        batch=batch,
        peers=tuple(PEERS) if peers is None else peers,
        photos=photos,
        photo_count=photo_count,
        workers=workers,
        locust=locust,
        rounds=rounds,
    )
    result = compare_servers(artifacts, settings, busy_before=busy)
    _print_and_keep(result, out)
    return _code(result["ok"], "not every request was answered and passed its check")


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
    _print_and_keep({**result, "machine": machine()}, out)
    return _code(result["ok"], "requests failed, or the server holds more and more")


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


def _print_and_keep(result: dict[str, Any], out: Path | None) -> None:
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, result)
    print(json.dumps(result, indent=2))


def _code(ok: bool, problem: str) -> int:
    if not ok:
        print(f"error: {problem}", file=sys.stderr)
    return 0 if ok else 1
