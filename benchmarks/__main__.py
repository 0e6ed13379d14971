"""Commands: `run` loads a server and reports on it, `roofline` does the same work in one process without one,
`serve-vs-roofline` holds the one against the other and against peers, `soak` looks for leaks, `training` times training beside
timm's recipe, `results` trains every architecture and compares them."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from benchmarks.machine import busy_cpus, machine
from benchmarks.peers import PEERS
from benchmarks.photos import describe, load_photos
from detector import UsageError, cli
from detector.cpus import available_cpus


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 when all went well, 1 when a request failed its check or a measurement broke, 2 for wrong usage."""
    arguments = _parser().parse_args(argv)
    return cli.run(lambda: arguments.call(arguments))


def _run(arguments: argparse.Namespace) -> int:
    from benchmarks.report import write_report
    from benchmarks.run import Load, benchmark, local_answers
    from benchmarks.serving import Server, own_server, running_server

    protocols = ("rest", "grpc") if arguments.protocol == "both" else (arguments.protocol,)
    load = Load(protocols, arguments.users, arguments.duration, arguments.warm_up, arguments.photos, arguments.photo_count)
    if not (arguments.artifacts or arguments.target):
        raise UsageError("give --artifacts DIR to start a server, or --target URL of one that runs")
    model = f"model.{arguments.archive}.onnx" if arguments.archive in ("int8", "fp16") else "model.onnx"
    known = local_answers(arguments.artifacts / model, load) if arguments.artifacts else {}
    busy = busy_cpus()
    serving: AbstractContextManager[Server] = (
        nullcontext(running_server(arguments.target, arguments.target_grpc, arguments.target_metrics))
        if arguments.target
        else own_server(arguments.artifacts, arguments.archive, arguments.workers, arguments.device)
    )
    with serving as server:
        report = benchmark(server, load, known, busy_before=busy)
    write_report(report, arguments.out)
    _say(report)
    print(f"report: {arguments.out / 'index.html'}")
    if not report["ok"]:
        print("error: not every request was answered and passed its check", file=sys.stderr)
    return 0 if report["ok"] else 1


def _say(report: dict[str, Any]) -> None:
    for run in report["runs"]:
        times = run["latency_ms"]
        print(
            f"{run['protocol']}: {run['requests']} requests, {run['failures']} failed, {run['requests_per_second']}/s, "
            f"p50 {times.get('p50')} ms, p90 {times.get('p90')} ms, p99 {times.get('p99')} ms"
            f"{'' if run['steady'] else ' (not steady)'}"
        )
        for reason, count in list(run["failure_reasons"].items())[:5]:
            print(f"  {count} x {reason}")


def _roofline(arguments: argparse.Namespace) -> int:
    from benchmarks.roofline import roofline

    photos = load_photos(arguments.photos, arguments.photo_count)
    busy = busy_cpus()
    result = roofline(
        arguments.artifacts / "model.onnx",
        photos,
        threads=arguments.threads or available_cpus(),
        batches=arguments.batch,
        seconds=arguments.seconds,
        device=arguments.device,
    )
    about = {"photos": describe(photos, arguments.photos), "machine": machine(), "busy_cpus_before": busy}
    _print_and_keep({**result, **about}, arguments.out)
    return 0


def _print_and_keep(result: dict[str, Any], out: Path | None) -> None:
    text = json.dumps(result, indent=2)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n", encoding="utf-8")
    print(text)


def _versus(arguments: argparse.Namespace) -> int:
    from benchmarks.compare import Contest, compare

    busy = busy_cpus()
    contest = Contest(**{name: getattr(arguments, name) for name in Contest.__dataclass_fields__})
    result = compare(arguments.artifacts, contest, busy_before=busy)
    _print_and_keep(result, arguments.out)
    if not result["ok"]:
        print("error: not every request was answered and passed its check", file=sys.stderr)
    return 0 if result["ok"] else 1


