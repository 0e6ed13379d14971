"""`unmask bench compare` and `peers`: one benchmark beside another, and our server beside other servers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, Token
from cyclopts.validators import Number

from detector.errors import UsageError
from detector.files import shown, write_json
from unmask.commands.bench_options import Artifacts, Counts, PhotoCount, Photos, Seconds, Workers, exit_code
from unmask.commands.term import stopped_by_term
from unmask.parameters import AsJson, Count, Fraction, Seed


def _names(type_: Any, tokens: Sequence[Token]) -> tuple[str, ...]:
    from benchmarks.peers import PEERS

    text = ",".join(token.value for token in tokens)
    names = () if text == "none" else tuple(text.split(","))
    if unknown := sorted(set(names) - set(PEERS)):
        raise ValueError(f"{', '.join(unknown)}: unknown; there are {', '.join(PEERS)} and none")
    return names


def compare(
    a: Path,
    b: Path,
    *,
    tolerance: Annotated[float, Parameter(validator=Number(gte=0, lt=10))] = 0.1,
    confidence: Fraction = 0.95,
    seed: Seed = 0,
    out: Annotated[Path | None, Parameter(name="--out", help="Also write the JSON to this file.")] = None,
    as_json: AsJson = False,
) -> int:
    """Compare two benchmarks, and exit with 1 where the second is worse.

    Parameters
    ----------
    a
        What to compare with: a folder that `bench run` or `bench peers` wrote, its report.json, or a file of samples.
    b
        What is compared.
    tolerance
        Relative change that is no regression; 0.1 takes a tenth.
    confidence
        Confidence of the intervals.
    """
    from benchmarks.compare import compare_samples, table
    from benchmarks.report.samples import read_samples

    result = compare_samples(read_samples(a), read_samples(b), tolerance=tolerance, confidence=confidence, seed=seed)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, result)
    print(json.dumps(result, indent=2) if as_json else table(result))
    return exit_code(result["ok"], f"{shown(b)} is worse than {shown(a)} by more than the tolerance")


@stopped_by_term
def peers(
    *,
    artifacts: Artifacts,
    clients: Counts = (1, 8, 32),
    seconds: Count = 5,
    warm_up: Count = 2,
    rounds: Count = 2,
    roofline_seconds: Seconds = 4.0,
    peers: Annotated[tuple[str, ...] | None, Parameter(converter=_names, n_tokens=1)] = None,
    workers: Workers = None,
    photos: Photos = None,
    photo_count: PhotoCount = 100,
    out: Annotated[Path, Parameter(help="Folder for peers.json and the samples.")] = Path("reports/peers"),
) -> int:
    """Measure our server and other servers in turn.

    Parameters
    ----------
    clients
        Numbers of clients at the same time, separated by commas.
    seconds
        Seconds for each load.
    warm_up
        Seconds of load before each measurement starts.
    rounds
        How often each server is started and loaded.
    roofline_seconds
        Seconds for each measurement of the roofline.
    peers
        Other servers, separated by commas, or `none` (default: all that are known).
    """
    from benchmarks.machine import busy_cpus
    from benchmarks.peers import PEERS
    from benchmarks.peers.comparison import PeerSettings, compare_peers, markdown
    from benchmarks.report.about import about
    from benchmarks.report.samples import NAME, write_samples

    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {shown(out)}: is a file; give a folder")
    settings = PeerSettings(
        clients=clients,
        seconds=seconds,
        warm_up=warm_up,
        rounds=rounds,
        roofline_seconds=roofline_seconds,
        peers=tuple(PEERS) if peers is None else peers,
        photos=photos,
        photo_count=photo_count,
        workers=workers,
    )
    result, samples = compare_peers(artifacts, settings, busy_before=busy_cpus())
    result |= {"about": about(artifacts)}
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "peers.json", result)
    write_samples(out / NAME, result["about"], samples)
    print(markdown(result), *result["notes"], f"written: {shown(out / 'peers.json')}", sep="\n")
    return exit_code(result["ok"], "not every request was answered and passed its check")
