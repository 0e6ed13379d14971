"""Verdicts for files and folders in this process, as JSON lines or CSV."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from detector.decode.batches import decoded_batches
from detector.errors import FileError, UnmaskError, UsageError
from detector.files import PHOTO_SUFFIXES, files_below, has_photo_suffix, shown
from detector.packed import Entry, entries, is_packed
from detector.scorer import Scorer
from detector.verdict import UNCERTAIN, error_body

Format = Literal["jsonl", "csv"]
CSV_COLUMNS = (
    "path",
    "ok",
    "prediction",
    "logit",
    "raw_prob",
    "calibrated",
    "percent",
    "confidence",
    "threshold",
    "uncertain_lower",
    "uncertain_upper",
    "cropped",
    "code",
    "message",
)


@dataclass(frozen=True)
class FoundFiles:
    """Files to score, and those in folders that are passed over because their suffix is not a photo's."""

    photos: list[Path | Entry]
    passed_over: list[Path]

    def note(self) -> str:
        """How many files are passed over, by suffix, in a line; empty when there are none."""
        if not self.passed_over:
            return ""
        suffixes = Counter(path.suffix.lower() or "without a suffix" for path in self.passed_over)
        common = sorted(suffixes.items(), key=lambda item: (-item[1], item[0]))[:5]
        kinds = [f"{n} {shown(suffix)}" for suffix, n in common]
        if others := len(self.passed_over) - sum(n for _, n in common):
            kinds.append(f"{others} others")
        return f"passed over {len(self.passed_over)} of the files in folders: {', '.join(kinds)}"


def find_files(paths: Iterable[Path]) -> FoundFiles:
    """Files as they are named, and each folder's files with a photo's suffix, at any depth, sorted; in place of a Parquet or
    tar file the photos in it.

    Raises `FileError` when a folder can't be listed, or such a file can't be read.
    """
    found = FoundFiles([], [])
    for path in paths:
        if path.is_dir():
            for file in files_below(path):
                if is_packed(file):
                    found.photos.extend(entries(file, shown(file)))
                else:
                    (found.photos if has_photo_suffix(file) else found.passed_over).append(file)
        elif is_packed(path):
            found.photos.extend(entries(path, shown(path)))
        else:
            found.photos.append(path)
    return found


def score_paths(
    scorer: Scorer, paths: Sequence[Path | Entry], *, batch: int = 16, use_calibrator: bool = True
) -> Iterator[dict[str, Any]]:
    """One result for each file, in order: the JSON of its verdict or of its error, with its `path`.

    The next batch is decoded while the model runs on this one.
    """
    remaining = iter(paths)
    for decoded in decoded_batches(paths, scorer.image_spec, batch):
        seen = [content for content in decoded if not isinstance(content, UnmaskError)]
        images, cropped = [photo.pixels for photo in seen], [photo.cropped for photo in seen]
        verdicts = iter(scorer.score_images(images, use_calibrator=use_calibrator, cropped=cropped) if images else [])
        for content in decoded:
            body = error_body(content) if isinstance(content, UnmaskError) else next(verdicts).to_dict()
            photo = next(remaining)
            yield {"path": photo.name if isinstance(photo, Entry) else shown(photo), **body}


def write_results(results: Iterable[dict[str, Any]], out: TextIO, format: Format = "jsonl") -> Counter[str]:
    """Write results as they come, one a line, and return how many there are by prediction; "" counts the errors."""
    table = csv.DictWriter(out, CSV_COLUMNS, extrasaction="ignore") if format == "csv" else None
    if table:
        table.writeheader()
    counts: Counter[str] = Counter()
    for result in results:
        counts[result["prediction"] if result["ok"] else ""] += 1
        if table:
            lower, upper = result.get("uncertain", ("", ""))
            table.writerow({**result, "uncertain_lower": lower, "uncertain_upper": upper, **result.get("error", {})})
        else:
            print(json.dumps(result), file=out)
    return counts


def score(
    paths: Sequence[Path],
    *,
    model: Path,
    out: Path | None = None,
    format: Format = "jsonl",
    use_calibrator: bool = True,
    device: str = "cpu",
    threads: int = 0,
    batch: int = 16,
    max_pixels: int = 0,
    max_jpeg_pixels: int = 0,
    quiet: bool = False,
) -> int:
    """The command `unmask score`: 0 when every photo has a verdict, 1 when any has an error in its place.

    out: file to write instead of standard output. threads: of ONNX Runtime, 0 for the CPUs that this process may use.
    batch: photos scored at once. max_pixels, max_jpeg_pixels: see `Scorer`. quiet: no progress bar and no summary.
    Raises `UsageError` for values that can't work or when there is nothing to score, `FileError` for a model that can't be
    loaded or an output that can't be written.
    """
    if batch < 1 or threads < 0:
        raise UsageError("--batch must be at least 1 and --threads at least 0")
    found = find_files(paths)
    if not quiet and (note := found.note()):
        print(note, file=sys.stderr)
    if not found.photos:
        raise UsageError(f"no photos found; in folders, files ending in {', '.join(sorted(PHOTO_SUFFIXES))} are scored")
    from tqdm import tqdm

    scorer = Scorer(model, device=device, threads=threads, max_pixels=max_pixels, max_jpeg_pixels=max_jpeg_pixels)
    results = score_paths(scorer, found.photos, batch=batch, use_calibrator=use_calibrator)
    with _output(out) as stream:
        shown_results = tqdm(results, total=len(found.photos), unit="photo", disable=quiet or None, file=sys.stderr)
        counts = write_results(shown_results, stream, format)
    for said, n in (("are Uncertain", counts[UNCERTAIN]), ("could not be scored", counts[""])):
        if n and not quiet:
            print(f"{n} of {len(found.photos)} {said}", file=sys.stderr)
    return 1 if counts[""] else 0


@contextmanager
def _output(path: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that grows as results come, so that an interrupted run keeps what it has."""
    if path is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # CSV holds names that an ASCII terminal can't show
        yield sys.stdout
        return
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            yield file
    except OSError as error:
        raise FileError(f"{shown(path)}: can't be written ({error.strerror or error})") from None
