"""`python -m detector score`: verdicts for files and folders, with no server."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from detector.batches import decoded_batches
from detector.cli import run
from detector.errors import FileError, UnmaskError, UsageError
from detector.scorer import Scorer
from detector.verdict import error_body

SUFFIXES = {".jpg", ".jpeg", ".jpe", ".png", ".webp"}
CSV_COLUMNS = [
    "path",
    "ok",
    "prediction",
    "logit",
    "raw_prob",
    "calibrated",
    "percent",
    "confidence",
    "threshold",
    "code",
    "message",
]


def find_photos(paths: Sequence[Path]) -> list[Path]:
    """Files as they were named, and in each folder those with a photo's suffix, at any depth, sorted."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        else:
            found.append(path)
    return found


def score_paths(scorer: Scorer, paths: Sequence[Path], *, batch: int, use_calibrator: bool) -> Iterator[dict[str, Any]]:
    """One result for each path, in order: a verdict, or its error; each carries `path`. Decoding overlaps with inference."""
    remaining = iter(paths)
    for decoded in decoded_batches(paths, scorer.manifest.image_spec, batch):
        images = [content for content in decoded if not isinstance(content, UnmaskError)]
        verdicts = iter(scorer.score_images(images, use_calibrator=use_calibrator) if images else [])
        for content in decoded:
            body = error_body(content) if isinstance(content, UnmaskError) else next(verdicts).to_dict()
            yield {"path": str(next(remaining)), **body}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m detector", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    score = commands.add_parser("score", help="score files and folders with model.onnx")
    score.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="photos, or folders that are searched for photos")
    score.add_argument("--model", type=Path, required=True, help="model.onnx, with its manifest.json beside it")
    score.add_argument("--format", choices=("jsonl", "csv"), default="jsonl", help="what is printed (default: jsonl)")
    score.add_argument("--out", type=Path, help="write there instead of to standard output")
    score.add_argument("--no-calib", action="store_true", help="decide on the raw probability")
    score.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    score.add_argument("--threads", type=int, default=0, help="threads of ONNX Runtime (default: the CPUs it may use)")
    score.add_argument("--batch", type=int, default=16, help="photos scored at once (default: 16)")
    score.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when every photo got a verdict, 1 when any did not, 2 for wrong usage."""
    arguments = _parser().parse_args(argv)
    if arguments.batch < 1 or arguments.threads < 0:
        raise UsageError("--batch must be at least 1 and --threads at least 0")
    paths = find_photos(arguments.paths)
    if not paths:
        raise UsageError(f"no photos found; files ending in {', '.join(sorted(SUFFIXES))} are looked for in folders")
    from tqdm import tqdm

    scorer = Scorer(arguments.model, device=arguments.device, threads=arguments.threads)
    results = score_paths(scorer, paths, batch=arguments.batch, use_calibrator=not arguments.no_calib)
    try:
        out = arguments.out.open("w", encoding="utf-8", newline="") if arguments.out else sys.stdout
    except OSError as error:
        raise FileError(f"{arguments.out}: can't be written ({error.strerror})") from None
    failed = 0
    try:
        table = csv.DictWriter(out, CSV_COLUMNS, extrasaction="ignore") if arguments.format == "csv" else None
        if table:
            table.writeheader()
        for result in tqdm(results, total=len(paths), unit="photo", disable=arguments.quiet or None, file=sys.stderr):
            failed += not result["ok"]
            if table:
                table.writerow({**result, **result.get("error", {})})
            else:
                print(json.dumps(result), file=out)
    finally:
        if arguments.out:
            out.close()
    if failed and not arguments.quiet:
        print(f"{failed} of {len(paths)} could not be scored", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(run(main))