def _soak(arguments: argparse.Namespace) -> int:
    from benchmarks.run import Load, local_answers
    from benchmarks.serving import own_server
    from benchmarks.soak import require_long, soak

    require_long(arguments.seconds)
    load = Load(("rest",), arguments.users, arguments.seconds, 0, arguments.photos, arguments.photo_count)
    known = local_answers(arguments.artifacts / "model.onnx", load)
    with own_server(arguments.artifacts, "onnx", arguments.workers, "cpu") as server:
        result = soak(server, load, known)
    _print_and_keep({**result, "machine": machine()}, arguments.out)
    if not result["ok"]:
        print("error: requests failed, or the server holds more and more", file=sys.stderr)
    return 0 if result["ok"] else 1


def _training(arguments: argparse.Namespace) -> int:
    from benchmarks.training import Work, compare

    busy = busy_cpus()
    work = Work(**{name: getattr(arguments, name) for name in Work.__dataclass_fields__})
    print(json.dumps({**compare(work), "machine": machine(), "busy_cpus_before": busy}, indent=2))
    return 0


def _results(arguments: argparse.Namespace) -> int:
    from benchmarks.results import Photos, page, train_all

    sets = [Photos("faces", arguments.faces, 256), Photos("composites", arguments.composites, 160)]
    measured = train_all(sets, arguments.weights, arguments.runs, arguments.jobs)
    arguments.out.write_text(page(measured, arguments.jobs), encoding="utf-8")
    print(f"results: {arguments.out}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    photos = argparse.ArgumentParser(add_help=False)
    photos.add_argument("--photos", type=Path, metavar="DIR", help="folder of photos to send (default: drawn ones)")
    photos.add_argument("--photo-count", type=_count, default=100, metavar="N", help="photos to send in turn (default: 100)")

    run = commands.add_parser("run", parents=[photos], help="load a server with Locust; write report.json and index.html")
    run.set_defaults(call=_run)
    run.add_argument(
        "--artifacts", type=Path, metavar="DIR", help="what `python -m export` wrote: served, and checked against"
    )
    run.add_argument("--target", metavar="URL", help="REST address of a running server to load instead")
    run.add_argument("--target-grpc", metavar="HOST:PORT", help="its gRPC address (default: the same host, port 7070)")
    run.add_argument("--target-metrics", metavar="URL", help="its metrics page (default: the same host, :8090/metrics)")
    run.add_argument("--users", type=_count, default=8, metavar="N", help="clients at a time (default: 8)")
    run.add_argument("--duration", type=_count, default=20, metavar="S", help="seconds for each protocol (default: 20)")
    run.add_argument("--warm-up", type=_count, default=5, metavar="S", help="seconds before, not counted (default: 5)")
    run.add_argument("--protocol", choices=("rest", "grpc", "both"), default="both")
    run.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    run.add_argument("--archive", choices=("onnx", "int8", "fp16", "torchscript"), default="onnx")
    run.add_argument("--workers", type=_count, metavar="N", help="worker processes (default: the server's own)")
    run.add_argument("--out", type=Path, default=Path("reports/benchmark"), metavar="DIR", help="(default: %(default)s)")

    roof = commands.add_parser("roofline", parents=[photos], help="the same work in one process with no server")
    roof.set_defaults(call=_roofline)
    roof.add_argument("--artifacts", type=Path, required=True, metavar="DIR", help="what `python -m export` wrote")
    roof.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    roof.add_argument("--seconds", type=_seconds, default=10.0, metavar="S", help="for each measurement (default: 10)")
    roof.add_argument("--batch", type=_counts, default=(1, 4, 8, 16), metavar="N,N", help="sizes to try (default: 1,4,8,16)")
    roof.add_argument("--threads", type=_count, metavar="N", help="CPUs to use (default: all this process may use)")
    roof.add_argument("--out", type=Path, metavar="FILE", help="also write the JSON here")

    versus = commands.add_parser(
        "serve-vs-roofline", parents=[photos], help="a server beside the roofline and its peers, in one run"
    )
    versus.set_defaults(call=_versus)
    versus.add_argument("--artifacts", type=Path, required=True, metavar="DIR", help="what `python -m export` wrote")
    versus.add_argument("--users", type=_counts, default=(1, 8, 16, 32), metavar="N,N", help="(default: 1,8,16,32)")
    versus.add_argument("--seconds", type=_count, default=8, metavar="S", help="for each load (default: %(default)s)")
    versus.add_argument("--warm-up", type=_count, default=4, metavar="S", help="before each, not counted (default: 4)")
    versus.add_argument("--roofline-seconds", type=_seconds, default=10.0, metavar="S", help="(default: 10)")
    versus.add_argument("--batch", type=_counts, default=(1, 4, 8, 16), metavar="N,N", help="of its sweep (default: 1,4,8,16)")
    versus.add_argument(
        "--peers", type=_peers, default=tuple(PEERS), metavar="NAME,NAME", help=f"of {', '.join(PEERS)} (default), or none"
    )
    versus.add_argument("--workers", type=_count, metavar="N", help="of our server (default: its own)")
    versus.add_argument(
        "--rounds", type=_count, default=12, metavar="N", help="of server and roofline in turn (default: %(default)s)"
    )
    versus.add_argument("--locust", action="store_true", help="load with Locust, which takes more of the servers' CPUs")
    versus.add_argument("--out", type=Path, metavar="FILE", help="also write the JSON here")

    long = commands.add_parser("soak", parents=[photos], help="half an hour of load: does the server hold more and more?")
    long.set_defaults(call=_soak)
    long.add_argument("--artifacts", type=Path, required=True, metavar="DIR", help="what `python -m export` wrote")
    long.add_argument("--users", type=_count, default=8, metavar="N", help="clients at a time (default: %(default)s)")
    long.add_argument("--seconds", type=_count, default=1800, metavar="S", help="(default: %(default)s)")
    long.add_argument("--workers", type=_count, metavar="N", help="worker processes (default: the server's own)")
    long.add_argument("--out", type=Path, metavar="FILE", help="also write the JSON here")

    train = commands.add_parser("training", help="training throughput, side by side with timm's recipe")
    train.set_defaults(call=_training)
    train.add_argument("--data", type=Path, required=True, metavar="DIR", help="labelled photos, laid out as for `fit`")
    train.add_argument("--model", default="efficientnet_b0", metavar="NAME", help="of timm (default: %(default)s)")
    train.add_argument("--size", type=_count, default=128, metavar="N", help="pixels (default: %(default)s)")
    train.add_argument("--batch-size", type=_count, default=32, metavar="N", help="photos per step (default: %(default)s)")
    train.add_argument("--epochs", type=_count, default=2, metavar="N", help="measured, after one more (default: %(default)s)")
    train.add_argument("--pairs", type=_count, default=3, metavar="N", help="runs of each side (default: %(default)s)")
    train.add_argument("--workers", type=int, default=4, metavar="N", help="timm's loaders (default: its own, %(default)s)")
    train.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    train.add_argument("--bf16", action="store_true", help="bfloat16 autocast on both sides")

    results = commands.add_parser("results", help="train every architecture on two sets and write docs/results.md")
    results.set_defaults(call=_results)
    results.add_argument(
        "--faces", type=Path, required=True, metavar="DIR", help="256 px portraits, photographed or generated"
    )
    results.add_argument("--composites", type=Path, required=True, metavar="DIR", help="160 px portraits, some composited")
    results.add_argument("--weights", type=Path, required=True, metavar="FILE", help="squeezenet1_1's ImageNet features")
    results.add_argument("--runs", type=Path, default=Path("reports/results"), metavar="DIR", help="(default: %(default)s)")
    results.add_argument("--jobs", type=_count, default=available_cpus(), metavar="N", help="runs at a time (default: CPUs)")
    results.add_argument("--out", type=Path, default=Path("docs/results.md"), metavar="FILE", help="(default: %(default)s)")
    return parser


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above zero")
    return int(text)


def _counts(text: str) -> tuple[int, ...]:
    return tuple(_count(part) for part in text.split(","))


def _peers(text: str) -> tuple[str, ...]:
    names = () if text == "none" else tuple(text.split(","))
    if unknown := sorted(set(names) - set(PEERS)):
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: unknown; there are {', '.join(PEERS)} and none")
    return names


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.5 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0.5 to 86400")
    return seconds


if __name__ == "__main__":
    # CI and `timeout` send TERM: what was started is stopped for it as for Ctrl-C, and in the background too, where a shell
    # makes us deaf to SIGINT itself.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
