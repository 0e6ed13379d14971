"""Many files through a client: a few at a time, answers in the files' order."""

from __future__ import annotations

from base64 import b64decode
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import Any

from detector.errors import FileError, UnmaskError
from detector.files import shown
from detector.verdict import error_body
from serve.client.client import Client


def predict_files(
    client: Client, paths: Iterable[Path], *, use_calibrator: bool = True, overlays: Path | None = None, concurrency: int = 8
) -> Iterator[dict[str, Any]]:
    """One verdict or failure for each file, in order, with its `path`; at most `concurrency` are on their way at once.

    overlays: folder that the photos with their heatmaps are written to, as PNG files; each verdict then names its own.
    Raises `FileError` when nothing can be written there.
    """

    def one(path: Path) -> dict[str, Any]:
        try:
            data = path.read_bytes()
        except OSError as error:
            return _failure(path, FileError(f"{shown(path)}: can't be read ({error.strerror})"))
        try:
            return {"path": shown(path)} | client.predict(data, use_calibrator=use_calibrator, explain=overlays is not None)
        except UnmaskError as error:
            return _failure(path, error)

    written: set[Path] = set()

    def keep(verdict: dict[str, Any]) -> dict[str, Any]:
        explained = verdict.get("explanation")
        if overlays is not None and explained:
            stem = Path(verdict["path"]).stem
            names = chain([f"{stem}.png"], (f"{stem}-{n}.png" for n in count(2)))
            file = next(overlays / name for name in names if overlays / name not in written)
            written.add(file)
            with _writing(file):
                file.write_bytes(b64decode(explained.pop("overlay_png")))
            explained["overlay"] = shown(file)
        return verdict

    if overlays is not None:
        with _writing(overlays):
            overlays.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(concurrency) as pool:
        waiting: deque[Future[dict[str, Any]]] = deque()
        for path in paths:
            if len(waiting) >= concurrency:
                yield keep(waiting.popleft().result())
            waiting.append(pool.submit(one, path))
        while waiting:
            yield keep(waiting.popleft().result())


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FileError(f"{shown(path)}: can't be written ({error.strerror})") from None


def _failure(path: Path, error: UnmaskError) -> dict[str, Any]:
    return {"path": shown(path)} | error_body(error)
