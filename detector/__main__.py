"""`python -m detector score`: verdicts for files and folders, with no server."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from detector.cli import run
from detector.score import score


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m detector", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    score = commands.add_parser("score", help="score files and folders with model.onnx")
    score.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="photos, or folders that are searched for photos")
    score.add_argument("--model", type=Path, required=True, help="model.onnx, with its manifest.json beside it")
    score.add_argument("--format", choices=("jsonl", "csv"), default="jsonl", help="what is printed (default: jsonl)")
    score.add_argument("--out", type=Path, help="write there instead of to standard output")
    score.add_argument("--no-calib", dest="use_calibrator", action="store_false", help="decide on the raw probability")
    score.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    score.add_argument("--threads", type=int, default=0, help="threads of ONNX Runtime (default: the CPUs it may use)")
    score.add_argument("--batch", type=int, default=16, help="photos scored at once (default: 16)")
    score.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when every photo got a verdict, 1 when any did not, 2 for wrong usage."""
    arguments = vars(_parser().parse_args(argv))
    del arguments["command"]
    return score(arguments.pop("paths"), **arguments)


if __name__ == "__main__":
    sys.exit(run(main))
